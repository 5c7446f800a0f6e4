"""How far a plan's probabilities are from a stationary point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from optimizer.joint.bounds import most_by_energy
from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import EXACT_DEVICES
from optimizer.times.base import TimeModel
from optimizer.times.quadrature import Quadrature
from optimizer.times.sampled import Sampled

_MEETS = 1e-3
_ROUNDING = 1e-9


def smooth_times(problem: Problem) -> TimeModel:
    """Return round times without sampling noise: all cohorts up to 12 devices, else quadrature.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Returns
    -------
    TimeModel
    """
    if problem.devices <= EXACT_DEVICES:
        return Sampled.build(problem, 0)
    return Quadrature.build(problem)


def kkt_residual(times: TimeModel, rank: ArrayLike, probability: ArrayLike) -> float:
    """Largest imbalance between what a device costs and what it saves, at the plan's ranks.

    With ``x_n = d log E[T] / d log q_n`` and ``y_n = -d log R / d log q_n``, the derivative of the
    log objective along log q_n is ``g_n = x_n - y_n``. A bound of the expected cohort that is met
    adds ``-m q_n`` and a deadline that is met ``d x_n``, with the multipliers m, d >= 0 that fit
    best. At a local minimum g_n is zero between the bounds of q_n, not negative at the lower and
    not positive at the upper one; the residual is the largest part of any g_n that violates this,
    relative to the largest of all x_n and y_n. To first order, a residual of 0.1 asks whoever
    matters most to change q by 5 %.

    Parameters
    ----------
    times : TimeModel
        Round times; the residual can be no more exact than these.
    rank : array_like, shape (N,)
        Ranks k_n.
    probability : array_like, shape (N,)
        Sampling probabilities q_n > 0.

    Returns
    -------
    float
        In [0, 1]; zero at a local minimum over q.

    Notes
    -----
    Source: own derivation.
    """
    p = times.problem
    k, q = np.asarray(rank, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    toggles, ratio = times.toggles(k, q, k[None]), k / p.rank
    along = p.rounds.along(p.weight, p.variance, ratio, q, ratio[None])
    costs = q * toggles.added_s[0] / toggles.mean_s
    saves = along.per_probability[0] / q / p.rounds_of(k, q)
    gradient, scale = costs - saves, float(max(costs.max(), saves.max(), 0.0))
    if scale == 0.0:
        return 0.0
    most = np.minimum(most_by_energy(p, toggles, k[None])[0], 1.0)
    low = q <= p.min_probability * (1 + _ROUNDING)
    high = q >= most * (1 - _ROUNDING)
    prices = []
    if q.sum() <= p.min_cohort * (1 + _MEETS):
        prices.append(-q)
    if toggles.mean_s >= p.deadline_s * (1 - _MEETS):
        prices.append(costs)
    gradient = gradient + _fitted(prices, gradient, ~low & ~high)
    excess = np.abs(gradient)
    excess[low] = np.maximum(-gradient[low], 0.0)
    excess[high] = np.maximum(gradient[high], 0.0)
    excess[low & high] = 0.0
    return min(float(excess.max()) / scale, 1.0)


def _fitted(prices: list[FloatArray], gradient: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
    """Sum of prices (N,), times multipliers >= 0 that balance the gradient of free devices."""
    if not prices or not free.any():
        return np.zeros_like(gradient)
    table = np.stack(prices, axis=1)
    multiplier, _ = nnls(table[free], -gradient[free])
    return np.asarray(table @ multiplier)
