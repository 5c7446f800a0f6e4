"""Cohorts of devices that were useful and quick so far, with some exploration."""

import numpy as np

from optimizer.cohort import Cohort
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.policies.scheduled import fewest
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from wireless.streams import uniform

#: Factor by which exploration falls from round to round, and the share it never falls below.
_DECAY, _LEAST = 0.98, 0.2
#: Devices within this share of the last one to be exploited are drawn among.
_CUTOFF = 0.95
#: Utilities above this quantile count as that quantile, so that outliers do not rule.
_CLIP = 0.95
#: Weight of staleness under the root.
_STALE = 0.1
#: Rounds after which the pacer compares utilities, and what it then adds to the preferred time.
_WINDOW, _PACE = 20, 0.1


def oort(
    problem: Problem,
    seed: int,  # noqa: ARG001
    cohort: int | None = None,
    penalty: float = 2.0,
    exploration: float = 0.9,
) -> tuple[IntArray, FloatArray]:
    """Cohorts of a fixed size, chosen by utility from what the rounds so far have shown.

    The plan holds the rank caps and the share K/N of the rounds that a device is in if all are
    alike; whom a round takes is up to `Oort`.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: the plan draws nothing.
    cohort : int, optional
        Devices K per round; by default a tenth of the fleet, at least `min_cohort`.
    penalty : float
        Exponent alpha of the penalty on slow devices, >= 0.
    exploration : float
        Share of the first cohort that is explored, in [0, 1].

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        K/N.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: after arXiv 2010.06081; see `Oort` for the formulas and for what is changed.
    """
    size = _size(problem, cohort, penalty, exploration)
    return problem.rank_cap, np.full(problem.devices, size / problem.devices)


class Oort:
    """Sampler of `oort`.

    The utility of a device that has trained before is its statistical utility ``a_n l_n``, l_n the
    mean loss it reported, clipped at the 95 % quantile and divided by the largest, plus
    ``sqrt(0.1 ln t / t_n)`` with t the number of this round and t_n that of its last one, times
    ``(T / d_n)^alpha`` where its last round took d_n seconds, more than the preferred T. Of the
    K places, a share ``max(0.2, exploration * 0.98^(t-1))`` goes to devices that have not trained,
    drawn in proportion to their speed; the others to those within 95 % of the utility of the last
    that fits, drawn in proportion to it. T starts as the median time that devices would take alone
    and grows by a tenth of it whenever 20 rounds had less statistical utility than the 20 before.

    Updates are averaged by the data of the cohort, ``v_n = a_n / sum_m a_m``. That is biased: the
    mean leans to devices of high loss and high speed.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        Ranks.
    seed : int
        Root seed; draws depend on it, on the round and on what was learnt.
    cohort, penalty, exploration
        See `oort`.

    Attributes
    ----------
    preferred_s : float
        T (s).

    Notes
    -----
    Source: after arXiv 2010.06081. There the utility is ``|B_n| sqrt(mean of squared losses)`` over
    the samples; devices here report the mean loss alone, which bounds it from below. Cohorts are
    not drawn larger than K to make up for stragglers, and nobody is excluded for having been chosen
    often. Scale of the utility, start and step of T are our choice.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        seed: int,
        cohort: int | None = None,
        penalty: float = 2.0,
        exploration: float = 0.9,
    ) -> None:
        self._problem, self._plan, self._seed = problem, plan, seed
        self._size = _size(problem, cohort, penalty, exploration)
        self._penalty, self._exploration = penalty, exploration
        self._alone_s = problem.compute_s(plan.rank) + problem.transfer_s(plan.rank)
        self.preferred_s = problem.overhead_s + float(np.median(self._alone_s))
        self._pace_s = _PACE * self.preferred_s
        self._useful = np.full(problem.devices, np.nan)
        self._busy_s, self._last = np.zeros(problem.devices), np.ones(problem.devices)
        self._sums: list[float] = []

    def draw(self, round_index: int) -> Cohort:
        """Return the cohort of a round: see `optimizer.sampler.Sampler`."""
        known = np.flatnonzero(np.isfinite(self._useful))
        new = np.flatnonzero(np.isnan(self._useful))
        share = max(min(_LEAST, self._exploration), self._exploration * _DECAY**round_index)
        explored = min(int(np.rint(share * self._size)), len(new))
        exploited = min(self._size - explored, len(known))
        explored = self._size - exploited
        chosen = self._draw(new, 1 / self._alone_s[new], explored, round_index)
        if exploited:
            utility = self.utility(round_index)[known]
            last = np.partition(utility, len(utility) - exploited)[len(utility) - exploited]
            good = utility >= _CUTOFF * last
            best = self._draw(known[good], utility[good], exploited, round_index)
            chosen = np.concatenate([chosen, best])
        return Cohort.averaged(chosen, self._plan.rank, self._problem.weight)

    def learn(self, outcome: Outcome) -> None:
        """Take note of losses and times: see `optimizer.sampler.Sampler`."""
        device = outcome.device
        useful = self._problem.weight[device] * np.maximum(outcome.loss, 0.0)
        # A loss that is no number says nothing; the device counts as one that has not trained.
        self._useful[device] = np.where(np.isfinite(useful), useful, np.nan)
        self._busy_s[device] = outcome.busy_s
        self._last[device] = outcome.round + 1
        self._sums.append(float(np.nansum(useful)))
        if len(self._sums) == 2 * _WINDOW:
            if sum(self._sums[_WINDOW:]) < sum(self._sums[:_WINDOW]):
                self.preferred_s += self._pace_s
            del self._sums[:_WINDOW]

    def utility(self, round_index: int) -> FloatArray:
        """Utility of every device in a round, NaN for those that have not trained, shape (N,)."""
        useful = self._useful
        if not np.isfinite(useful).any():
            return useful.copy()
        most = float(np.nanquantile(useful, _CLIP)) or 1.0
        stale = np.sqrt(_STALE * np.log(round_index + 1) / self._last)
        late = np.maximum(self._busy_s / self.preferred_s, 1.0)
        return np.asarray((np.minimum(useful, most) / most + stale) / late**self._penalty)

    def _draw(self, device: IntArray, weight: FloatArray, size: int, round_index: int) -> IntArray:
        """Draw without replacement, each next one in proportion to its weight, shape (size,)."""
        # The arrival order of exponential clocks of these rates is such a draw.
        clock = -np.log(uniform(self._seed, "oort", round_index, device))
        clock /= np.maximum(weight, np.finfo(np.float64).tiny)
        return device[np.argsort(clock, kind="stable")[:size]].astype(np.int64)


def _size(problem: Problem, cohort: int | None, penalty: float, exploration: float) -> int:
    """Check the parameters; devices per round."""
    if not 0 <= penalty < np.inf:
        raise ValueError(f"penalty is {penalty}: give zero or more")
    if not 0 <= exploration <= 1:
        raise ValueError(f"exploration is {exploration}: give a share from 0 to 1")
    least = fewest(problem)
    if cohort is None:
        return max(least, int(np.ceil(problem.devices / 10)))
    if cohort != int(cohort) or not least <= cohort <= problem.devices:
        raise ValueError(
            f"cohort is {cohort}: give a whole number from {least} (min_cohort) to "
            f"{problem.devices}, the devices"
        )
    return int(cohort)
