"""Devices drawn one at a time, for schedules that send one out whenever another has come back."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from optimizer.plan import Plan
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from wireless.streams import uniform

#: Candidates that are drawn at once, before everybody is asked.
_FEW = (8, 64)


class OneByOne:
    """Draws single devices in proportion to the probabilities of a plan, from those who are free.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        Ranks and sampling probabilities, shapes (N,).
    seed : int
        Root seed of the draws.

    Attributes
    ----------
    weight : ndarray, shape (N,)
        Aggregation weights ``a_n / pi_n``, with ``pi_n = c_n q_n / sum_m c_m q_m`` the share of
        device n among the arrivals if busy devices could be drawn as well (own derivation): the
        mean of K arrivals, so weighted, is that of all devices. As who is busy cannot be drawn, the
        slow come less often than that, the more so the larger a part of the fleet is out.
    """

    def __init__(self, problem: Problem, plan: Plan, seed: int) -> None:
        self._rank, self._seed = plan.rank, seed
        self._probability = plan.probability
        self._sums = np.cumsum(plan.probability)
        arrives = problem.takes_part(plan.probability)
        self.weight: FloatArray = np.divide(
            problem.weight * arrives.sum(), arrives, out=np.zeros(len(arrives)), where=arrives > 0
        )

    def draw(self, number: int, free: Callable[[IntArray], NDArray[np.bool_]]) -> int | None:
        """Return a free device, or None if nobody is.

        Parameters
        ----------
        number : int
            Number of the draw; each has random numbers of its own.
        free : callable
            Tells which of some devices (M,) are free.

        Returns
        -------
        int or None
        """
        begin = 0
        for count in _FEW:
            draws = uniform(self._seed, "one by one", number, np.arange(begin, begin + count))
            device = self._at(draws, self._sums)
            chosen = np.flatnonzero(free(device))
            if len(chosen):
                return int(device[chosen[0]])
            begin += count
        everybody = np.arange(len(self._sums))
        sums = np.cumsum(np.where(free(everybody), self._probability, 0.0))
        if sums[-1] <= 0:
            return None
        return int(self._at(uniform(self._seed, "one by one", number, begin), sums))

    @staticmethod
    def _at(draw: FloatArray, sums: FloatArray) -> IntArray:
        """Devices at which cumulated probabilities pass a share of their sum."""
        # The last step up is the last device that can be drawn, whatever rounding does.
        last = np.searchsorted(sums, sums[-1], side="left")
        return np.asarray(np.minimum(np.searchsorted(sums, draw * sums[-1], side="right"), last))
