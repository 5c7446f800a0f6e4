"""Control variates: their means are exact, what they leave is estimated, and so is its error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.controls import Controls, adjusted, mean_largest
from optimizer.roundtime import (
    all_cohorts,
    cohort_mass,
    cohort_time,
    drawn_times,
    expected_round_time,
    followed,
)
from wireless.link import LinearLink
from wireless.spectrum import RULES


def random_plan(problem, seed, least=0.05):
    rng = np.random.default_rng(seed)
    q = rng.uniform(least, 1.0, problem.devices)
    return rng.integers(1, problem.rank_cap + 1), q


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    devices=st.integers(1, 8),
    always=st.booleans(),
    downloads=st.booleans(),
)
def test_means_against_enumeration(make_problem, seed, devices, always, downloads):
    rate = np.full(devices, 1e6) if downloads else None
    p = make_problem(devices, seed, True, download_bps=rate, down_bits_per_rank=1e6)
    rank, q = random_plan(p, seed)
    if always:
        q[0] = 1.0
    present = all_cohorts(devices)
    controls = Controls.build(p, rank, q)
    mean = cohort_mass(present, q) @ controls.of(present)
    np.testing.assert_allclose(controls.mean(), mean, rtol=1e-12, atol=1e-15)
    longest_s = float(np.median(controls.alone_s))
    late = np.minimum(controls.of(present)[:, [0, 2]], longest_s)
    late_s = cohort_mass(present, q) @ late
    np.testing.assert_allclose(controls.mean(longest_s)[[0, 2]], late_s, rtol=1e-12, atol=1e-15)


def test_largest_of_equal_chances():
    """1, 2 and 3, each there with probability 1/2: 3/2 + 2/4 + 1/8."""
    assert mean_largest(np.array([2.0, 3.0, 1.0]), np.full(3, 0.5)) == 2.125
    assert mean_largest(np.array([2.0, 3.0]), np.array([0.4, 1.0])) == 3.0


@pytest.mark.parametrize("allocation", RULES)
@pytest.mark.parametrize("power_limited", [False, True])
def test_intervals_hold_the_enumerated_mean(make_problem, allocation, power_limited):
    """On average over 400 seeds there is no bias, and 95 % of the intervals hold the mean."""
    p = make_problem(9, 4, power_limited, allocation=allocation)
    rank, q = random_plan(p, 4, least=0.2)
    present = all_cohorts(9)
    mass, time_s = cohort_mass(present, q), cohort_time(p, rank, present)
    controls, exact = Controls.build(p, rank, q), expected_round_time(p, rank, q).mean_s
    control, rng, draws = controls.of(present), np.random.default_rng(0), 256
    chosen = rng.choice(len(present), (400, draws), p=mass)
    sample = np.stack([controls.adjusted(time_s[i], control[i]) for i in chosen])
    away = p.overhead_s + sample.mean(axis=1) - exact
    error = sample.std(axis=1, ddof=1) / np.sqrt(draws)
    # Binomial of 400 and 0.95: 0.91 to 0.98 is four standard errors.
    assert 0.91 < np.mean(np.abs(away) < 1.96 * error) < 0.985
    # The bias, O(1/draws), is far below the error of one estimate.
    assert abs(away.mean()) < 0.2 * away.std()
    plain = time_s[chosen].mean(axis=1).std()
    assert away.std() < 0.5 * plain


def test_exact_where_the_round_is_a_control(make_problem):
    """Uploads of next to nothing: a round ends with its slowest member, and no error is left."""
    p = make_problem(100, 1, bits_per_rank=0.0, fixed_bits=1e-9)
    q = np.full(100, 0.1)
    found = expected_round_time(p, p.rank_cap, q, draws=64)
    slowest_s = mean_largest(p.compute_s(p.rank_cap), q)
    assert found.mean_s == pytest.approx(p.overhead_s + slowest_s, rel=1e-9)
    assert found.half_width_s < 1e-9 * found.mean_s


@pytest.mark.parametrize("draws", [2, 64])
def test_a_straggler_too_rare_to_be_drawn_is_foreseen(make_problem, draws):
    """Once in 100,000 rounds a device is a million times as slow as any: it adds ten of them."""
    base_s = np.append(np.linspace(1.0, 2.0, 19), 1e6)
    p = make_problem(
        20, 2, compute_base_s=base_s, compute_per_rank_s=np.zeros(20), bits_per_rank=1e4
    )
    q = np.append(np.full(19, 0.5), 1e-5)
    without, found = (
        expected_round_time(p, p.rank_cap, chance, draws=draws).mean_s
        for chance in (np.append(q[:-1], 1e-300), q)
    )
    assert found - without == pytest.approx(10.0, rel=1e-4)


def test_controls_that_do_not_vary_are_left_out():
    rng = np.random.default_rng(0)
    first, mean = rng.normal(5.0, 1.0, 200), np.array([5.0, 3.0, 5.0, 0.1 + 0.2])
    control = np.stack([first, np.full(200, 3.0), first, np.full(200, 0.3)], axis=1)
    noise = rng.normal(0.0, 0.1, 200)
    found = adjusted(2 * first + noise, control, mean)
    slope = np.cov(2 * first + noise, first)[0, 1] / first.var(ddof=1)
    assert found.mean() == pytest.approx((2 * first + noise).mean() - slope * (first.mean() - 5.0))
    # Two coefficients, of which the mean is one.
    rest = 2 * first + noise - slope * first
    assert found.std(ddof=1) == pytest.approx(rest.std(ddof=2))


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("allocation", RULES)
def test_fewer_draws_where_transfers_are_followed(make_problem, allocation, power_limited):
    p = make_problem(400, 0, power_limited, allocation=allocation, bits_per_rank=1e3)
    at_once = allocation in ("equal-finish", "time-division") or isinstance(p.link, LinearLink)
    assert followed(p) is not at_once
    found = expected_round_time(p, p.rank_cap, np.full(400, 0.02))
    assert found.draws == (4096 if at_once else 1250)


def test_plans_of_one_seed_meet_the_same_draws(make_problem):
    """A device more in every cohort delays them all, draw by draw."""
    p = make_problem(30, 3)
    q = np.full(30, 0.3)
    more = np.where(np.arange(30) == 7, 1.0, q)
    few, many = (drawn_times(p, p.rank_cap, one, 5, "certificate", 500) for one in (q, more))
    apart = (many - few).std(ddof=1)
    others = drawn_times(p, p.rank_cap, more, 6, "certificate", 500)
    assert apart < 0.7 * (others - few).std(ddof=1)
