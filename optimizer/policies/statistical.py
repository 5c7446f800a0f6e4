"""Probabilities of the least sampling noise, blind to time."""

from optimizer.policies.scale import best_scale
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def statistical(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:
    """Sample devices in proportion to weight times gradient norm, at the rank caps.

    ``q_n = clip(c a_n G_n, q_min, 1)`` has, up to the bounds, the least ``sum_n a_n^2 G_n^2 / q_n``
    of all plans with the same expected cohort; c minimises the expected time to the target.

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
    Source: optimal client sampling, arXiv 2010.13723, from norms that are known beforehand instead
    of the round's own. Ranks and completions, which change the noise by r/k and 1/c, are left out
    as there.
    """
    rank = problem.rank_cap
    return rank, best_scale(problem, problem.weight * problem.gradient_norm, rank, seed)
