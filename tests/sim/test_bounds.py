"""Bounds that a scenario sets: they reach the problem, plans keep them, or are refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.bounds import broken_bound
from sim.planning import make_plan
from sim.scenario import Scenario
from sim.system import build_system

Tiny = Callable[..., Scenario]

#: Devices that are away a quarter of the time.
AWAY = {"fleet.availability": {"name": "markov", "mean_on_s": 30.0, "mean_off_s": 10.0}}


def test_bounds_reach_the_problem(tiny: Tiny) -> None:
    bounds = {"min_participation": 0.3, "deadline_s": 1e3, "energy_limit_j": 1e4}
    system = build_system(tiny({f"policy.{key}": value for key, value in bounds.items()} | AWAY))
    problem = system.problem
    np.testing.assert_allclose(problem.completion, 0.75, rtol=1e-12)
    np.testing.assert_allclose(problem.min_probability, 0.4, rtol=1e-12)
    assert problem.deadline_s == 1e3
    assert (problem.energy_limit_j == 1e4).all()
    assert (problem.compute_power_w == system.fleet.compute_power_w).all()
    # Power class 3 is 23 dBm; the uplink has 92 % of the time or all of it.
    share = system.scenario.radio.uplink_share
    np.testing.assert_allclose(problem.transmit_power_w, share * 10**-0.7, rtol=1e-12)


@pytest.mark.parametrize("policy", ["joint", "uniform", "tsfa", "rank-by-capability"])
def test_plans_keep_the_limit_of_the_noise(tiny: Tiny, policy: str) -> None:
    changes = {"policy.name": policy, "policy.min_cohort": 0.1}
    free = make_plan(build_system(tiny({**changes, "policy.max_noise": None})))
    limit = 0.6 * free.certificate.noise
    system = build_system(tiny({**changes, "policy.max_noise": limit}))
    assert system.problem.max_noise == limit
    plan = make_plan(system)
    assert plan.certificate.noise <= system.problem.noise_limit * (1 + 1e-9)
    assert plan.objective_s >= free.objective_s * (1 - 1e-9)


def test_joint_plans_complete_as_often_as_wanted(tiny: Tiny) -> None:
    system = build_system(tiny({"policy.min_participation": 0.3} | AWAY))
    plan = make_plan(system)
    assert (system.problem.takes_part(plan.probability) >= 0.3 * (1 - 1e-9)).all()


def test_joint_plans_keep_a_deadline_that_binds(tiny: Tiny) -> None:
    # A limit of the noise would leave these four devices no shorter rounds.
    rare = {"policy.min_cohort": 0.1, "policy.max_noise": None}
    free = make_plan(build_system(tiny(rare)))
    deadline_s = 0.8 * free.expected_round_s
    bound = make_plan(build_system(tiny({"policy.deadline_s": deadline_s, **rare})))
    assert bound.expected_round_s <= deadline_s * 1.001 < free.expected_round_s
    assert bound.objective_s >= free.objective_s * (1 - 1e-9)


def test_joint_plans_keep_a_limit_of_energy_that_binds(tiny: Tiny) -> None:
    system = build_system(tiny())
    spent_j = system.problem.compute_power_w * system.problem.compute_s(system.problem.rank_cap)
    limit_j = 0.2 * float(spent_j.max())
    changes = {"policy.energy_limit_j": limit_j, "policy.min_cohort": 0.1}
    tight = build_system(tiny(changes))
    plan = make_plan(tight)
    compute_s = tight.problem.compute_s(plan.rank)
    assert (4.0 * compute_s * plan.probability <= limit_j * (1 + 1e-9)).all()
    assert broken_bound(tight.scenario.policy, tight.problem, plan) == ""


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"name": "full", "deadline_s": 1.0}, "policy.deadline_s = 1: rounds of policy full"),
        (
            {"name": "full", "energy_limit_j": 0.1},
            "policy.energy_limit_j = 0.1: device ",
        ),
        (
            {"name": "fedcs", "min_participation": 0.5},
            "policy.min_participation = 0.5: device ",
        ),
    ],
)
def test_policy_that_takes_no_notice_is_refused(
    policy: dict[str, Any],
    words: str,
    scenario_file: Callable[..., Any],
    command: Callable[..., Any],
    tmp_path: Any,
) -> None:
    answer = command("run", scenario_file({"policy": policy}), "--out", tmp_path / "out")
    assert answer.code == 2
    assert words in answer.err
    assert "let policy joint plan" in answer.err
    assert not (tmp_path / "out").exists()
