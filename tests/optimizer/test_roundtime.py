"""Expected round time: exact, sampled, tabulated and bounded."""

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
from optimizer.times.surrogate import surrogate_round_time
from optimizer.times.tabulated import TabulatedRoundTime
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
    found = surrogate_round_time(p, rank, q, np.stack([rank, other]))
    assert found.mean_s == pytest.approx(surrogate_by_enumeration(p, rank, q), rel=1e-9)
    for row, ranks in enumerate((rank, other)):
        for n in range(devices):
            k, present, absent = rank.copy(), q.copy(), q.copy()
            k[n], present[n], absent[n] = ranks[n], 1.0, 0.0
            added = surrogate_by_enumeration(p, k, present)
            added -= surrogate_by_enumeration(p, k, absent)
            assert found.added_s[row, n] == pytest.approx(added, rel=1e-8)


@settings(max_examples=20)
@given(**PLANS)
def test_surrogate_bounds_the_round_time(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    rank, q = random_plan(p, seed)
    exact = expected_round_time(p, rank, q, method="exact").mean_s
    assert exact <= surrogate_round_time(p, rank, q).mean_s * (1 + 1e-9)


@settings(max_examples=15)
@given(**PLANS)
def test_tabulated_toggles_against_enumeration(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    rank, q = random_plan(p, seed)
    other = np.random.default_rng(seed + 1).integers(1, p.rank_cap + 1)
    table = TabulatedRoundTime.build(p, seed)
    need_hz = table.need_hz(rank)
    exact = expected_round_time(p, rank, q).mean_s
    objective = table.objective_s(need_hz, rank, q)
    assert objective == pytest.approx(p.rounds_of(rank, q) * exact, rel=0.01)
    without_s, added_s = table.toggles(need_hz, q, [need_hz, table.need_hz(other)])
    for row, ranks in enumerate((rank, other)):
        for n in range(devices):
            k, present, absent = rank.copy(), q.copy(), q.copy()
            k[n], present[n], absent[n] = ranks[n], 1.0, 0.0
            less = expected_round_time(p, k, absent).mean_s
            more = expected_round_time(p, k, present).mean_s
            assert without_s[n] == pytest.approx(less, rel=0.01)
            assert added_s[row, n] == pytest.approx(more - less, abs=0.01 * more)


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize(("devices", "probability"), [(30, 0.1), (200, 0.05), (200, 0.5)])
def test_table_agrees_with_its_own_cohorts(make_problem, power_limited, devices, probability):
    p = make_problem(devices, 3, power_limited)
    q = np.full(devices, probability)
    table = TabulatedRoundTime.build(p, 0)
    solved = p.overhead_s + cohort_time(p, p.rank_cap, table.draw < q).mean()
    tabulated = table.objective_s(table.need_hz(p.rank_cap), p.rank_cap, q)
    assert tabulated == pytest.approx(p.rounds_of(p.rank_cap, q) * solved, rel=0.01)


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
    surrogate = surrogate_round_time(p, [2], [0.3])
    assert surrogate.mean_s == pytest.approx(p.overhead_s + 0.3 * alone)
    assert surrogate.added_s[0] == pytest.approx(alone)


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


def test_bad_arguments_are_named(make_problem):
    p = make_problem(3, 0)
    with pytest.raises(ValueError, match="method"):
        expected_round_time(p, p.rank_cap, np.ones(3), method="guess")
    with pytest.raises(ValueError, match="draws"):
        expected_round_time(p, p.rank_cap, np.ones(3), method="monte-carlo", draws=1)
    with pytest.raises(ValueError, match="exact"):
        all_cohorts(21)
