"""Ranks by what devices can do in the same time."""

import numpy as np

from optimizer.policies.scale import best_scale
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def rank_by_capability(
    problem: Problem, seed: int, solo_s: float | None = None
) -> tuple[IntArray, FloatArray]:
    """Give every device the highest rank with which it ends by a common time, alone in the band.

    Devices too slow for it even at `min_rank` have that one; all share one probability, which
    minimises the expected time to the target.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws that the search of the probability uses.
    solo_s : float, optional
        The common time (s) of download, computation and upload; by default the median over the
        devices of what each takes at its cap.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        N times the same number.

    Raises
    ------
    ValueError
        If the time is not positive.

    Notes
    -----
    Source: ranks by capability, after arXiv 2401.06432, which leaves open how capability is
    measured and prunes ranks on the way; the common time is our own choice.
    """

    def alone_s(rank: IntArray) -> FloatArray:
        return np.asarray(problem.compute_s(rank) + problem.transfer_s(rank))

    cap = problem.rank_cap
    if solo_s is None:
        solo_s = float(np.median(alone_s(cap)))
    if not 0 < solo_s < np.inf:
        raise ValueError(f"solo_s is {solo_s}: give a positive number of seconds")
    low, high = np.full(problem.devices, problem.min_rank), cap.copy()
    # Times grow with the rank, so the highest that fits is found by bisection, all at once.
    while np.any(low < high):
        middle = (low + high + 1) // 2
        fits = alone_s(middle) <= solo_s
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    rank = low.astype(np.int64)
    return rank, best_scale(problem, np.ones(problem.devices), rank, seed)
