"""Completion, cells, downloads and allocation rules in the expected round time and the plan."""

import numpy as np
import pytest

from optimizer import Plan, draw_cohort, solve
from optimizer.plan import Certificate
from optimizer.roundtime import (
    all_cohorts,
    cohort_mass,
    cohort_time,
    expected_round_time,
)
from optimizer.times.surrogate import Surrogate
from wireless.link import LinearLink
from wireless.spectrum import RULES, equal_finish_time

N = 6
RANK = np.full(N, 2)


def test_a_device_that_completes_half_the_time_is_one_sampled_half_as_often(make_problem):
    """In time, rounds and the surrogate: only c q counts, and A_n / q_n becomes A_n / (c_n q_n)."""
    share = np.array([1.0, 0.5, 0.5, 0.25, 1.0, 0.8])
    whole, partly = make_problem(N, 3), make_problem(N, 3, completion=share)
    q = np.full(N, 0.4)
    assert expected_round_time(partly, RANK, q).mean_s == pytest.approx(
        expected_round_time(whole, RANK, share * q).mean_s, rel=1e-12
    )
    assert partly.rounds_of(RANK, q) == pytest.approx(whole.rounds_of(RANK, share * q), rel=1e-12)
    ours, theirs = (
        Surrogate(p).toggles(RANK, x, RANK[None]) for p, x in ((partly, q), (whole, share * q))
    )
    assert ours.mean_s == pytest.approx(theirs.mean_s, rel=1e-12)
    np.testing.assert_allclose(ours.added_s, share * theirs.added_s, rtol=1e-12)


def test_weights_stay_unbiased_under_completion(make_problem):
    """The mean over cohorts and completions of the aggregation weights is the data weights."""
    share = np.array([1.0, 0.5, 0.3, 0.7, 1.0, 0.9])
    p = make_problem(N, 1, completion=share)
    q = np.full(N, 0.5)
    plan = Plan("x", RANK, q, 0.0, 0.0, 0.0, Certificate(0.0, 0, 0.0, 0.0))
    rng, total, rounds = np.random.default_rng(0), np.zeros(N), 20_000
    for number in range(rounds):
        cohort = draw_cohort(plan, p.unbiased_weight, 0, number)
        done = cohort.only(rng.uniform(size=len(cohort.device)) < share[cohort.device])
        total[done.device] += done.weight
    error = p.weight * np.sqrt((1 / (share * q) - 1) / rounds)
    assert (np.abs(total / rounds - p.weight) < 4.5 * error).all()


@pytest.mark.parametrize("allocation", RULES)
def test_expected_time_is_that_of_the_rule(make_problem, allocation):
    p = make_problem(N, 2, power_limited=True, allocation=allocation)
    q = np.full(N, 0.6)
    present = all_cohorts(N)
    rule, compute_s, bits = RULES[allocation], p.compute_s(RANK), p.upload_bits(RANK)
    mean_s = 0.0
    for mass, members in zip(cohort_mass(present, q), present, strict=True):
        if members.any():
            some = np.flatnonzero(members)
            end_s = rule.transfers(
                compute_s[some], bits[some], p.link.take(some), p.bandwidth_hz
            ).end_s
            mean_s += mass * end_s
    assert expected_round_time(p, RANK, q).mean_s == pytest.approx(p.overhead_s + mean_s, rel=1e-9)


def test_cells_end_with_the_last_one(make_problem):
    cell = np.array([0, 0, 3, 3, 3, 7])
    p = make_problem(N, 4, cell=cell)
    present = np.ones((1, N), dtype=bool)
    wanted = max(
        float(
            equal_finish_time(
                p.compute_s(RANK)[cell == c],
                p.upload_bits(RANK)[cell == c],
                p.link.take(cell == c),
                p.bandwidth_hz,
            )
        )
        for c in (0, 3, 7)
    )
    assert cohort_time(p, RANK, present)[0] == pytest.approx(wanted, rel=1e-12)
    assert p.cells == 3


def test_downloads_in_turn_delay_those_behind(make_problem):
    """Ready after all downloads up to one's own, in the order of the devices."""
    p = make_problem(
        N,
        5,
        link=LinearLink(np.full(N, 1e9)),
        download_bps=np.full(N, 100.0),
        fixed_down_bits=50.0,
        down_bits_per_rank=75.0,
    )
    np.testing.assert_allclose(p.download_s(RANK), 2.0)
    present = np.array([[True, False, True, False, False, True]])
    ready_s = p.ready_s(RANK, present)[0]
    compute_s = p.compute_s(RANK)
    np.testing.assert_allclose(ready_s[[0, 2, 5]], compute_s[[0, 2, 5]] + [2.0, 4.0, 6.0])
    # With an instant uplink a round is the latest of them, and the surrogate an upper bound.
    assert cohort_time(p, RANK, present)[0] == pytest.approx(ready_s[[0, 2, 5]].max(), rel=1e-6)
    q = np.full(N, 0.5)
    exact = expected_round_time(p, RANK, q).mean_s
    bound = Surrogate(p).mean_s(RANK, q)
    assert exact <= bound <= exact + 2.0 * N


@pytest.mark.parametrize(
    "changes",
    [
        {"completion": np.linspace(0.2, 1.0, 30)},
        {"cell": np.arange(30) % 7},
        {"download_bps": np.full(30, 1e6), "down_bits_per_rank": 1e6},
        *({"allocation": name} for name in RULES),
    ],
    ids=lambda changes: ",".join(map(str, changes.values()))[:20],
)
def test_joint_is_no_worse_than_full_and_uniform(make_problem, changes):
    """Judged by the rule in force, beyond the interval of its own estimate."""
    p = make_problem(30, 7, True, **changes)
    joint, uniform, full = (solve(p, name, 0) for name in ("joint", "uniform", "full"))
    slack = joint.rounds * joint.certificate.half_width_s
    assert joint.objective_s <= min(uniform.objective_s, full.objective_s) + slack


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("completion", np.zeros(N)),
        ("completion", np.full(N, 1.5)),
        ("completion", np.ones(N - 1)),
        ("cell", np.zeros(N - 1)),
        ("download_bps", np.zeros(N)),
        ("down_bits_per_rank", -1.0),
        ("allocation", "lottery"),
    ],
)
def test_meaningless_conditions_are_named(make_problem, name, value):
    with pytest.raises(ValueError, match=name):
        make_problem(N, 0, **{name: value})
