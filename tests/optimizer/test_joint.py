"""The joint search: its response, its descent, its constraints and its crowds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.optimizer.brute import brute_force
from benchmarks.optimizer.instances import fleet
from optimizer import Progress, solve
from optimizer.joint import raise_to_bounds, search
from optimizer.joint.crowd import Crowd
from optimizer.joint.descend import cost_of, descend, every_rank, near_ranks, same_ranks
from optimizer.joint.response import respond
from optimizer.joint.starts import starts
from optimizer.roundtime import expected_round_time
from optimizer.times.sampled import Sampled
from optimizer.times.surrogate import Surrogate


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_a_response_to_the_own_price_is_the_exact_minimiser(make_problem, seed, factor):
    """Alone in the fleet, a device minimises R T over q and k: no grid point is better."""
    p = make_problem(1, seed, weight=[1.0], min_cohort=0.0, overhead_s=factor)
    times = Surrogate(p)
    now = p.rank_cap, np.array([0.3])
    for _ in range(60):
        candidate = every_rank(p, now[0]).astype(np.float64)
        toggles = times.toggles(*now, candidate)
        answer = respond(p, now[0].astype(np.float64), now[1], toggles, candidate)
        now = answer.rank.astype(np.int64), answer.probability
    reached = cost_of(times, *now).cost_s
    for k in range(1, p.rank_cap[0] + 1):
        # A change of rank is foreseen to first order only, so the rank is compared at its own.
        for q in np.geomspace(p.min_probability[0], 1.0, 30) if k == now[0][0] else ():
            assert reached <= cost_of(times, np.array([k]), np.array([q])).cost_s * (1 + 1e-5)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), devices=st.integers(2, 8), power_limited=st.booleans())
def test_descent_never_climbs_and_rests_at_its_end(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    times = Sampled.build(p, 0)
    for q in list(starts(p))[:3]:
        before = cost_of(times, p.rank_cap, q)
        after = descend(times, p.rank_cap, q, near_ranks, tolerance=1e-9, sweeps=200)
        assert after.cost_s <= before.cost_s
        again = descend(times, after.rank, after.probability, near_ranks)
        assert again.cost_s == pytest.approx(after.cost_s, rel=1e-4)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), cohort=st.floats(0.5, 6.0))
def test_probabilities_are_raised_to_the_cohort_and_no_further(make_problem, seed, cohort):
    p = make_problem(6, seed, min_cohort=cohort, min_probability=0.02)
    q = raise_to_bounds(p, p.rank_cap, np.random.default_rng(seed).uniform(0.02, 0.5, 6))
    assert q.sum() >= cohort * (1 - 1e-12)
    assert np.all((q >= p.min_probability) & (q <= 1))
    assert raise_to_bounds(p, p.rank_cap, q) == pytest.approx(q)


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), factor=st.floats(1.0, 20.0))
def test_probabilities_are_raised_until_the_noise_is_small_enough(make_problem, seed, factor):
    p = make_problem(6, seed, min_probability=0.02)
    rank, q = np.full(6, 2), np.random.default_rng(seed).uniform(0.02, 0.5, 6)
    before, least = p.noise(rank, q), p.noise(rank, np.ones(6))
    limit = max(before / factor, least * 1.001)
    p = replace(p, max_noise=limit)
    raised = raise_to_bounds(p, rank, q)
    assert p.noise(rank, raised) <= p.noise_limit * (1 + 1e-9)
    assert np.all(raised >= q)
    if before > p.noise_limit:
        # No more than is needed: the limit is met from below.
        assert p.noise(rank, raised) == pytest.approx(p.noise_limit, rel=1e-6)


def test_everybody_at_the_caps_is_calm_enough_whatever_the_limit(make_problem):
    p = make_problem(5, 1, max_noise=1e-6)
    assert p.noise_limit == p.noise(p.rank_cap, np.ones(5))
    plan = solve(p)
    np.testing.assert_array_equal(plan.rank, p.rank_cap)
    np.testing.assert_allclose(plan.probability, 1.0, rtol=1e-6)


def least_in_time(problem, deadline_s, tries=4000):
    """Best of random plans whose round is short enough, by enumeration."""
    rng, best = np.random.default_rng(0), np.inf
    times = Sampled.build(problem, 0)
    for _ in range(tries):
        q = np.exp(rng.uniform(np.log(problem.min_probability), 0.0))
        rank = rng.integers(problem.min_rank, problem.rank_cap + 1)
        mean_s = times.mean_s(rank, q)
        if mean_s <= deadline_s and q.sum() >= problem.min_cohort:
            best = min(best, problem.rounds_of(rank, q) * mean_s)
    return best


@pytest.mark.parametrize(("number", "share"), [(0, 0.6), (4, 0.5), (5, 0.5), (12, 0.4)])
def test_a_deadline_is_met_by_a_good_plan(number, share):
    free = fleet(3, number)
    loose = solve(free).expected_round_s
    deadline_s = free.overhead_s + share * (loose - free.overhead_s)
    plan = solve(replace(free, deadline_s=deadline_s))
    assert plan.expected_round_s <= deadline_s * (1 + 1e-9)
    assert plan.objective_s <= least_in_time(free, deadline_s) * (1 + 1e-3)
    assert solve(replace(free, deadline_s=loose * 1.01)).objective_s == pytest.approx(
        solve(free).objective_s
    )


def test_an_impossible_deadline_is_refused_with_the_shortest_round():
    p = fleet(3, 5)
    low = np.full(3, p.min_rank)
    least_s = expected_round_time(p, low, raise_to_bounds(p, low, p.min_probability)).mean_s
    with pytest.raises(ValueError, match=r"^deadline_s .*lasts [\d.]+ s") as caught:
        solve(replace(p, deadline_s=p.overhead_s * 1.0001))
    said = float(str(caught.value).split("lasts ")[1].split()[0])
    assert p.overhead_s < said <= least_s * (1 + 1e-6)


def energy_j(problem, plan):
    """Energy of each device in a round by enumerated round times."""
    toggles = Sampled.build(problem, 0).toggles(plan.rank, plan.probability, plan.rank[None])
    end_s = toggles.without_s - problem.overhead_s + toggles.added_s[0] / problem.completion
    compute_s = problem.compute_s(plan.rank)
    spent = problem.compute_power_w * compute_s + problem.transmit_power_w * (end_s - compute_s)
    return problem.takes_part(plan.probability) * spent


@pytest.mark.parametrize("completion", [1.0, 0.6])
@pytest.mark.parametrize("share", [0.7, 0.2])
def test_devices_keep_to_their_energy(make_problem, share, completion):
    p = make_problem(
        6,
        3,
        compute_power_w=np.linspace(1.0, 3.0, 6),
        transmit_power_w=np.full(6, 2.0),
        completion=completion,
        rounds=Progress(20.0, 60.0, 0.1),
    )
    free = solve(p)
    limit_j = share * energy_j(p, free)
    plan = solve(replace(p, energy_limit_j=limit_j))
    assert np.all(energy_j(p, plan) <= limit_j * (1 + 1e-6))
    # A tighter limit cannot help, and none at all is the free plan.
    assert plan.objective_s >= free.objective_s * (1 - 1e-3)
    roomy = solve(replace(p, energy_limit_j=np.full(6, 1e9)))
    assert roomy.objective_s == pytest.approx(free.objective_s, rel=1e-3)


def test_a_device_without_the_energy_for_its_least_share_is_named(make_problem):
    limit = np.array([1e9, 1e9, 1e-9, 1e9])
    p = make_problem(4, 1, compute_power_w=1.0, transmit_power_w=1.0, energy_limit_j=limit)
    with pytest.raises(ValueError, match=r"energy_limit_j of device 2 .*at least"):
        solve(p)


@settings(max_examples=6)
@given(seed=st.integers(0, 1000), cohort=st.floats(0.0, 4.0))
def test_bounds_per_device_hold(make_problem, seed, cohort):
    low = np.array([0.01, 0.5, 0.02, 1.0, 0.1])
    plan = solve(make_problem(5, seed, min_probability=low, min_cohort=cohort, min_rank=2))
    assert np.all(plan.probability >= low)
    assert plan.probability.sum() >= cohort * (1 - 1e-9)
    assert np.all(plan.rank >= 2)


@pytest.mark.parametrize("number", [2, 4, 7, 9, 14, 19])
@pytest.mark.parametrize("share", [0.6, 0.2])
def test_a_limit_of_the_noise_costs_as_much_as_brute_force_says(number, share):
    free = fleet(3, number)
    noise = solve(free).certificate.noise
    p = replace(free, max_noise=share * noise)
    plan = solve(p)
    assert plan.certificate.noise <= p.noise_limit * (1 + 1e-9)
    assert plan.objective_s <= brute_force(p).objective_s * (1 + 5e-3)
    assert plan.certificate.kkt_residual < 0.05


@pytest.mark.parametrize("number", [4, 14])
def test_a_cohort_bound_costs_as_much_as_brute_force_says(number):
    p = replace(fleet(3, number), min_cohort=2.0)
    assert solve(p).objective_s <= brute_force(p).objective_s * (1 + 5e-3)


def test_a_crowd_of_single_devices_is_the_surrogate():
    """One device per kind: mean and toggles are those of the fleet itself."""
    p = fleet(64 * 8 * 4, 0)
    crowd = Crowd.of(p)
    assert crowd.copies == 1.0
    order = np.argsort(crowd.kind)
    q = np.random.default_rng(0).uniform(0.01, 0.9, p.devices)
    theirs = crowd.toggles(crowd.problem.rank_cap, q, crowd.problem.rank_cap[None])
    own = np.empty_like(q)
    own[order] = q
    ours = Surrogate(p).toggles(p.rank_cap, own, p.rank_cap[None])
    assert theirs.mean_s == pytest.approx(ours.mean_s, rel=1e-9)
    np.testing.assert_allclose(theirs.added_s[0], ours.added_s[0][order], rtol=1e-6)
    assert crowd.problem.rounds_of(crowd.problem.rank_cap, q) == pytest.approx(
        p.rounds_of(p.rank_cap, own)
    )


def test_a_crowd_plans_almost_as_well_as_the_fleet():
    p = fleet(6000, 4)
    crowd, times = Crowd.of(p), Surrogate(p)
    start = list(starts(crowd.problem))[1]
    found = descend(crowd, crowd.problem.rank_cap, start, every_rank, tolerance=1e-3)
    spread = cost_of(times, *crowd.spread(p, found.rank, found.probability))
    best = descend(times, spread.rank, spread.probability, near_ranks)
    assert spread.cost_s <= best.cost_s * 1.05


def test_search_puts_the_best_plan_first():
    p = fleet(20, 14)
    plans = search(p, 0)
    costs = [one.cost_s for one in plans]
    assert costs == sorted(costs)
    times_rank = same_ranks(p, plans[0].rank)
    assert times_rank.shape == (1, 20)
