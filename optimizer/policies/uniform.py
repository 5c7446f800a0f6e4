"""The same sampling probability for all devices."""

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.tabulated import TabulatedRoundTime

_GOLDEN = (np.sqrt(5.0) - 1) / 2


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
        N times the same number.

    Raises
    ------
    ValueError
        If the rank or the probability breaks a bound of the problem.
    """
    if rank is not None and not problem.min_rank <= rank <= problem.rank:
        raise ValueError(f"rank is {rank}: give {problem.min_rank} to {problem.rank}")
    ranks = problem.rank_cap if rank is None else np.minimum(rank, problem.rank_cap)
    if probability is None:
        probability = best_common_probability(TabulatedRoundTime.build(problem, seed), ranks)
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


def best_common_probability(table: TabulatedRoundTime, rank: IntArray) -> float:
    """Common probability with the least sampled time to the target.

    A grid in log q finds the basin, golden section the bottom of it.

    Parameters
    ----------
    table : TabulatedRoundTime
        The fleet's cohort draws.
    rank : ndarray of int, shape (N,)
        Ranks.

    Returns
    -------
    float
    """
    problem = table.problem
    need_hz = table.need_hz(rank)

    def cost(log_q: float) -> tuple[float, float]:
        q = np.full(problem.devices, np.exp(log_q))
        return table.objective_s(need_hz, rank, q), log_q

    grid = np.linspace(np.log(lowest_common_probability(problem)), 0.0, 17)
    tried = [cost(float(x)) for x in grid]
    best = int(np.argmin([value for value, _ in tried]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    for _ in range(10):
        inner = _GOLDEN * (high - low)
        left, right = cost(float(high - inner)), cost(float(low + inner))
        tried += [left, right]
        if left[0] <= right[0]:
            high = right[1]
        else:
            low = left[1]
    return float(max(np.exp(min(tried)[1]), lowest_common_probability(problem)))
