"""Policies to compare with: what each is known to do on fleets whose answers are known."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optimizer import Progress
from optimizer.policies import BIASED, POLICIES
from optimizer.policies.fedcs import chain_end_s, fedcs
from optimizer.policies.luo import LinearTime, luo, luo_by_slsqp
from optimizer.policies.mean_field import MeanField, mean_field_by_dgp, relaxed_mean_field
from optimizer.policies.rank_by_capability import rank_by_capability
from optimizer.policies.scale import best_scale, search_times, with_cohort
from optimizer.policies.scheduled import round_s
from optimizer.policies.shi import shi
from optimizer.policies.tsfa import tsfa
from optimizer.rounds import RankCost, SamplingTerm, SmoothnessScaled
from optimizer.roundtime import cohort_time
from wireless.link import LinearLink

SAMPLED = sorted(set(POLICIES) - BIASED - {"joint", "full", "uniform"})


def alike(make_problem, devices, **changes):
    """Equal devices."""
    same = {
        "weight": np.full(devices, 1 / devices),
        "gradient_norm": np.ones(devices),
        "compute_base_s": np.full(devices, 5.0),
        "compute_per_rank_s": np.full(devices, 0.01),
        "link": LinearLink(np.full(devices, 2.0)),
        "rank_cap": np.full(devices, 8),
    }
    return make_problem(devices, 0, **(same | changes))


@settings(max_examples=10)
@example(
    seed=0,
    devices=16,
    min_cohort=0.8515625,
    min_probability=0.5,
    sampling=0.0,
    power_limited=False,
)
@given(
    seed=st.integers(0, 1000),
    devices=st.integers(1, 16),
    min_cohort=st.floats(0, 1),
    min_probability=st.floats(1e-3, 1),
    sampling=st.sampled_from([0.0, 1.0, 100.0]),
    power_limited=st.booleans(),
)
@pytest.mark.parametrize("policy", SAMPLED)
def test_bounds_hold(
    make_problem, policy, seed, devices, min_cohort, min_probability, sampling, power_limited
):
    p = make_problem(
        devices,
        seed,
        power_limited,
        min_cohort=min_cohort * devices,
        min_probability=min_probability,
        rounds=Progress(14.0, sampling, 0.8),
        completion=np.random.default_rng(seed).uniform(0.5, 1.0, devices),
        cell=np.arange(devices) % 2,
    )
    rank, q = POLICIES[policy](p, seed)
    assert rank.dtype == np.int64
    assert np.all((rank >= p.min_rank) & (rank <= p.rank_cap))
    assert np.all((q >= p.min_probability) & (q <= 1))
    assert q.sum() >= p.min_cohort * (1 - 1e-9)


@pytest.mark.parametrize("policy", SAMPLED)
def test_equal_devices_get_equal_plans(make_problem, policy):
    rank, q = POLICIES[policy](alike(make_problem, 9), 1)
    assert np.ptp(rank) == 0
    np.testing.assert_allclose(q, q[0], rtol=1e-5)


def test_a_device_twice_as_heavy_is_sampled_twice_as_often(make_problem):
    weight = np.array([2.0, 1, 1, 1, 1]) / 6
    p = alike(make_problem, 5, weight=weight, rounds=Progress(14.0, 10.0, 0.8))
    for policy in ("data-proportional", "statistical"):
        q = POLICIES[policy](p, 1)[1]
        assert q[0] < 1
        assert q[0] == pytest.approx(2 * q[1])


def test_norms_move_the_statistical_policy_alone(make_problem):
    p = alike(make_problem, 5, gradient_norm=[3.0, 1, 1, 1, 1], rounds=Progress(14.0, 1.0, 0.8))
    assert np.ptp(POLICIES["data-proportional"](p, 1)[1]) < 1e-12
    q = POLICIES["statistical"](p, 1)[1]
    assert q[0] == pytest.approx(3 * q[1])


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), devices=st.integers(1, 30), share=st.floats(0, 1))
def test_a_scaled_cohort_is_met_or_as_near_as_can_be(make_problem, seed, devices, share):
    p = make_problem(devices, seed)
    shape = np.random.default_rng(seed).uniform(0, 1, devices) * (np.arange(devices) % 3 > 0)
    q = with_cohort(p, shape, share * devices)
    nobody = p.min_probability.sum()
    everybody = np.where(shape > 0, 1.0, p.min_probability).sum()
    assert q.sum() == pytest.approx(np.clip(share * devices, nobody, everybody))


def test_devices_without_data_come_last(make_problem):
    weight = np.array([0.0, 0.3, 0.7])
    p = make_problem(3, 0, weight=weight, min_cohort=1.2)
    assert POLICIES["data-proportional"](p, 0)[1][0] == p.min_probability[0]
    p = make_problem(3, 0, weight=weight, min_cohort=2.5)
    np.testing.assert_allclose(POLICIES["data-proportional"](p, 0)[1], [0.5, 1, 1])


def test_the_best_scale_beats_every_other_on_its_draws(make_problem):
    for seed in range(4):
        p = make_problem(9, seed, rounds=Progress(14.0, 30.0, 0.4))
        times = search_times(p, 3)

        def objective_s(q, p=p, times=times):
            return p.rounds_of(p.rank_cap, q) * times.mean_s(p.rank_cap, q)

        best_s = objective_s(best_scale(p, p.weight, p.rank_cap, 3))
        for cohort in np.linspace(p.min_cohort, 9, 40):
            other = with_cohort(p, p.weight, cohort)
            assert best_s <= objective_s(other) * (1 + 1e-4)


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("devices", [1, 3, 10, 20])
def test_luo_agrees_with_quadratic_programming(make_problem, devices, power_limited):
    for seed, min_cohort in itertools.product(range(3), (0.0, 0.4)):
        p = make_problem(
            devices,
            seed,
            power_limited,
            min_cohort=min_cohort * devices,
            completion=np.random.default_rng(seed).uniform(0.4, 1.0, devices),
        )
        value_s = LinearTime.of(p).objective_s(luo(p, 0)[1])
        assert value_s == pytest.approx(luo_by_slsqp(p)[1], rel=1e-8)


def test_luo_balances_noise_and_time(make_problem):
    """Within the bounds, B_n / q_n^2 is the price of a second times what a sample takes."""
    p = make_problem(12, 3, min_cohort=0.0, min_probability=1e-3)
    form = LinearTime.of(p)
    q = luo(p, 0)[1]
    inside = (q > 1e-3 * 1.01) & (q < 0.99)
    assert inside.sum() > 3
    price, cohort = form.rounds(q) / form.time_s(q), q.sum()
    mean_s = q @ form.compute_s / cohort
    per_sample_s = (form.compute_s - mean_s) / cohort + form.busy_s
    ratio = form.rounds.per_probability / q**2 / (price * per_sample_s)
    # The cohort is found to about 1e-6, and the balance with it.
    np.testing.assert_allclose(ratio[inside], 1.0, rtol=1e-4)


def test_luo_keeps_a_given_cohort(make_problem):
    p = make_problem(12, 3)
    assert luo(p, 0, cohort=4.0)[1].sum() == pytest.approx(4.0)
    with pytest.raises(ValueError, match=r"^cohort is 13: give 0\.5 .* to 12"):
        luo(p, 0, cohort=13)


@pytest.mark.parametrize(
    "rounds", [Progress(14.0, 20.0, 0.0), RankCost(10.0, 30.0, 2.0), SmoothnessScaled(10.0, 30.0)]
)
@pytest.mark.parametrize(("devices", "seed"), [(1, 0), (4, 1), (4, 2), (60, 1)])
def test_mean_field_agrees_with_geometric_programming(make_problem, devices, seed, rounds):
    completion = np.random.default_rng(seed).uniform(0.4, 1.0, devices)
    p = make_problem(devices, seed, rounds=rounds, completion=completion)
    low = np.full(devices, float(p.min_rank))
    own = relaxed_mean_field(p, low, p.rank_cap.astype(float))
    program = mean_field_by_dgp(p)
    assert own.objective_s == pytest.approx(program.objective_s, rel=1e-6)
    field = MeanField(p)
    time_s = p.overhead_s + field.time_s(own.rank, own.probability)
    value_s = p.rounds_of(own.rank, own.probability) * time_s
    assert own.objective_s == pytest.approx(value_s)


def test_a_round_model_that_is_no_posynomial_is_refused(make_problem):
    for model in (Progress(14.0, 1.0, 0.5), SamplingTerm(10.0, 1.0)):
        with pytest.raises(ValueError, match=r"^rounds is .*rank-cost"):
            mean_field_by_dgp(make_problem(2, 0, rounds=model))
    with pytest.raises(ValueError, match="LinearLink"):
        mean_field_by_dgp(make_problem(2, 0, True))


@pytest.mark.parametrize("power_limited", [False, True])
def test_mean_field_time_fills_the_band_with_the_mean_cohort(make_problem, power_limited):
    p = make_problem(15, 4, power_limited)
    q = np.random.default_rng(0).uniform(0.05, 1, 15)
    k = p.rank_cap.astype(float)
    left_s = MeanField(p).time_s(k, q) - p.compute_s(k)
    assert np.all(left_s > 0)
    assert q @ p.link.bandwidth(p.upload_bits(k) / left_s) == pytest.approx(p.bandwidth_hz)
    # Equal devices that are always there end as under the rule itself.
    same = alike(make_problem, 5)
    k = same.rank_cap.astype(float)
    ends_s = cohort_time(same, k, np.ones((1, 5), dtype=bool))[0]
    assert MeanField(same).time_s(k, np.ones(5)) == pytest.approx(ends_s)


@pytest.mark.parametrize("power_limited", [False, True])
def test_mean_field_slopes_are_those_of_its_value(make_problem, power_limited):
    p = make_problem(5, 2, power_limited)
    field, low, high = MeanField(p), np.ones(5), p.rank_cap.astype(float)
    z, y = np.log(np.linspace(0.1, 0.9, 5)), np.log(0.6 * high)
    at = field.value(z, y, low, high)
    for n, h in itertools.product(range(5), (1e-5,)):
        step = h * np.eye(5)[n]
        for slope, (dz, dy) in ((at.slope, (step, 0)), (at.rank_slope, (0, step))):
            up = field.value(z + dz, y + dy, low, high).log_s
            down = field.value(z - dz, y - dy, low, high).log_s
            assert slope[n] == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-9)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=7))
def test_the_chain_always_takes_what_ends_soonest(jobs):
    start, busy = np.array(jobs, dtype=float).T
    end = chain_end_s(start, busy)
    now, left = -np.inf, list(range(len(jobs)))
    for n in np.argsort(end, kind="stable"):
        soonest = min(max(now, start[m]) + busy[m] for m in left)
        assert end[n] == max(now, start[n]) + busy[n] == soonest
        now = end[n]
        left.remove(n)


@pytest.mark.parametrize("rule", ["equal-finish", "work-conserving"])
def test_fedcs_takes_the_quick_ones_up_to_its_deadline(make_problem, rule):
    base_s = np.array([1.0, 40, 2, 3, 50, 4])
    p = alike(make_problem, 6, compute_base_s=base_s, min_cohort=0.0, allocation=rule)
    member = np.flatnonzero(fedcs(p, 0)[1])
    np.testing.assert_array_equal(member, [0, 2, 3])
    quick = np.array([0, 2, 3, 5])
    exactly_s = round_s(p, quick)
    np.testing.assert_array_equal(np.flatnonzero(fedcs(p, 0, exactly_s)[1]), quick)
    np.testing.assert_array_equal(np.flatnonzero(fedcs(p, 0, exactly_s * 0.999)[1]), [0, 2, 3])
    assert fedcs(p, 0, 1e6)[1].sum() == 6
    with pytest.raises(ValueError, match=r"^deadline_s is 0\.1: give at least .* quickest 1 "):
        fedcs(p, 0, 0.1)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), devices=st.integers(1, 20), power_limited=st.booleans())
def test_fedcs_meets_its_deadline(make_problem, seed, devices, power_limited):
    p = make_problem(devices, seed, power_limited, cell=np.arange(devices) % 2)
    everybody_s = round_s(p, np.arange(devices))
    rank, q = fedcs(p, 0, everybody_s)
    np.testing.assert_array_equal(rank, p.rank_cap)
    chosen = np.flatnonzero(fedcs(p, 0)[1])
    limit_s = round_s(p, chosen)
    again = np.flatnonzero(fedcs(p, 0, limit_s * (1 + 1e-12))[1])
    assert round_s(p, again) <= limit_s * (1 + 1e-12)
    assert len(again) >= len(chosen) >= max(1, p.min_cohort)
    assert q.sum() == devices


def test_round_of_members_is_that_of_the_cohort(make_problem):
    p = make_problem(
        6, 2, cell=[0, 1, 0, 1, 0, 1], download_bps=np.linspace(1e5, 1e6, 6), fixed_down_bits=1e5
    )
    present = np.array([[1, 0, 1, 1, 0, 1]], dtype=bool)
    expected_s = p.overhead_s + cohort_time(p, p.rank_cap, present)[0]
    assert round_s(p, np.flatnonzero(present[0])) == pytest.approx(expected_s, rel=1e-12)


def test_shi_leaves_out_whom_waiting_for_does_not_pay(make_problem):
    base_s = np.array([1.0, 1.0, 1.0, 1000.0])
    rounds = Progress(14.0, 500.0, 0.0)
    p = alike(make_problem, 4, compute_base_s=base_s, min_cohort=0.0, rounds=rounds)
    np.testing.assert_array_equal(shi(p, 0)[1], [1, 1, 1, 0])
    # Where noise counts for more than time, everybody is worth it.
    noisy = alike(
        make_problem,
        4,
        compute_base_s=[1.0, 1.0, 1.0, 1.2],
        bits_per_rank=1.0,
        rounds=Progress(1.0, 1e4, 0.0),
    )
    np.testing.assert_array_equal(shi(noisy, 0)[1], 1)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), devices=st.integers(1, 7), power_limited=st.booleans())
def test_shi_adds_the_device_of_least_latency(make_problem, seed, devices, power_limited):
    """Its set is among the greedy ones, and the best of them."""
    p = make_problem(devices, seed, power_limited, min_cohort=0.0)
    left, members, best = list(range(devices)), [], (np.inf, None)
    while left:
        times = [round_s(p, np.array([*members, n])) for n in left]
        members.append(left.pop(int(np.argmin(times))))
        share = np.full(devices, min(p.weight[members].sum(), 1.0))
        value_s = p.rounds_of(p.rank_cap, share) * min(times)
        best = min(best, (value_s, sorted(members)), key=lambda entry: entry[0])
    np.testing.assert_array_equal(np.flatnonzero(shi(p, 0)[1]), best[1])


def test_ranks_by_capability_equalise_solo_times(make_problem):
    p = make_problem(30, 5, compute_base_s=np.full(30, 2.0), rank_cap=np.full(30, 8))
    rank, q = rank_by_capability(p, 0, solo_s=40.0)
    assert np.ptp(q) == 0

    def alone_s(k):
        return p.compute_s(k) + p.upload_bits(k) / p.link.rate(np.full(30, p.bandwidth_hz))

    assert np.all((alone_s(rank) <= 40.0) | (rank == p.min_rank))
    assert np.all((alone_s(rank + 1) > 40.0) | (rank == p.rank_cap))
    assert np.all(np.diff(rank[np.argsort(p.link.efficiency_bps_hz)]) >= 0)
    with pytest.raises(ValueError, match=r"^solo_s is 0: give a positive"):
        rank_by_capability(p, 0, solo_s=0)


def test_structural_rank_falls_where_uploads_rule(make_problem):
    cheap = alike(make_problem, 6, bits_per_rank=1.0, rounds=Progress(14.0, 1.0, 0.8))
    dear = alike(make_problem, 6, bits_per_rank=1e9, rounds=Progress(14.0, 1.0, 0.1))
    assert np.all(tsfa(cheap, 0)[0] == 8)
    assert np.all(tsfa(dear, 0)[0] == 1)
    np.testing.assert_array_equal(tsfa(cheap, 0, probability=0.3)[1], 0.3)


@pytest.mark.parametrize(
    ("policy", "parameter", "message"),
    [
        ("oort", {"cohort": 99}, r"^cohort is 99: give a whole number from 1 "),
        ("oort", {"penalty": -1.0}, r"^penalty is -1\.0: give zero or more"),
        ("oort", {"exploration": 2.0}, r"^exploration is 2\.0: give a share"),
        ("tsfa", {"mean_round_s": 0.0}, r"^mean_round_s is 0\.0: give more than overhead_s"),
        ("tsfa", {"tradeoff": -1.0}, r"^tradeoff is -1\.0: give zero or more"),
        ("tsfa", {"probability": 2.0}, r"^probability is 2\.0: give"),
    ],
)
def test_bad_parameters_are_named(make_problem, policy, parameter, message):
    with pytest.raises(ValueError, match=message):
        POLICIES[policy](make_problem(4, 0), 0, **parameter)
