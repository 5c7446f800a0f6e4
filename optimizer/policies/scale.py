"""How much to sample when the proportions are given."""

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import TimeModel
from optimizer.times.quadrature import Quadrature
from optimizer.times.sampled import Sampled

#: Points of the grid and steps of the line search, and fewer for large fleets: there a round time
#: takes a second.
_SEARCH, _SHORT = (13, 10), (9, 6)

#: Largest fleet whose scales are compared on common draws of cohorts.
_SAMPLED = 2000


def search_times(problem: Problem, seed: int) -> TimeModel:
    """Return the estimate of the round time on which scales are compared: draws for small fleets.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of its draws, if it has any.

    Returns
    -------
    TimeModel
    """
    if problem.devices <= _SAMPLED:
        return Sampled.build(problem, seed)
    return Quadrature.build(problem)


def with_cohort(problem: Problem, shape: FloatArray, cohort: float) -> FloatArray:
    """Scale probabilities to an expected cohort.

    Parameters
    ----------
    problem : Problem
        The fleet.
    shape : ndarray, shape (N,)
        Proportions, >= 0.
    cohort : float
        Wanted sum of the probabilities.

    Returns
    -------
    ndarray, shape (N,)
        ``clip(c shape, q_min, 1)`` with the c >= 0 that gives the cohort, or the nearest that the
        bounds allow; a device of proportion zero keeps its q_min.
    """

    def scaled(factor: float) -> FloatArray:
        return np.clip(factor * shape, problem.min_probability, 1.0)

    some = shape[shape > 0]
    if not len(some):
        return scaled(1.0)
    # Below the lower factor everybody has his q_min, above the upper everybody takes part.
    low = float(np.min(problem.min_probability[shape > 0] / some))
    high = float(1.0 / some.min())
    if cohort <= scaled(low).sum():
        return scaled(low)
    if cohort >= scaled(high).sum():
        return scaled(high)
    log_factor = brentq(
        lambda x: float(scaled(float(np.exp(x))).sum() - cohort), np.log(low) - 1, np.log(high) + 1
    )
    # Between the bounds the sum is linear in the factor, which one step then finds exactly.
    factor = float(np.exp(log_factor))
    free = (factor * shape > problem.min_probability) & (factor * shape < 1.0)
    if free.any():
        factor = float((cohort - scaled(factor)[~free].sum()) / shape[free].sum())
    return scaled(factor)


def best_scale(
    problem: Problem,
    shape: FloatArray,
    rank: IntArray,
    seed: int,
    times: TimeModel | None = None,
) -> FloatArray:
    """Return the probabilities of given proportions with the least expected time to the target.

    A grid in the logarithm of the expected cohort finds the basin, a line search its bottom.

    Parameters
    ----------
    problem : Problem
        The fleet.
    shape : ndarray, shape (N,)
        Proportions of the probabilities, >= 0.
    rank : ndarray of int, shape (N,)
        Ranks.
    seed : int
        Root seed of the draws on which the scales are compared, all on the same ones.
    times : TimeModel, optional
        Estimate of the round time; by default `search_times`.

    Returns
    -------
    ndarray, shape (N,)
        ``clip(c shape, q_min, 1)``, with an expected cohort of at least `min_cohort` and noise
        within its limit. Devices of proportion zero have q_min unless either asks for them after
        all others.
    """
    estimate = search_times(problem, seed) if times is None else times
    tried: list[tuple[float, float]] = []

    def cost_s(log_cohort: float) -> float:
        q = with_cohort(problem, shape, float(np.exp(log_cohort)))
        tried.append((problem.rounds_of(rank, q) * estimate.mean_s(rank, q), log_cohort))
        return tried[-1][0]

    # The others take part for certain long before such a device leaves its lower bound.
    shape = np.maximum(shape, 1e-9 * shape[shape > 0].min())
    fewest = _calm(problem, shape, rank, with_cohort(problem, shape, problem.min_cohort))
    most = with_cohort(problem, shape, float(problem.devices))
    points, steps = _SEARCH if problem.devices <= _SAMPLED else _SHORT
    grid = np.linspace(np.log(fewest.sum()), np.log(most.sum()), points)
    values = [cost_s(float(x)) for x in grid]
    best = int(np.argmin(values))
    around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, points - 1)])
    if around[0] < around[1]:
        minimize_scalar(cost_s, bounds=around, method="bounded", options={"maxiter": steps})
    q = with_cohort(problem, shape, float(np.exp(min(tried)[1])))
    # The logarithm of the least cohort is rounded; the bound is not.
    return np.maximum(q, fewest)


def _calm(problem: Problem, shape: FloatArray, rank: IntArray, fewest: FloatArray) -> FloatArray:
    """Return the smallest scale from `fewest` on with noise within its limit, else the largest."""
    limit = problem.noise_limit
    if limit == np.inf or problem.noise(rank, fewest) <= limit:
        return fewest
    everybody = with_cohort(problem, shape, float(problem.devices))
    if problem.noise(rank, everybody) >= limit:
        return everybody

    def excess(log_cohort: float) -> float:
        q = with_cohort(problem, shape, float(np.exp(log_cohort)))
        return float(np.log(problem.noise(rank, q) / limit))

    least = brentq(excess, np.log(fewest.sum()), np.log(everybody.sum()), xtol=1e-12)
    return with_cohort(problem, shape, float(np.exp(least)) * (1 + 1e-11))
