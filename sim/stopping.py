"""When a run ends, and when it reached its target."""

from __future__ import annotations

from dataclasses import dataclass

from fslora.evaluate import Evaluation
from fslora.tasks import METRIC
from sim.scenario import Scenario, Target


@dataclass(frozen=True, slots=True)
class Reached:
    """When the target was met.

    Parameters
    ----------
    round
        Round of the evaluation that met it.
    time_s
        Simulated time of that evaluation.
    interpolated_s
        Where the line between it and the evaluation before crosses the target.
    """

    round: int
    time_s: float
    interpolated_s: float


class TargetWatch:
    """Follows the evaluations and remembers the first that meets the target."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._last: tuple[float, float] | None = None
        self.reached: Reached | None = None

    def see(self, round_index: int, time_s: float, evaluation: Evaluation) -> None:
        """Take in one evaluation."""
        target = self._scenario.stop.target
        if target is None or self.reached is not None:
            return
        value = evaluation.loss if target.metric == "eval_loss" else evaluation.metric
        if meets(target, value, self._scenario):
            crossing = interpolate(self._last, (time_s, value), target.value)
            self.reached = Reached(round_index, time_s, crossing)
        self._last = (time_s, value)


def more_is_better(metric: str, scenario: Scenario) -> bool:
    """Whether a metric is to rise."""
    name, rises = METRIC[scenario.data.task]
    return metric == name and rises


def meets(target: Target, value: float, scenario: Scenario) -> bool:
    """Whether a measured value is at the target or beyond."""
    if more_is_better(target.metric, scenario):
        return value >= target.value
    return value <= target.value


def interpolate(
    before: tuple[float, float] | None, after: tuple[float, float], level: float
) -> float:
    """Time at which the line through two (time, value) points passes `level`."""
    if before is None:
        return after[0]
    (t0, v0), (t1, v1) = before, after
    return t0 + (t1 - t0) * (level - v0) / (v1 - v0)
