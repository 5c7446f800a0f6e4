"""Who takes part in one round."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.plan import Plan
from wireless.streams import uniform


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """The M devices of one round; M may be zero.

    Parameters
    ----------
    device : ndarray of int, shape (M,)
        Device indices, ascending.
    rank : ndarray of int, shape (M,)
        Ranks at which they train.
    weight : ndarray, shape (M,)
        Aggregation weights v_n. Under independent sampling ``v_n = a_n / (c_n q_n)``, c_n the
        completion, which sum to one only on average.
    """

    device: NDArray[np.int64]
    rank: NDArray[np.int64]
    weight: NDArray[np.float64]

    def only(self, member: NDArray[np.bool_]) -> Self:
        """Return the members that a mask (M,) picks, with the weights they have."""
        return type(self)(self.device[member], self.rank[member], self.weight[member])

    @classmethod
    def averaged(
        cls, device: NDArray[np.int64], rank: NDArray[np.int64], weight: NDArray[np.float64]
    ) -> Self:
        """Return a cohort that is averaged by its data, however it was chosen: a biased mean.

        Parameters
        ----------
        device : ndarray of int, shape (M,)
            Device indices, in any order.
        rank : ndarray of int, shape (N,)
            Ranks of the whole fleet.
        weight : ndarray, shape (N,)
            Data weights a_n of the whole fleet.

        Returns
        -------
        Cohort
            With the weights ``v_n = a_n / sum_m a_m``, m in the cohort.
        """
        member = np.sort(device).astype(np.int64)
        share = weight[member]
        # A cohort of devices without data moves nothing.
        return cls(member, rank[member], share / (share.sum() or 1.0))


def draw_cohort(plan: Plan, weight: ArrayLike, seed: int, round_index: int) -> Cohort:
    """Draw the cohort of a round: device n takes part with probability q_n, independently.

    Parameters
    ----------
    plan : Plan
        Ranks and sampling probabilities, shapes (N,).
    weight : array_like, shape (N,)
        Data weights a_n, over the probabilities of completing.
    seed : int
        Root seed of the run.
    round_index : int
        Number of the round; each has draws of its own.

    Returns
    -------
    Cohort
        Possibly empty: drawing again would change the inclusion probabilities that a_n/q_n needs.

    Notes
    -----
    Source: independent sampling, arXiv 2505.23555.
    """
    index = np.arange(len(plan.probability))
    # The draws lie inside (0, 1), so q = 1 always takes part.
    device = np.flatnonzero(uniform(seed, "cohort", round_index, index) < plan.probability)
    return Cohort(
        device=device.astype(np.int64),
        rank=plan.rank[device],
        weight=np.asarray(weight, dtype=np.float64)[device] / plan.probability[device],
    )
