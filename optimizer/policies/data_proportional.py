"""Probabilities in proportion to the data."""

from optimizer.policies.scale import best_scale
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def data_proportional(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:
    """Sample devices in proportion to their data weights, at the rank caps.

    ``q_n = clip(c a_n, q_min, 1)``; c minimises the expected time to the target.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws that the search of c uses.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        Sampling probabilities.

    Notes
    -----
    Sampling by data is the scheme of arXiv 1812.06127, there K draws with
    replacement; here devices are drawn independently, so that the scale is free.
    """
    rank = problem.rank_cap
    return rank, best_scale(problem, problem.weight, rank, seed)
