"""When a run reached its target."""

from __future__ import annotations

from dataclasses import dataclass

from fslora.tasks import METRICS, Task
from sim.sections.course import Target


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
    """Follows the evaluations and remembers the first that meets the target, if there is one."""

    def __init__(self, target: Target | None, task: Task) -> None:
        self._target = target
        self._task = task
        self._last: tuple[float, float] | None = None
        self.reached: Reached | None = None

    def see(self, round_index: int, time_s: float, loss: float, metric: float) -> None:
        """Take in one evaluation."""
        target = self._target
        if target is None or self.reached is not None:
            return
        value = loss if target.metric == "eval_loss" else metric
        if _meets(target, value, self._task):
            crossing = interpolate(self._last, (time_s, value), target.value)
            self.reached = Reached(round_index, time_s, crossing)
        self._last = (time_s, value)


def _meets(target: Target, value: float, task: Task) -> bool:
    """Whether a measured value is at the target or beyond."""
    # A loss is no metric of any task, and falls.
    rises = METRICS[task].get(target.metric, False)
    return value >= target.value if rises else value <= target.value


def interpolate(
    before: tuple[float, float] | None, after: tuple[float, float], level: float
) -> float:
    """Time at which the line through two (time, value) points passes `level`."""
    if before is None:
        return after[0]
    (t0, v0), (t1, v1) = before, after
    return t0 + (t1 - t0) * (level - v0) / (v1 - v0)
