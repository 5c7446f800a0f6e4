"""The same sampling probability for all devices."""

import numpy as np

from optimizer.policies.scale import best_scale
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def uniform(
    problem: Problem, seed: int, rank: int | None = None, probability: float | None = None
) -> tuple[IntArray, FloatArray]:
    """One probability for all, at the rank caps or at a common rank.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws that the search uses.
    rank : int, optional
        Common rank, cut to each device's cap; by default the caps themselves.
    probability : float, optional
        The probability; by default the one that minimises the sampled time to the target.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        N times the same number, or the least that a device is allowed where that is more.

    Raises
    ------
    ValueError
        If the rank or the probability breaks a bound of the problem.
    """
    if rank is not None and not problem.min_rank <= rank <= problem.rank:
        raise ValueError(f"rank is {rank}: give {problem.min_rank} to {problem.rank}")
    ranks = problem.rank_cap if rank is None else np.minimum(rank, problem.rank_cap)
    if probability is None:
        return ranks, best_scale(problem, np.ones(problem.devices), ranks, seed)
    lowest = lowest_common_probability(problem)
    if not lowest <= probability <= 1:
        raise ValueError(
            f"probability is {probability}: give {lowest:.6g} (min_probability, min_cohort) to 1"
        )
    return ranks, np.full(problem.devices, probability)


def lowest_common_probability(problem: Problem) -> float:
    """Smallest common probability within the problem's bounds.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Returns
    -------
    float
    """
    return max(float(problem.min_probability.max()), problem.min_cohort / problem.devices)
