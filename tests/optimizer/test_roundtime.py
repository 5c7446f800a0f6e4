"""Expected round time: exact, sampled and bounded; `test_times.py` has the estimates."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.roundtime import (
    all_cohorts,
    cohort_mass,
    cohort_time,
    expected_round_time,
)
from optimizer.times.surrogate import Surrogate
from wireless.link import LinearLink

PLANS = {
    "seed": st.integers(0, 10_000),
    "devices": st.integers(1, 7),
    "power_limited": st.booleans(),
}


def random_plan(problem, seed):
    rng = np.random.default_rng(seed)
    q = rng.uniform(0.05, 1.0, problem.devices)
    q[rng.random(problem.devices) < 0.25] = 1.0
    return rng.integers(1, problem.rank_cap + 1), q


def surrogate_by_enumeration(problem, rank, probability):
    """E[max tau] + E[sum of solo transfers], cohort by cohort."""
    tau = problem.compute_s(rank)
    alone = problem.upload_bits(rank) / problem.link.rate(
        np.full(problem.devices, problem.bandwidth_hz)
    )
    total = problem.overhead_s
    for cohort in itertools.product([False, True], repeat=problem.devices):
        here = np.array(cohort)
        mass = np.prod(np.where(here, probability, 1 - probability))
        total += mass * (max(tau[here], default=0.0) + alone[here].sum())
    return total


@settings(max_examples=30)
@given(**PLANS)
def test_surrogate_and_its_toggles_against_enumeration(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    rank, q = random_plan(p, seed)
    other = np.random.default_rng(seed + 1).integers(1, p.rank_cap + 1)
    found = Surrogate(p).toggles(rank, q, np.stack([rank, other]))
    assert found.mean_s == pytest.approx(surrogate_by_enumeration(p, rank, q), rel=1e-9)
    for row, ranks in enumerate((rank, other)):
        for n in range(devices):
            k, present, absent = rank.copy(), q.copy(), q.copy()
            k[n], present[n], absent[n] = ranks[n], 1.0, 0.0
            less = surrogate_by_enumeration(p, k, absent)
            assert found.without_s[n] == pytest.approx(less, rel=1e-9)
            added = surrogate_by_enumeration(p, k, present) - less
            assert found.added_s[row, n] == pytest.approx(added, rel=1e-8)


@pytest.mark.parametrize("power_limited", [False, True])
def test_exact_lies_in_the_interval_of_monte_carlo(make_problem, power_limited):
    p = make_problem(6, 5, power_limited)
    rank, q = random_plan(p, 5)
    exact = expected_round_time(p, rank, q)
    sampled = expected_round_time(p, rank, q, method="monte-carlo", draws=20_000)
    assert (exact.half_width_s, exact.draws, sampled.draws) == (0.0, 64, 20_000)
    assert abs(sampled.mean_s - exact.mean_s) < 2 * sampled.half_width_s
    again = expected_round_time(p, rank, q, method="monte-carlo", draws=20_000)
    assert again == sampled
    other = expected_round_time(p, rank, q, method="monte-carlo", draws=20_000, seed=1)
    assert other.mean_s != sampled.mean_s


def test_one_device_alone(make_problem):
    p = make_problem(1, 0, weight=[1.0], link=LinearLink(np.array([2.0])))
    alone = p.compute_s([2])[0] + p.upload_bits([2])[0] / (2.0 * p.bandwidth_hz)
    assert expected_round_time(p, [2], [0.3]).mean_s == pytest.approx(p.overhead_s + 0.3 * alone)


def test_equal_compute_times_share_the_band(make_problem):
    """Everybody, ready together on linear links: tau + W/B."""
    n = 20
    p = make_problem(n, 2, compute_base_s=np.full(n, 3.0), compute_per_rank_s=np.zeros(n))
    work = p.upload_bits(p.rank_cap) / p.link.rate(np.full(n, p.bandwidth_hz))
    time = expected_round_time(p, p.rank_cap, np.ones(n))
    assert time.mean_s == pytest.approx(p.overhead_s + 3.0 + work.sum())
    assert time.half_width_s == 0.0


def test_cohorts_are_enumerated_once_each():
    present = all_cohorts(4)
    assert len(np.unique(present, axis=0)) == 16
    q = np.array([0.1, 0.5, 0.9, 1.0])
    mass = cohort_mass(present, q)
    assert mass.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(mass @ present, q)


def test_times_of_cohorts_do_not_depend_on_who_else_is_computed(make_problem):
    """A device that is in no cohort of a batch changes no bit of it."""
    p = make_problem(6, 3, True, cell=[0, 0, 1, 1, 2, 2], download_bps=np.full(6, 1e6))
    present = all_cohorts(6)[:, ::-1]
    one_by_one = [cohort_time(p, p.rank_cap, row[None])[0] for row in present]
    np.testing.assert_array_equal(cohort_time(p, p.rank_cap, present), one_by_one)
    assert cohort_time(p, p.rank_cap, present[:1])[0] == 0.0


@pytest.mark.parametrize("method", ["quadrature", "mean-field"])
def test_methods_without_draws_report_no_interval(make_problem, method):
    p = make_problem(5, 1)
    found = expected_round_time(p, p.rank_cap, np.full(5, 0.5), method=method)
    assert (found.half_width_s, found.draws) == (0.0, 0)
    assert found.mean_s > p.overhead_s


def test_bad_arguments_are_named(make_problem):
    p = make_problem(3, 0)
    with pytest.raises(ValueError, match="method"):
        expected_round_time(p, p.rank_cap, np.ones(3), method="guess")
    with pytest.raises(ValueError, match="draws"):
        expected_round_time(p, p.rank_cap, np.ones(3), method="monte-carlo", draws=1)
    with pytest.raises(ValueError, match="exact"):
        all_cohorts(21)
