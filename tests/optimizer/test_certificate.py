"""What a plan's certificate says of it."""

import numpy as np
import pytest
from scipy.optimize import minimize

from optimizer import solve
from optimizer.certificate import kkt_residual, smooth_times
from optimizer.policies import BIASED


def polished(problem, rank, start):
    """Probabilities that minimise R * E[T] at given ranks, by a general solver."""
    times = smooth_times(problem)

    def value(log_q):
        q = np.exp(log_q)
        return float(np.log(problem.rounds_of(rank, q) * times.mean_s(rank, q)))

    found = minimize(
        value,
        np.log(start),
        method="SLSQP",
        bounds=[(np.log(low), 0.0) for low in problem.min_probability],
        constraints=[{"type": "ineq", "fun": lambda x: np.exp(x).sum() - problem.min_cohort}],
        options={"ftol": 1e-14, "maxiter": 300},
    )
    return np.clip(np.exp(found.x), problem.min_probability, 1.0)


@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("min_cohort", [0.0, 3.0])
def test_residual_vanishes_at_the_best_probabilities_only(make_problem, power_limited, min_cohort):
    p = make_problem(6, 2, power_limited, min_cohort=min_cohort, allocation="work-conserving")
    times, rank = smooth_times(p), p.rank_cap
    q = polished(p, rank, np.full(6, 0.5))
    assert kkt_residual(times, rank, q) < 2e-3
    free = (q > p.min_probability * 1.01) & (q < 0.5)
    moved = np.where(free, 1.3 * q, q)
    assert free.any()
    assert kkt_residual(times, rank, moved) > 0.03


def test_residual_minds_the_bounds(make_problem):
    """At a bound only the derivative that points inside counts."""
    p = make_problem(4, 1, min_cohort=0.0)
    times, rank = smooth_times(p), p.rank_cap
    dear = make_problem(4, 1, min_cohort=0.0, overhead_s=1e6)
    assert kkt_residual(smooth_times(dear), rank, np.ones(4)) == 0.0
    assert kkt_residual(smooth_times(dear), rank, np.full(4, 0.01)) > 0.5
    assert kkt_residual(times, rank, np.full(4, 0.5)) <= 1.0


def test_residual_does_not_depend_on_units(make_problem):
    p = make_problem(5, 3)
    slow = make_problem(
        5,
        3,
        compute_base_s=60 * p.compute_base_s,
        compute_per_rank_s=60 * p.compute_per_rank_s,
        bandwidth_hz=p.bandwidth_hz / 60,
        overhead_s=60 * p.overhead_s,
    )
    q = np.array([0.1, 0.9, 0.4, 0.2, 1.0])
    one, other = (kkt_residual(smooth_times(each), p.rank_cap, q) for each in (p, slow))
    assert one == pytest.approx(other, rel=1e-6)
    assert one > 0.05


@pytest.mark.parametrize("devices", [6, 40])
def test_joint_plans_are_nearly_stationary(make_problem, devices):
    p = make_problem(devices, 5, allocation="work-conserving")
    joint, uniform = solve(p), solve(p, "uniform", bound=True)
    assert joint.certificate.kkt_residual < 0.1
    assert uniform.certificate.kkt_residual > joint.certificate.kkt_residual


def test_bound_is_only_there_when_asked_for(make_problem):
    p = make_problem(4, 0)
    plan, bounded = solve(p), solve(p, bound=True)
    assert np.isnan(plan.certificate.bound_s)
    assert np.isnan(plan.gap)
    assert plan.certificate.bound_note == "not asked for"
    gap = bounded.objective_s / bounded.certificate.bound_s - 1
    assert bounded.gap == gap >= 0
    np.testing.assert_array_equal(bounded.probability, plan.probability)


@pytest.mark.parametrize("policy", sorted(BIASED))
def test_biased_policies_have_a_time_but_no_rounds(make_problem, policy):
    p = make_problem(8, 0, completion=np.full(8, 0.8))
    plan = solve(p, policy, bound=True)
    assert plan.expected_round_s > p.overhead_s
    for value in (plan.rounds, plan.objective_s, plan.gap, plan.certificate.kkt_residual):
        assert np.isnan(value)
    assert "biased" in plan.certificate.bound_note
    assert 0 < plan.certificate.expected_cohort <= 8
    assert solve(p, policy).expected_round_s == plan.expected_round_s
