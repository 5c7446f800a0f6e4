"""Samplers: whom they take, what they learn, and what they depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import Certificate, Cohort, Plan, draw_cohort
from optimizer.outcome import Outcome
from optimizer.policies import BIASED, POLICIES
from optimizer.policies.oort import Oort
from optimizer.policies.parts import members_s
from optimizer.policies.tsfa import Tsfa, sparsify
from optimizer.sampler import SAMPLERS, Independent, make_sampler


def plan_of(problem, policy, rank, probability):
    expected_s = float(members_s(problem, np.arange(problem.devices), rank))
    cohort = float(np.sum(probability))
    known = Certificate(0.0, 1, 0.0, cohort)
    return Plan(policy, rank, np.asarray(probability), expected_s, 1.0, expected_s, known)


def planned(problem, policy, **parameters):
    return plan_of(problem, policy, *POLICIES[policy](problem, 1, **parameters))


def outcome(cohort, number, loss, busy_s, duration_s=1.0):
    loss, busy_s = np.asarray(loss, dtype=float), np.asarray(busy_s, dtype=float)
    return Outcome(
        number, duration_s, cohort.device, cohort.rank, loss[cohort.device],
        np.ones(len(cohort.device)), busy_s[cohort.device],
    )  # fmt: skip


def test_samplers_belong_to_policies(make_problem):
    assert set(SAMPLERS) <= set(POLICIES)
    assert set(SAMPLERS) >= BIASED
    p = make_problem(6, 0)
    assert isinstance(make_sampler(p, planned(p, "uniform"), 0, rank=None), Independent)
    assert isinstance(make_sampler(p, planned(p, "oort"), 0, cohort=2), Oort)


def test_independent_draws_are_those_of_the_plan(make_problem):
    p = make_problem(8, 0, completion=0.5)
    plan = planned(p, "uniform", probability=0.4)
    sampler = Independent(p, plan, 9)
    for number in range(5):
        cohort, expected = sampler.draw(number), draw_cohort(plan, p.unbiased_weight, 9, number)
        np.testing.assert_array_equal(cohort.device, expected.device)
        np.testing.assert_array_equal(cohort.weight, expected.weight)


@pytest.mark.parametrize("policy", sorted(SAMPLERS))
def test_cohorts_are_reproducible_and_within_their_plan(make_problem, policy):
    p = make_problem(15, 3)
    plan = planned(p, policy)
    one, two = make_sampler(p, plan, 5), make_sampler(p, plan, 5)
    for number in range(6):
        cohort, again = one.draw(number), two.draw(number)
        np.testing.assert_array_equal(cohort.device, again.device)
        np.testing.assert_array_equal(cohort.rank, again.rank)
        assert np.all(np.diff(cohort.device) > 0)
        assert np.all((cohort.rank >= p.min_rank) & (cohort.rank <= plan.rank[cohort.device]))
        if policy in BIASED:
            share = p.weight[cohort.device]
            np.testing.assert_allclose(cohort.weight, share / share.sum())
        else:
            unbiased = p.unbiased_weight[cohort.device] / plan.probability[cohort.device]
            np.testing.assert_allclose(cohort.weight, unbiased)


@pytest.mark.parametrize("policy", ["fedcs", "shi"])
def test_a_schedule_is_the_same_in_every_round(make_problem, policy):
    p = make_problem(15, 3)
    plan = planned(p, policy)
    sampler = make_sampler(p, plan, 5)
    for number in range(4):
        device = sampler.draw(number).device
        np.testing.assert_array_equal(device, np.flatnonzero(plan.probability == 1.0))


def test_a_cohort_without_data_moves_nothing():
    cohort = Cohort.averaged(np.array([1]), np.array([2, 3]), np.array([1.0, 0.0]))
    np.testing.assert_array_equal(cohort.weight, [0.0])


def run(sampler, rounds, loss, busy_s):
    """Membership (rounds, N) of cohorts whose losses and times are always the same."""
    member = np.zeros((rounds, len(loss)))
    for number in range(rounds):
        cohort = sampler.draw(number)
        member[number, cohort.device] = 1
        sampler.learn(outcome(cohort, number, loss, busy_s))
    return member


def oort_problem(make_problem, devices=20):
    return make_problem(devices, 1, weight=np.full(devices, 1 / devices), min_cohort=1.0)


def test_oort_explores_everybody_and_then_exploits(make_problem):
    p = oort_problem(make_problem)
    loss = np.where(np.arange(20) < 4, 10.0, 1.0)
    sampler = Oort(p, planned(p, "oort", cohort=4), 0, cohort=4)
    member = run(sampler, 300, loss, np.full(20, 1.0))
    np.testing.assert_array_equal(member.sum(axis=1), 4)
    assert np.all(member.sum(axis=0) > 0)
    # Nine in ten of the first places go to devices that have not trained.
    assert np.all(member[:2].sum(axis=0) <= 1)
    late = member[100:].mean(axis=0)
    assert late[:4].min() > 4 * late[4:].max()


def test_oort_penalises_slow_devices(make_problem):
    p = oort_problem(make_problem)
    plan = planned(p, "oort", cohort=4)
    busy_s = np.where(np.arange(20) < 10, 1.0, 1e3 * p.compute_s(p.rank_cap).max())
    member = run(Oort(p, plan, 0, cohort=4), 120, np.ones(20), busy_s)
    assert member[60:, 10:].sum() < 0.05 * member[60:].sum()
    blind = run(Oort(p, plan, 0, cohort=4, penalty=0.0), 120, np.ones(20), busy_s)
    assert blind[60:, 10:].sum() > 0.3 * blind[60:].sum()


def test_oort_utility_is_the_formula(make_problem):
    p = oort_problem(make_problem, 5)
    sampler = Oort(p, planned(p, "oort", cohort=5), 0, cohort=5)
    assert np.isnan(sampler.utility(0)).all()
    limit_s = sampler.preferred_s
    cohort = sampler.draw(0)
    sampler.learn(
        outcome(cohort, 0, [2.0, 2.0, 2.0, 2.0, 1.0], limit_s * np.array([1, 2, 4, 1, 1]))
    )
    stale = np.sqrt(0.1 * np.log(9))
    expected = np.array([1 + stale, (1 + stale) / 4, (1 + stale) / 16, 1 + stale, 0.5 + stale])
    np.testing.assert_allclose(sampler.utility(8), expected)


def test_oort_relaxes_its_pace_when_utility_falls(make_problem):
    p = oort_problem(make_problem, 5)
    falling, steady = (Oort(p, planned(p, "oort"), 0) for _ in range(2))
    start_s = steady.preferred_s
    for number in range(40):
        for sampler, loss in ((falling, 1.0 / (1 + number)), (steady, 1.0)):
            sampler.learn(outcome(sampler.draw(number), number, np.full(5, loss), np.ones(5)))
    assert falling.preferred_s == pytest.approx(1.1 * start_s)
    assert steady.preferred_s == start_s


def test_oort_depends_on_its_seed_and_its_rounds_alone(make_problem):
    p = oort_problem(make_problem)
    plan = planned(p, "oort", cohort=4)
    one, two, other = (Oort(p, plan, seed, cohort=4) for seed in (0, 0, 1))
    two.draw(3)
    two.draw(7)
    loss, busy_s = np.linspace(1, 2, 20), np.ones(20)
    first = run(one, 30, loss, busy_s)
    np.testing.assert_array_equal(first, run(two, 30, loss, busy_s))
    assert np.any(first != run(other, 30, loss, busy_s))


def test_a_loss_that_is_no_number_teaches_nothing(make_problem):
    p = oort_problem(make_problem)
    sampler = Oort(p, planned(p, "oort", cohort=4), 0, cohort=4)
    member = run(sampler, 10, np.full(20, np.nan), np.ones(20))
    np.testing.assert_array_equal(member.sum(axis=1), 4)
    assert np.isnan(sampler.utility(10)).all()


def tsfa_pair(make_problem, devices=10, power_limited=False, **parameters):
    p = make_problem(devices, 4, power_limited, min_cohort=0.0, overhead_s=1.0)
    q = np.full(devices, 0.4)
    return p, Tsfa(p, plan_of(p, "tsfa", p.rank_cap, q), 7, **parameters)


def test_the_queue_follows_its_recursion(make_problem):
    p, sampler = tsfa_pair(make_problem, mean_round_s=30.0)
    queue_s = 0.0
    for number in range(40):
        cohort = sampler.draw(number)
        time_s = float(members_s(p, cohort.device, cohort.rank))
        assert sampler.queue_s == pytest.approx(max(queue_s + time_s - 30.0, 0.0))
        # Rounds last otherwise than planned; the queue takes what they took.
        measured_s = 1.1 * time_s
        sampler.learn(outcome(cohort, number, np.ones(10), np.ones(10), measured_s))
        queue_s = max(queue_s + measured_s - 30.0, 0.0)
        assert sampler.queue_s == pytest.approx(queue_s)
    assert queue_s > 0


@pytest.mark.parametrize("power_limited", [False, True])
def test_the_mean_round_time_tends_to_its_bound(make_problem, power_limited):
    p, free = tsfa_pair(make_problem, power_limited=power_limited, mean_round_s=1e6)
    cohorts = [free.draw(number) for number in range(150)]
    full_s = np.array([float(members_s(p, c.device, c.rank)) for c in cohorts])
    lowest = [np.full(len(c.device), p.min_rank) for c in cohorts]
    least_s = np.array(
        [float(members_s(p, c.device, k)) for c, k in zip(cohorts, lowest, strict=True)]
    )
    bound_s = 0.5 * (least_s.mean() + full_s.mean())
    _, sampler = tsfa_pair(make_problem, power_limited=power_limited, mean_round_s=bound_s)
    time_s = np.empty(150)
    for number in range(150):
        cohort = sampler.draw(number)
        np.testing.assert_array_equal(cohort.device, cohorts[number].device)
        time_s[number] = float(members_s(p, cohort.device, cohort.rank))
    # Summed up, the recursion bounds the excess by the queue, which stays bounded.
    assert time_s.mean() <= bound_s + sampler.queue_s / 150 + 1e-9
    assert time_s.mean() <= 1.02 * bound_s
    assert time_s.mean() > 0.8 * bound_s
    assert full_s.mean() > 1.02 * bound_s


def test_a_high_tradeoff_keeps_the_structural_rank(make_problem):
    p, sampler = tsfa_pair(make_problem, mean_round_s=5.0, tradeoff=1e12)
    _, eager = tsfa_pair(make_problem, mean_round_s=5.0, tradeoff=0.0)
    cut = 0
    for number in range(20):
        cohort = sampler.draw(number)
        np.testing.assert_array_equal(cohort.rank, p.rank_cap[cohort.device])
        cut += np.sum(eager.draw(number).rank < p.rank_cap[cohort.device])
    assert cut > 0


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    members=st.integers(0, 4),
    power_limited=st.booleans(),
    price=st.sampled_from([0.0, 1e-3, 1e-2, 0.1]),
)
def test_sparsification_is_close_to_the_best_of_all_ranks(
    make_problem, seed, members, power_limited, price
):
    p = make_problem(5, seed, power_limited)
    device = np.arange(members)
    cohort = Cohort(device, p.rank_cap[:members], p.weight[:members] / 0.4)
    rank, time_s = sparsify(p, cohort, 1.0, price)
    assert time_s == pytest.approx(float(members_s(p, device, rank)))
    grids = np.meshgrid(*(np.arange(1, cap + 1) for cap in cohort.rank), indexing="ij")
    every = np.stack([grid.ravel() for grid in grids], axis=1) if members else np.empty((1, 0))

    def value(k):
        return (cohort.rank / k - 1) @ cohort.weight + price * members_s(p, device, k)

    best = float(value(every).min())
    # Up to the grid of times and the duality gap.
    assert value(rank) <= 1.02 * best + 1e-12


def test_downloads_in_turn_and_cells_are_sparsified_too(make_problem):
    p = make_problem(
        6, 2, cell=[0, 1, 0, 1, 0, 1], download_bps=np.full(6, 1e6), down_bits_per_rank=1e6
    )
    cohort = Cohort(np.arange(6), p.rank_cap, p.weight)
    full_s = float(members_s(p, cohort.device, p.rank_cap))
    rank, time_s = sparsify(p, cohort, 1.0, 0.1)
    assert time_s < full_s
    assert np.any(rank < p.rank_cap)
