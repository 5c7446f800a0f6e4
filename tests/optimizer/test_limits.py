"""What becomes of the best plan where the problem becomes simple."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import Problem, Progress, solve
from optimizer.rounds import RankCost
from optimizer.roundtime import expected_round_time
from wireless.link import LinearLink


def permuted(problem, order):
    """Return the same fleet with its devices in another order."""
    values = {}
    for field in (one for one in fields(problem) if one.init):
        value = getattr(problem, field.name)
        values[field.name] = value[order] if isinstance(value, np.ndarray) else value
    return type(problem)(**(values | {"link": problem.link.take(order)}))


def test_without_noise_nobody_takes_part_beyond_the_bounds(make_problem):
    """Rounds that do not depend on q cost least when they are as short as the bounds allow."""
    p = make_problem(6, 2, rounds=Progress(20.0, 0.0, 0.0), min_cohort=0.0)
    plan = solve(p)
    np.testing.assert_allclose(plan.probability, p.min_probability, rtol=1e-9)
    np.testing.assert_array_equal(plan.rank, p.min_rank)


def test_noise_alone_calls_everybody_where_the_overhead_dominates(make_problem):
    p = make_problem(6, 2, rounds=Progress(1e-9, 100.0, 0.0), overhead_s=1e7)
    plan = solve(p)
    np.testing.assert_allclose(plan.probability, 1.0)
    np.testing.assert_array_equal(plan.rank, p.rank_cap)


def test_noise_alone_has_the_closed_form_of_separate_rounds(make_problem):
    """Noise over overhead: R T with R = sum A/q, T ~ T_oh + sum q T_n, so q ~ sqrt(A_n / T_n)."""
    p = make_problem(
        4, 5, rounds=Progress(1e-9, 1.0, 0.0), overhead_s=1e-4, min_probability=1e-4, min_cohort=0.0
    )
    p = replace(p, rank_cap=np.full(4, 8))
    plan = solve(p)
    # While two seldom meet, the product is the same along c q for all c: that of Cauchy-Schwarz.
    alone = np.array(
        [expected_round_time(p, plan.rank, np.eye(4)[n]).mean_s - p.overhead_s for n in range(4)]
    )
    least = np.sum(np.sqrt(p.variance * p.rank / plan.rank * alone)) ** 2
    assert plan.objective_s <= least * (1 + 1e-2)


def test_an_infinite_band_leaves_the_ranks_at_their_caps(make_problem):
    """Then ranks cost next to no time, and the time of a round is that of its slowest device."""
    p = make_problem(
        7, 3, bandwidth_hz=1e15, compute_per_rank_s=np.zeros(7), rounds=RankCost(20.0, 30.0, 5.0)
    )
    plan = solve(p)
    np.testing.assert_array_equal(plan.rank, p.rank_cap)
    order = np.argsort(p.compute_base_s)
    tau, q = p.compute_base_s[order], plan.probability[order]
    slowest = np.append(np.cumprod((1 - q)[::-1])[::-1][1:], 1.0)
    assert plan.expected_round_s == pytest.approx(p.overhead_s + np.sum(tau * q * slowest))


def test_identical_devices_do_as_well_as_the_best_common_plan(make_problem):
    n = 8
    one = make_problem(1, 4, weight=[1.0])
    p = make_problem(
        n,
        4,
        weight=np.full(n, 1 / n),
        gradient_norm=np.ones(n),
        compute_base_s=np.repeat(one.compute_base_s, n),
        compute_per_rank_s=np.repeat(one.compute_per_rank_s, n),
        link=one.link.take(np.zeros(n, dtype=np.intp)),
        rank_cap=np.full(n, 8),
    )
    common = min(
        p.rounds_of(np.full(n, k), np.full(n, q))
        * expected_round_time(p, np.full(n, k), np.full(n, q)).mean_s
        for k in (1, 2, 4, 6, 8)
        for q in np.geomspace(0.0625, 1.0, 9)
    )
    assert solve(p).objective_s <= common * (1 + 1e-6)


@settings(max_examples=6)
@given(seed=st.integers(0, 1000), devices=st.integers(2, 8), power_limited=st.booleans())
def test_permuting_devices_permutes_the_plan(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    order = np.random.default_rng(seed).permutation(devices)
    plan, other = solve(p), solve(permuted(p, order))
    assert other.objective_s == pytest.approx(plan.objective_s, rel=1e-3)


@settings(max_examples=6)
@given(
    seed=st.integers(0, 1000),
    time=st.sampled_from([2.0**-12, 8.0]),
    bits=st.sampled_from([0.125, 2.0**10]),
)
def test_units_do_not_matter(make_problem, seed, time, bits):
    """Seconds, bits and the unit of the gradients: the plan stays, the objective is in seconds."""
    p = make_problem(4, seed)
    scaled = make_problem(
        4,
        seed,
        compute_base_s=time * p.compute_base_s,
        compute_per_rank_s=time * p.compute_per_rank_s,
        overhead_s=time * p.overhead_s,
        bandwidth_hz=bits * p.bandwidth_hz / time,
        fixed_bits=bits * p.fixed_bits,
        bits_per_rank=bits * p.bits_per_rank,
        gradient_norm=1e6 * p.gradient_norm,
    )
    before, after = solve(p), solve(scaled)
    assert after.objective_s == pytest.approx(time * before.objective_s, rel=1e-9)
    np.testing.assert_array_equal(after.rank, before.rank)
    np.testing.assert_allclose(after.probability, before.probability, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_one_device_has_a_closed_form(make_problem, rank):
    """V = (alpha + beta/q) (T_oh + q T_1), least at q^2 = beta T_oh / (alpha T_1)."""
    p = make_problem(1, 0, weight=[1.0], rank=3, rank_cap=[rank], min_rank=rank, min_cohort=0.0)
    alone_s = expected_round_time(p, [rank], [1.0]).mean_s - p.overhead_s
    alpha = p.rounds_of([rank], [1.0]) - 3 / rank * p.rounds.sampling
    beta = 3 / rank * p.rounds.sampling
    q = np.clip(np.sqrt(beta * p.overhead_s / (alpha * alone_s)), p.min_probability, 1.0)
    plan = solve(p)
    assert plan.probability == pytest.approx(q, rel=1e-5)
    best = (alpha + beta / q) * (p.overhead_s + q * alone_s)
    assert plan.objective_s == pytest.approx(float(best[0]), rel=1e-9)


def test_a_device_that_can_never_finish_is_refused_or_seldom_asked(make_problem):
    with pytest.raises(ValueError, match="device 1"):
        make_problem(3, 0, link=LinearLink(np.array([1.0, 5e-324, 1.0])), bandwidth_hz=0.1)
    p = make_problem(4, 0, compute_base_s=[1.0, 1e9, 2.0, 3.0], min_cohort=0.0)
    plan = solve(p)
    assert plan.probability[1] == p.min_probability[1]
    assert np.isfinite(plan.objective_s)


def test_a_device_without_weight_is_asked_as_seldom_as_allowed(make_problem):
    p = make_problem(5, 1, weight=[0.3, 0.0, 0.3, 0.2, 0.2], min_cohort=0.0)
    assert isinstance(p, Problem)
    plan = solve(p)
    assert plan.probability[1] == p.min_probability[1]
