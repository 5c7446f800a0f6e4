"""Lower bounds: never above a plan, equal to closed forms, in step with units."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import solve
from optimizer.bound import lower_bound
from optimizer.bound.bulk import Parted, linearised
from optimizer.bound.chain import solo_chain, starts, transfer_chain
from optimizer.bound.crowd import Crowd
from optimizer.bound.price import least_product
from optimizer.bound.programme import Charge, least_cost
from optimizer.rounds import Progress, RankCost, SamplingTerm, SmoothnessScaled
from optimizer.roundtime import all_cohorts, cohort_mass, cohort_time, expected_round_time
from wireless.link import LinearLink
from wireless.spectrum import RULES

MODELS = (
    Progress(14.0, 3.0, 0.8),
    RankCost(14.0, 20.0, 3.0),
    SamplingTerm(14.0, 20.0),
    SmoothnessScaled(14.0, 20.0),
)


def best_of_a_grid(problem, points=9):
    """Least objective over all ranks and a grid of q, every cohort's time exact."""
    present = all_cohorts(problem.devices)
    axes = [np.geomspace(low, 1.0, points) for low in problem.min_probability]
    q = np.array(list(itertools.product(*axes)))
    q = q[q.sum(axis=1) >= problem.min_cohort * (1 - 1e-12)]
    mass = np.where(present, problem.takes_part(q)[:, None], 1 - problem.takes_part(q)[:, None])
    mass = mass.prod(axis=-1)
    least = np.inf
    for k in itertools.product(*(range(problem.min_rank, cap + 1) for cap in problem.rank_cap)):
        rank = np.array(k)
        time_s = problem.overhead_s + mass @ cohort_time(problem, rank, present)
        rounds = problem.rounds.rounds(problem.weight, problem.variance, rank / problem.rank, q)
        calm = (problem.noise_shares(rank) / q).sum(axis=1) <= problem.noise_limit
        least = min(least, float(np.min(np.where(calm, rounds * time_s, np.inf))))
    return least


def charge_of(problem, ranks):
    (minorant,) = problem.rounds.minorant(
        problem.weight, problem.variance, problem.rank_cap / problem.rank, ranks / problem.rank
    )
    held = ranks[:, None] <= problem.rank_cap
    return Charge(
        minorant.constant,
        np.where(held, minorant.per_probability * problem.completion, np.inf),
        np.where(held, minorant.fixed, 0.0),
        np.zeros(problem.devices),
        problem.takes_part(problem.min_probability),
        problem.completion,
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    devices=st.integers(1, 3),
    power_limited=st.booleans(),
    rule=st.sampled_from(sorted(RULES)),
    model=st.sampled_from(MODELS),
    completion=st.sampled_from([1.0, 0.7]),
    min_cohort=st.sampled_from([0.0, 0.5, 0.9]),
    slow_ranks=st.booleans(),
)
def test_no_plan_is_below_the_bound(
    make_problem, seed, devices, power_limited, rule, model, completion, min_cohort, slow_ranks
):
    rng = np.random.default_rng(seed)
    changes = {}
    if slow_ranks:
        changes["compute_per_rank_s"] = rng.uniform(0, 2, devices)
    p = make_problem(
        devices,
        seed,
        power_limited,
        rank=4,
        rank_cap=rng.integers(2, 5, devices),
        rounds=model,
        allocation=rule,
        completion=np.full(devices, completion),
        min_cohort=min_cohort * devices,
        min_probability=0.02,
        **changes,
    )
    best = best_of_a_grid(p)
    assert 0 < lower_bound(p).value_s <= best
    # What is known of good plans decides where the bound is tight, never whether it holds.
    rank, q = rng.integers(1, p.rank_cap + 1), rng.uniform(0.02, 1.0, devices)
    assert 0 < lower_bound(p, rank, q).value_s <= best


@pytest.mark.parametrize("cells", [2, 3])
def test_bound_holds_for_several_cells_and_downloads(make_problem, cells):
    for seed in range(6):
        p = make_problem(
            3,
            seed,
            seed % 2 == 1,
            rank=4,
            rank_cap=[4, 2, 3],
            cell=np.arange(3) % cells,
            download_bps=np.full(3, 2e6),
            down_bits_per_rank=1e6,
        )
        assert 0 < lower_bound(p).value_s <= best_of_a_grid(p)


@pytest.mark.parametrize("allocation", ["equal-finish", "time-division"])
def test_bound_holds_for_devices_of_unlike_traffic(make_problem, allocation):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        p = make_problem(
            3,
            seed,
            seed % 2 == 1,
            rank=4,
            rank_cap=[4, 2, 3],
            allocation=allocation,
            fixed_bits=rng.uniform(0, 3e7, 3),
            download_bps=np.full(3, 2e6),
            fixed_down_bits=rng.uniform(0, 1e7, 3),
        )
        assert 0 < lower_bound(p).value_s <= best_of_a_grid(p)


def test_one_device_is_the_closed_form(make_problem):
    """(c0 + c1 / q)(T_oh + q T_1) is least at q = sqrt(c1 T_oh / (c0 T_1))."""
    p = make_problem(
        1,
        0,
        weight=[1.0],
        link=LinearLink(np.array([2.0])),
        rank=1,
        rank_cap=[1],
        rounds=RankCost(5.0, 2.0, 0.0),
        min_cohort=0.0,
    )
    alone_s = float(p.compute_s([1])[0] + p.upload_bits([1])[0] / (2.0 * p.bandwidth_hz))
    q = np.clip(np.sqrt(2.0 * p.overhead_s / (5.0 * alone_s)), 0.01, 1.0)
    least = (5.0 + 2.0 / q) * (p.overhead_s + q * alone_s)
    assert lower_bound(p).value_s == pytest.approx(least, rel=2e-3)
    assert lower_bound(p).value_s <= least


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("devices", [5, 30])
def test_scaling_all_times_scales_the_bound(make_problem, devices, power_limited):
    p = make_problem(devices, 6, power_limited)
    link = p.link
    if power_limited:
        link = type(link)(link.snr_bandwidth_hz / 4)
    slow = make_problem(
        devices,
        6,
        power_limited,
        compute_base_s=4 * p.compute_base_s,
        compute_per_rank_s=4 * p.compute_per_rank_s,
        bandwidth_hz=p.bandwidth_hz / 4,
        overhead_s=4 * p.overhead_s,
        link=link,
    )
    assert lower_bound(slow).value_s == pytest.approx(4 * lower_bound(p).value_s, rel=1e-5)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    devices=st.integers(1, 8),
    power_limited=st.booleans(),
    rule=st.sampled_from(sorted(RULES)),
)
def test_chains_never_exceed_any_rule(make_problem, seed, devices, power_limited, rule):
    """Cohort by cohort, and therefore in the mean: e_N <= E[T]."""
    p = make_problem(devices, seed, power_limited, allocation=rule)
    ranks = np.arange(1, p.rank_cap.max() + 1)
    rng = np.random.default_rng(seed)
    rank, q = rng.integers(1, p.rank_cap + 1), rng.uniform(0.05, 1.0, devices)
    present = all_cohorts(devices)
    time_s = cohort_time(p, rank, present)
    for chain in (transfer_chain(p, ranks), solo_chain(p, ranks)):
        ends_s = [chain.expected_s(rank - 1, one.astype(float)) for one in present]
        assert np.all(np.array(ends_s) <= time_s * (1 + 1e-6))
        assert chain.expected_s(rank - 1, q) <= (cohort_mass(present, q) @ time_s) * (1 + 1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), devices=st.integers(1, 30), power_limited=st.booleans())
def test_cost_is_below_every_plan_and_concave_in_the_price(
    make_problem, seed, devices, power_limited
):
    p = make_problem(devices, seed, power_limited)
    ranks = np.arange(1, p.rank_cap.max() + 1)
    chain, charge = transfer_chain(p, ranks), charge_of(p, ranks)
    top_s = chain.expected_s(p.rank_cap - 1, charge.most)
    price = top_s / charge.lowest * np.geomspace(0.1, 10, 7)
    cost_s = np.array([least_cost(chain, Charge.priced([charge], [s]), top_s, 200) for s in price])
    slope = np.diff(cost_s) / np.diff(price)
    # Rounds at the best plan: fewer the dearer they are, up to what the nodes leave open.
    assert np.all(np.diff(slope) <= 5e-3 * slope[:-1])
    rng = np.random.default_rng(seed)
    for _ in range(20):
        option, part = rng.integers(0, p.rank_cap), rng.uniform(charge.least, charge.most)
        plan_s = price * charge.of(option, part) + chain.expected_s(option, part)
        assert np.all(cost_s <= plan_s)


@settings(max_examples=4)
@given(seed=st.integers(0, 1000), devices=st.integers(20, 40), power_limited=st.booleans())
def test_stages_are_below_every_plan(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited)
    ranks = np.arange(1, p.rank_cap.max() + 1)
    chain, charge = transfer_chain(p, ranks), charge_of(p, ranks)
    top_s = chain.expected_s(p.rank_cap - 1, charge.most)
    price = top_s / charge.lowest
    crowd = Crowd.build(chain, charge, price)
    rng = np.random.default_rng(seed)
    for s in price * np.array([0.1, 0.5, 2.0]):
        exact = least_cost(chain, Charge.priced([charge], [s]), top_s, 400)
        assert crowd.least_cost(s, top_s, 1024) <= exact * (1 + 1e-3)
        for level in (0.0, 0.2, 1.0):
            part = charge.least + level * (charge.most - charge.least)
            option = rng.integers(0, p.rank_cap)
            plan_s = s * charge.of(option, part) + chain.expected_s(option, part)
            assert crowd.least_cost(s, top_s, 1024) <= plan_s


@given(seed=st.integers(0, 10_000), plans=st.integers(1, 20), sums=st.integers(1, 2))
def test_products_follow_from_sums(seed, plans, sums):
    """Against the products themselves, whatever the prices looked at."""
    rng = np.random.default_rng(seed)
    rounds, time_s = 10 ** rng.uniform(-1, 1, (plans, sums)), 10 ** rng.uniform(-1, 1, plans)
    product = rounds.prod(axis=1) * time_s

    def bound(price):
        cost_s = np.min(price @ rounds.T + time_s, axis=1)
        return least_product(price, cost_s, rounds.min(axis=0)).product

    price = np.vstack([np.zeros(sums), 10 ** rng.uniform(-3, 3, (rng.integers(1, 9), sums))])
    least = bound(price)
    assert 0 < least <= product.min() * (1 + 1e-9)
    # Every other price can only help, and that of the best plan is where its product is told.
    best = np.argmin(product)
    assert bound(np.vstack([price, time_s[best] / rounds[best]])) >= least * (1 - 1e-6)


@pytest.mark.parametrize("sums", [1, 2])
def test_product_is_that_of_the_best_plan_in_the_end(sums):
    rng = np.random.default_rng(sums)
    rounds, time_s = 10 ** rng.uniform(-1, 1, (30, sums)), 10 ** rng.uniform(-1, 1, 30)
    price, cost_s = [np.zeros(sums)], [time_s.min()]
    for _ in range(60):
        least = least_product(np.array(price), np.array(cost_s), rounds.min(axis=0))
        price.append(least.price)
        cost_s.append(np.min(rounds @ least.price + time_s))
        if cost_s[-1] <= (sums + 1) * least.time_s * (1 + 1e-9):
            break
    assert least.product == pytest.approx(np.min(rounds.prod(axis=1) * time_s), rel=1e-5)


def parted(problem, share=1.0, around=1.0, cut=None):
    """Bulk of the first devices by solo times, linearised around the round time of all."""
    ranks = np.arange(1, problem.rank_cap.max() + 1)
    chain = solo_chain(problem, ranks)
    everybody = np.ones((1, problem.devices), dtype=bool)
    all_s = float(cohort_time(problem, problem.rank_cap, everybody)[0])
    start_s = starts(problem, ranks)[:, chain.device]
    device = chain.device[:cut]
    bulk = linearised(problem, ranks, device, start_s[:, : len(device)], around * all_s, share)
    return Parted(bulk, chain)


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("rule", ["equal-finish", "work-conserving"])
def test_bulk_that_is_always_there_is_told_exactly(make_problem, power_limited, rule):
    """With links linearised where it finishes; anew divided bands, with starts alike."""
    same = {"compute_base_s": np.full(7, 2.0), "compute_per_rank_s": np.zeros(7)}
    p = make_problem(
        7, 5, power_limited, allocation=rule, **(same if rule != "equal-finish" else {})
    )
    all_s = float(cohort_time(p, p.rank_cap, np.ones((1, 7), dtype=bool))[0])
    assert parted(p).expected_s(p.rank_cap - 1, np.ones(7)) == pytest.approx(all_s, rel=1e-6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    devices=st.integers(1, 7),
    power_limited=st.booleans(),
    rule=st.sampled_from(sorted(RULES)),
    completion=st.sampled_from([1.0, 0.7]),
    apart=st.booleans(),
)
def test_bulk_never_exceeds_any_rule(
    make_problem, seed, devices, power_limited, rule, completion, apart
):
    """Whatever r, tangents and the places where links are linearised."""
    rng = np.random.default_rng(seed)
    changes = {"completion": np.full(devices, completion)}
    if apart:
        changes |= {
            "cell": np.arange(devices) % 2,
            "download_bps": np.full(devices, 2e6),
            "down_bits_per_rank": 1e6,
            "compute_per_rank_s": rng.uniform(0, 2, devices),
        }
    p = make_problem(devices, seed, power_limited, allocation=rule, **changes)
    rank = rng.integers(1, p.rank_cap + 1)
    part = p.takes_part(np.where(rng.random(devices) < 0.3, 1.0, rng.uniform(0.02, 1, devices)))
    present = all_cohorts(devices)
    mean_s = float(cohort_mass(present, part) @ cohort_time(p, rank, present))
    cut = int(rng.integers(1, devices + 1))
    both = parted(p, 10 ** rng.uniform(-1.5, 0), 10 ** rng.uniform(-1, 1), cut)
    assert both.expected_s(rank - 1, part) <= mean_s * (1 + 1e-9)
    bulk, n = both.bulk, np.arange(cut)
    option, own = rank[bulk.device] - 1, part[bulk.device]
    most = np.sum(own * bulk.pull[option, n]) * rng.uniform(1, 1.5)
    scale = bulk.scale(option, own, most) * np.exp(rng.normal())
    line = bulk.line(most, scale, rng.uniform(0, 1, cut))
    begin_s = float(np.sum(line.fixed[option, n] + line.per_part[option, n] * own))
    later_s = both.chain.expected_s(rank - 1, part, cut, max(0.0, begin_s))
    assert max(begin_s, later_s) <= mean_s * (1 + 1e-9)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    power_limited=st.booleans(),
    rule=st.sampled_from(["equal-finish", "work-conserving"]),
)
def test_cost_with_a_bulk_is_below_every_plan(make_problem, seed, power_limited, rule):
    p = make_problem(6, seed, power_limited, allocation=rule)
    rng = np.random.default_rng(seed)
    both, present = parted(p, 0.3, 1.2, int(rng.integers(1, 7))), all_cohorts(6)
    known = rng.integers(0, p.rank_cap), rng.uniform(0.05, 1.0, 6)
    charge = charge_of(p, np.arange(1, p.rank_cap.max() + 1))
    price = both.expected_s(*known) / charge.of(*known) * 10 ** rng.uniform(-1, 1)
    charge = Charge.priced([charge], [price])
    highest_s = both.expected_s(*known) + charge.of(*known) - charge.lowest
    cost_s = both.least_cost(charge, *known, highest_s, 80)
    for _ in range(30):
        option, part = rng.integers(0, p.rank_cap), 10 ** rng.uniform(-2, 0, 6)
        time_s = float(cohort_mass(present, part) @ cohort_time(p, option + 1, present))
        assert cost_s <= charge.of(option, part) + time_s


@pytest.mark.parametrize("power_limited", [False, True])
def test_worse_plans_have_larger_gaps(make_problem, power_limited):
    p = make_problem(10, 3, power_limited)
    joint, uniform = (solve(p, name, bound=True) for name in ("joint", "uniform"))
    assert 0 <= joint.gap <= uniform.gap
    assert uniform.gap >= (uniform.objective_s / joint.objective_s - 1) * (1 - 1e-9)
    assert np.isnan(solve(p, "uniform").gap)


@settings(max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 0.9),
    power_limited=st.booleans(),
    model=st.sampled_from(MODELS),
)
def test_a_binding_noise_is_priced(make_problem, seed, share, power_limited, model):
    """No plan within the limit is below the bound, which is tighter than that without a limit."""
    free = make_problem(
        2, seed, power_limited, rank=3, rank_cap=[3, 2], rounds=model, min_cohort=0.0
    )
    limit = share * solve(free).certificate.noise
    p = replace(free, max_noise=limit)
    plan = solve(p)
    bound_s = lower_bound(p, plan.rank, plan.probability).value_s
    assert bound_s <= min(best_of_a_grid(p), plan.objective_s) * (1 + 1e-9)
    if plan.objective_s > 1.5 * solve(free).objective_s:
        assert bound_s > lower_bound(free, plan.rank, plan.probability).value_s


def test_a_binding_cohort_is_priced(make_problem):
    """Somebody has to take part although nobody is worth it: close to the best, not far below."""
    fields = {"allocation": "work-conserving", "rounds": SamplingTerm(14.0, 1e-3), "rank": 2}
    p = make_problem(3, 2, rank_cap=[2, 2, 2], min_cohort=2.0, **fields)
    free = make_problem(3, 2, rank_cap=[2, 2, 2], min_cohort=0.0, **fields)
    least, best = lower_bound(p).value_s, best_of_a_grid(p)
    assert lower_bound(free).value_s < 0.8 * least
    assert 0.85 * best <= least <= best


@pytest.mark.parametrize(
    ("rule", "model"), [("work-conserving", MODELS[0]), ("equal-finish", MODELS[3])]
)
def test_best_plans_are_met_closely(make_problem, rule, model):
    """One upload after the other, a band divided once, and rounds that are a product."""
    gaps = []
    for seed in range(3):
        p = make_problem(70, seed, allocation=rule, rounds=model)
        plan = solve(p, bound=True)
        slack = plan.certificate.half_width_s / plan.expected_round_s
        assert plan.gap >= -2 * slack
        gaps.append(plan.gap)
    assert np.median(gaps) <= 0.05


def test_no_bound_without_a_minorant(make_problem):
    class Unknown(Progress):
        def minorant(self, *_):
            return None

    found = lower_bound(make_problem(3, 0, rounds=Unknown(14.0, 3.0, 0.8)))
    assert np.isnan(found.value_s)
    assert "progress" in found.note


def test_bound_is_reached_from_above_by_more_draws(make_problem):
    """The mean of the chain at a plan, times its rounds, lies between bound and objective."""
    p = make_problem(8, 4, allocation="work-conserving")
    plan = solve(p, bound=True)
    ranks = np.arange(1, p.rank_cap.max() + 1)
    chain = transfer_chain(p, ranks)
    mean_s = p.overhead_s + chain.expected_s(plan.rank - 1, p.takes_part(plan.probability))
    exact_s = expected_round_time(p, plan.rank, plan.probability).mean_s
    assert plan.certificate.bound_s <= plan.rounds * mean_s <= plan.rounds * exact_s * (1 + 1e-9)
