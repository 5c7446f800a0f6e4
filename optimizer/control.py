"""When a plan is to be made anew, and from which constants."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from optimizer.online import Norms, Pace, estimate_norms, estimate_pace, full_rank_norm, rescaled
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.problem import Problem
from optimizer.rounds import FloatArray

Reason = Literal["every", "drift"]

#: Fewest rounds that a drift is told from, and how often it is to be seen where there is none.
_ROUNDS, _LEVEL = 4, 1e-3

_NO_PACE = Pace(1.0, 0.0, math.inf)


@dataclass(frozen=True, slots=True)
class Renewal:
    """When to plan anew.

    Parameters
    ----------
    every : int, optional
        After so many rounds under a plan, >= 1.
    drift : float, optional
        As soon as the mean round time under a plan is further from the predicted one than this
        share of it, > 0, beyond what the sampling of cohorts explains.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    every: int | None = None
    drift: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every}: give 1 round or more, or None")
        if self.drift is not None and not 0 < self.drift < np.inf:
            raise ValueError(f"drift is {self.drift}: give a positive share, or None")


def drifted(plan: Plan, duration_s: FloatArray, share: float) -> bool:
    """Whether rounds last otherwise than planned, by more than a share and beyond chance.

    The excess of ``|mean - predicted|`` over ``share * predicted`` has to exceed the half-width of
    Student's interval at level 0.001, small because the question is put after every round. The
    standard deviation is the larger one of the rounds' own and of the plan's, as far as its
    certificate has one.

    Parameters
    ----------
    plan : Plan
        The plan in force.
    duration_s : ndarray, shape (T,)
        Durations (s) of the rounds under it, without waiting.
    share : float
        Share of the prediction that is let pass.

    Returns
    -------
    bool
        False for fewer than four rounds.
    """
    count = len(duration_s)
    if count < _ROUNDS:
        return False
    known = plan.certificate
    of_mean_s = known.half_width_s / 1.96
    deviation_s = max(float(duration_s.std(ddof=1)), of_mean_s * math.sqrt(known.draws))
    error_s = math.hypot(deviation_s / math.sqrt(count), of_mean_s)
    slack_s = -float(stdtrit(count - 1, _LEVEL / 2)) * error_s
    away_s = abs(float(duration_s.mean()) - plan.expected_round_s)
    return away_s - slack_s > share * plan.expected_round_s


class Controller:
    """Remembers what rounds taught, says when to plan anew, and states the problem then.

    Parameters
    ----------
    problem : Problem
        The fleet as the first plan saw it, with the round model that later ones rescale.
    renewal : Renewal
        When to plan anew.
    learns : bool
        Whether norms and pace are estimated; if not, new plans differ by the channels alone.
    target_loss : float, optional
        Evaluated loss that the run aims at; without it no pace is estimated.
    """

    def __init__(
        self,
        problem: Problem,
        renewal: Renewal,
        learns: bool = False,
        target_loss: float | None = None,
    ) -> None:
        self._first, self._renewal = problem, renewal
        self._learns, self._target = learns, target_loss
        self._plan: Plan | None = None
        self._per_round = math.nan
        self._duration_s: list[float] = []
        self._device: list[int] = []
        self._round: list[int] = []
        self._norm: list[float] = []
        self._done, self._behind = 0.0, list[float]()
        self._loss: list[float] = []

    def adopt(self, plan: Plan, problem: Problem) -> None:
        """Take note of a plan that comes into force, and of the problem that it answers."""
        self._plan, self._duration_s = plan, []
        # Always by the first model: the pace is the factor on it, not on what was made of it.
        model = replace(problem, rounds=self._first.rounds)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._per_round = 1 / model.rounds_of(plan.rank, plan.probability)

    def learn(self, outcome: Outcome) -> None:
        """Take note of a round under the plan in force."""
        self._duration_s.append(outcome.duration_s)
        self._done += self._per_round
        if self._learns and len(outcome.device):
            ratio = outcome.rank / self._first.rank
            self._device += outcome.device.tolist()
            self._round += [outcome.round] * len(outcome.device)
            self._norm += full_rank_norm(outcome.update_norm, ratio).tolist()

    def evaluated(self, loss: float) -> None:
        """Take note of an evaluated loss; the first one is that before training."""
        self._loss.append(loss)
        self._behind.append(self._done)

    @property
    def due(self) -> Reason | None:
        """Why to plan anew now, if there is a reason."""
        rounds, renewal = len(self._duration_s), self._renewal
        if self._plan is None:
            return None
        if renewal.every is not None and rounds >= renewal.every:
            return "every"
        if renewal.drift is not None and drifted(
            self._plan, np.array(self._duration_s), renewal.drift
        ):
            return "drift"
        return None

    def norms(self) -> Norms:
        """Norms of the devices' updates, as far as they are known."""
        return estimate_norms(self._device, self._round, self._norm, self._first.devices)

    def pace(self) -> Pace:
        """Factor on the rounds to the target; 1 where losses cannot tell."""
        if self._target is None or len(self._loss) < 2 or not self._loss[0] > self._target:
            return _NO_PACE
        if not math.isfinite(self._done):
            return _NO_PACE
        return estimate_pace(self._behind[1:], self._loss[1:], self._loss[0], self._target)

    def informed(self, problem: Problem) -> Problem:
        """Return the problem with what is known by now of norms and pace.

        The round model moves as far as the interval of the pace compels, and no further.
        """
        if not self._learns or self._plan is None:
            return problem
        problem = replace(problem, gradient_norm=self.norms().norm, rounds=self._first.rounds)
        pace, plan = self.pace(), self._plan
        if pace.low <= 1.0 <= pace.high:
            return problem
        factor = pace.low if pace.low > 1.0 else pace.high
        model = rescaled(problem, plan.rank, plan.probability, factor)
        return replace(problem, rounds=model)
