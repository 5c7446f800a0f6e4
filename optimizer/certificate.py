"""How far a plan's probabilities are from a stationary point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from optimizer.joint.bounds import most_by_energy
from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import EXACT_DEVICES
from optimizer.times.base import TimeModel
from optimizer.times.quadrature import Quadrature
from optimizer.times.sampled import Sampled

_MEETS = 1e-3
_ROUNDING = 1e-9

#: Devices that decide the multipliers, at most.
_CUTS = 60

#: What the linear programme is solved to, in parts of the largest share in rounds or time.
_SOLVED = 1e-6


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
    log objective along log q_n is ``g_n = x_n - y_n``. Bounds that are met add multiples >= 0 of
    their own derivatives: that of the expected cohort ``-q_n``, that of the noise
    ``-A_n r / (k_n q_n)``, a deadline ``x_n``. At a local minimum g_n is then zero between the
    bounds of q_n, not negative at the lower and not positive at the upper one; the residual is the
    largest part of any g_n that violates this, with the multiples that make it smallest, relative
    to the largest of all x_n and y_n. To first order, a residual of 0.1 asks whoever matters most
    to change q by 5 %.

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
    if p.noise(k, q) >= p.noise_limit * (1 - _MEETS):
        prices.append(-p.noise_shares(k) / q)
    if toggles.mean_s >= p.deadline_s * (1 - _MEETS):
        prices.append(costs)
    return min(_least_excess(gradient / scale, prices, low, high), 1.0)


def _least_excess(
    gradient: FloatArray, prices: list[FloatArray], low: NDArray[np.bool_], high: NDArray[np.bool_]
) -> float:
    """Largest violation with the multipliers >= 0 of the prices (N,) that make it smallest.

    A linear programme in as many numbers as there are prices: it is solved for a few devices, to
    which the one that it leaves worst off is added until none is worse off than these.
    """
    # In units of their largest entries, which are what the solver's tolerance is made for.
    columns = [price / np.abs(price).max() for price in prices]
    table = np.stack(columns, axis=1) if columns else np.zeros((len(gradient), 0))
    multiplier, kept, excess = np.zeros(table.shape[1]), np.zeros(0, dtype=np.intp), 0.0
    for _ in range(_CUTS):
        left = gradient + table @ multiplier
        above, below = np.where(high, 0.0, -left), np.where(low, 0.0, left)
        # At its lower bound a device may cost more than it saves, at the upper one less.
        above, below = np.where(low & high, 0.0, above), np.where(low & high, 0.0, below)
        violation = np.maximum(above, below)
        worst = int(np.argmax(violation))
        if not prices or violation[worst] <= excess + _SOLVED:
            return max(float(violation[worst]), 0.0)
        kept = np.append(kept, worst)
        pull, push = kept[~high[kept]], kept[~low[kept]]
        rows = np.concatenate([-table[pull], table[push]])
        least = np.asarray(
            linprog(
                np.append(np.zeros(table.shape[1]), 1.0),
                np.column_stack([rows, -np.ones(len(rows))]),
                np.concatenate([gradient[pull], -gradient[push]]),
            ).x
        )
        multiplier, excess = least[:-1], float(least[-1])
    return float(violation[worst])
