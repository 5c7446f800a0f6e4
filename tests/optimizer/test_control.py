"""When plans are made anew: after so many rounds, or when rounds are not what was planned."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optimizer import Certificate, Plan, Problem
from optimizer.control import Controller, Renewal, drifted
from optimizer.outcome import Outcome

MakeProblem = Callable[..., Problem]


def plan_of(expected_s: float, devices: int = 4, half_width_s: float = 0.0) -> Plan:
    """A plan whose rounds are said to last `expected_s`."""
    certificate = Certificate(half_width_s, 4096, 0.0, 2.0)
    rank, q = np.full(devices, 2), np.full(devices, 0.5)
    return Plan("uniform", rank, q, expected_s, 30.0, 30.0 * expected_s, certificate)


def outcome(number: int, duration_s: float, norm: dict[int, float] | None = None) -> Outcome:
    device = np.array(sorted(norm or {}), dtype=np.int64)
    size = np.array([(norm or {})[n] for n in device.tolist()])
    ones = np.ones(len(device))
    return Outcome(number, duration_s, device, np.full(len(device), 2), ones, size, ones)


def fired(rng: np.random.Generator, true_s: float, share: float, rounds: int) -> int | None:
    """Round in which a drift is first told, of rounds that last `true_s` on average, not 10."""
    seconds = true_s * rng.gamma(2.0, 0.5, rounds)
    plan = plan_of(10.0)
    for count in range(1, rounds + 1):
        if drifted(plan, seconds[:count], share):
            return count
    return None


def test_noise_is_no_drift() -> None:
    """Round times of a spread of 70 %, asked after every one of 100 rounds, 200 times over."""
    rng = np.random.default_rng(5)
    told = [fired(rng, 10.0, 0.1, 100) for _ in range(200)]
    assert sum(number is not None for number in told) <= 4


@pytest.mark.parametrize("true_s", [5.0, 20.0])
def test_drift_is_told(true_s: float) -> None:
    rng = np.random.default_rng(6)
    told = [fired(rng, true_s, 0.1, 200) for _ in range(100)]
    assert all(number is not None for number in told)
    assert np.median([number for number in told if number is not None]) < 60


def test_difference_within_the_share_is_let_pass() -> None:
    """Rounds without any spread that last 8 % longer."""
    seconds = np.full(50, 10.8)
    assert not drifted(plan_of(10.0), seconds, 0.1)
    assert drifted(plan_of(10.0), seconds, 0.05)
    assert drifted(plan_of(10.0), np.full(50, 9.2), 0.05)


def test_a_few_rounds_tell_no_drift() -> None:
    assert not drifted(plan_of(10.0), np.full(3, 100.0), 0.1)
    assert drifted(plan_of(10.0), np.full(4, 100.0), 0.1)


def test_spread_that_the_plan_knows_counts() -> None:
    """Four equal rounds say nothing if the plan knows that rounds differ widely."""
    spread_s = 10.0
    plan = plan_of(10.0, half_width_s=1.96 * spread_s / 64)
    assert not drifted(plan, np.full(4, 20.0), 0.1)
    assert drifted(plan, np.full(400, 20.0), 0.1)


def test_every_so_many_rounds(make_problem: MakeProblem) -> None:
    problem = make_problem(4, 0)
    controller = Controller(problem, Renewal(every=3))
    assert controller.due is None
    controller.adopt(plan_of(10.0), problem)
    due = []
    for number in range(1, 8):
        controller.learn(outcome(number, 10.0))
        due.append(controller.due)
        if controller.due:
            controller.adopt(plan_of(10.0), problem)
    assert due == [None, None, "every", None, None, "every", None]


def test_drift_is_measured_from_the_last_plan_on(make_problem: MakeProblem) -> None:
    problem = make_problem(4, 0)
    controller = Controller(problem, Renewal(drift=0.2))
    controller.adopt(plan_of(10.0), problem)
    for number in range(1, 7):
        controller.learn(outcome(number, 30.0 + 0.1 * (number % 2)))
    assert controller.due == "drift"
    controller.adopt(plan_of(30.0), problem)
    for number in range(7, 20):
        controller.learn(outcome(number, 30.0 + 0.1 * (number % 2)))
        assert controller.due is None


def test_norms_reach_the_problem(make_problem: MakeProblem) -> None:
    truth = {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0}
    problem = make_problem(4, 0)
    controller = Controller(problem, Renewal(every=1), learns=True)
    controller.adopt(plan_of(10.0), problem)
    for number in range(1, 200):
        controller.learn(outcome(number, 10.0, truth))
    norm = controller.informed(problem).gradient_norm
    assert norm / norm[0] == pytest.approx(np.array([1.0, 2.0, 4.0, 8.0]), rel=0.02)


def test_statistics_alone_change_nothing(make_problem: MakeProblem) -> None:
    problem = make_problem(4, 0)
    controller = Controller(problem, Renewal(every=1), learns=False, target_loss=1.0)
    controller.adopt(plan_of(10.0), problem)
    controller.evaluated(3.0)
    controller.learn(outcome(1, 10.0, {0: 5.0, 2: 1.0}))
    controller.evaluated(2.0)
    assert controller.informed(problem) is problem


def test_slow_training_raises_the_rounds_and_keeps_their_unit(make_problem: MakeProblem) -> None:
    """The loss falls as slowly as if the target took three times the model's rounds."""
    problem, plan = make_problem(4, 0), plan_of(10.0)
    controller = Controller(problem, Renewal(every=1), learns=True, target_loss=1.0)
    controller.adopt(plan, problem)
    controller.evaluated(3.0)
    wanted = 3 * problem.rounds_of(plan.rank, plan.probability)
    for number in range(1, 41):
        controller.learn(outcome(number, 10.0, dict.fromkeys(range(4), 1.0)))
        controller.evaluated(3.0 - 2.0 * (number / wanted) ** 0.7)
    assert controller.pace().factor == pytest.approx(3.0, rel=0.15)
    informed = controller.informed(problem)
    assert informed.rounds_of(plan.rank, plan.probability) > 2 * problem.rounds_of(
        plan.rank, plan.probability
    )
    assert informed.rounds.sampling == problem.rounds.sampling  # type: ignore[attr-defined]


def test_no_pace_without_a_target_or_below_it(make_problem: MakeProblem) -> None:
    problem = make_problem(4, 0)
    for target in (None, 5.0):
        controller = Controller(problem, Renewal(every=1), learns=True, target_loss=target)
        controller.adopt(plan_of(10.0), problem)
        for loss in (3.0, 2.0, 1.0):
            controller.evaluated(loss)
            controller.learn(outcome(1, 10.0))
        assert controller.pace().factor == 1.0
        assert controller.informed(problem).rounds is problem.rounds


@pytest.mark.parametrize(
    ("values", "words"),
    [({"every": 0}, "every is 0: give 1"), ({"drift": 0.0}, "drift is 0.0: give a positive")],
)
def test_renewal_refuses(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Renewal(**values)
