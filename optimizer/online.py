"""What the rounds so far teach: gradient norms of the devices, and the pace of training."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from optimizer.problem import Problem
from optimizer.rounds import FloatArray, RoundModel

#: What a spread of logarithmic norms is taken for before anything is seen, and how many
#: observations that is worth.
_SPREAD, _WORTH = 0.3, 2.0

#: Sweeps over the observations, and the change of an estimate at which they end.
_SWEEPS, _STILL = 200, 1e-9

#: What is believed of the pace before any loss: standard deviation of the logarithm of its factor,
#: and mean and standard deviation of the exponent of the fall.
_FACTOR_STD, _EXPONENT, _EXPONENT_STD = 0.7, 0.7, 0.5

#: Ends between which both are looked for.
_BOUNDS = ((-10.0, 0.05), (10.0, 3.0))

#: Error of a fall, as a share of the way: the first guess, and the least that is believed.
_ERROR, _LEAST_ERROR = 0.1, 0.02

#: Share of its first value that the constant of a round model never falls below.
_LEAST_BASE = 0.05

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Norms:
    """Estimated norms of the devices' updates, as multiples of the fleet's geometric mean.

    Parameters
    ----------
    norm : ndarray, shape (N,)
        Root of the expected square, which is what a variance share is made of; the less is known of
        a device, the further it lies above the middle of its interval.
    low, high : ndarray, shape (N,)
        Ends of the 95 % intervals.
    observations : ndarray of int, shape (N,)
        Updates seen of each device.
    """

    norm: FloatArray
    low: FloatArray
    high: FloatArray
    observations: NDArray[np.int64]


class _Effect:
    """Random effects of one kind, such as devices: means, variances and their common spread."""

    def __init__(self, index: NDArray[np.int64], count: int) -> None:
        self.index = index
        self.times = np.bincount(index, minlength=count)
        self.mean = np.zeros(count)
        self.spread = _SPREAD**2
        self.variance = np.full(count, self.spread)

    def update(self, residual: FloatArray, error: float) -> float:
        """Shrink the mean residual of each towards zero; return the largest change."""
        self.variance = 1 / (self.times / error + 1 / self.spread)
        total = np.bincount(self.index, residual, minlength=len(self.times))
        before, self.mean = self.mean, self.variance * total / error
        seen = self.times > 0
        square = float((self.mean**2 + self.variance)[seen].sum())
        self.spread = (square + _WORTH * _SPREAD**2) / (int(seen.sum()) + _WORTH)
        return float(np.abs(self.mean - before).max())


def estimate_norms(
    device: ArrayLike, round_index: ArrayLike, norm: ArrayLike, devices: int
) -> Norms:
    """Norms of all devices from those of the updates that some of them sent.

    The logarithm of an update's norm is a level, an effect of its device, one of its round (norms
    fall as training goes on, whoever takes part) and an error. Effects and errors are normal; their
    variances are estimated along with them, so a device is drawn towards the fleet's mean the more
    the fewer of its updates were seen and the less devices differ.

    Parameters
    ----------
    device, round_index : array_like of int, shape (J,)
        Who sent each update, and when.
    norm : array_like, shape (J,)
        Norms >= 0 of updates at full rank; zero counts as the smallest positive one.
    devices : int
        Number of devices N.

    Returns
    -------
    Norms

    Raises
    ------
    ValueError
        If a norm is negative or not finite, or a device is not in 0..N-1.

    Notes
    -----
    Empirical Bayes of two crossed random effects, by expectation and maximisation with independent
    factors for the posterior. Source: own derivation.
    """
    who = np.asarray(device, dtype=np.int64)
    size = np.asarray(norm, dtype=np.float64)
    if np.any((who < 0) | (who >= devices)):
        raise ValueError(f"device holds {who.min()} to {who.max()}: give 0 to {devices - 1}")
    bad = ~(np.isfinite(size) & (size >= 0))
    if bad.any():
        raise ValueError(f"norm is {size[bad][0]}: give zero or a positive number")
    rounds, when = np.unique(np.asarray(round_index, dtype=np.int64), return_inverse=True)
    own, common = _Effect(who, devices), _Effect(when, len(rounds))
    if size.any():
        size = np.maximum(size, size[size > 0].min())
        _fit(np.log(size), own, common)
    deviation = np.sqrt(own.variance)
    return Norms(
        norm=np.exp(own.mean + own.variance),
        low=np.exp(own.mean - _Z * deviation),
        high=np.exp(own.mean + _Z * deviation),
        observations=own.times.astype(np.int64),
    )


def _fit(value: FloatArray, own: _Effect, common: _Effect) -> None:
    """Settle level, effects and spreads on the observed logarithms (J,)."""
    level, error = float(value.mean()), _SPREAD**2
    for _ in range(_SWEEPS):
        moved = own.update(value - level - common.mean[common.index], error)
        moved = max(moved, common.update(value - level - own.mean[own.index], error))
        residual = value - own.mean[own.index] - common.mean[common.index]
        level = float(residual.mean())
        unsure = own.variance[own.index] + common.variance[common.index]
        square = float(((residual - level) ** 2 + unsure).sum())
        error = (square + _WORTH * _SPREAD**2) / (len(value) + _WORTH)
        if moved < _STILL:
            break


def full_rank_norm(norm: ArrayLike, ratio: ArrayLike) -> FloatArray:
    """Norms that updates of sketches would have had at full rank.

    Parameters
    ----------
    norm : array_like, shape (J,)
        Norms of updates, unbiased: multiplied by r/k where the device did not.
    ratio : array_like, shape (J,)
        Sketching ratios k/r.

    Returns
    -------
    ndarray, shape (J,)

    Notes
    -----
    A sketch keeps the mean of a gradient and multiplies its mean square by r/k (arXiv 2501.19389).
    """
    return np.asarray(np.asarray(norm, dtype=np.float64) * np.sqrt(ratio))


class Pace(NamedTuple):
    """How many times as many rounds the target takes as the round model says.

    Parameters
    ----------
    factor : float
        The estimate; 1 before any loss is known.
    low, high : float
        Ends of its 95 % interval.
    """

    factor: float
    low: float
    high: float


def estimate_pace(done: ArrayLike, loss: ArrayLike, start: float, target: float) -> Pace:
    """Pace of training from the losses so far.

    The fall of the loss, as a share of the way from the start to the target, is taken for a power
    of the rounds behind plus an error: ``(s / f)^p``, s the share of the way by the round model, f
    the factor sought. Both f and p have normal priors (f in its logarithm), so a few losses move
    them little; a loss that rises above the start tells that the target is far.

    Parameters
    ----------
    done : array_like, shape (T,)
        Sum of 1/R over the rounds before each evaluation, R what the round model gave for the
        plan in force.
    loss : array_like, shape (T,)
        Evaluated losses.
    start : float
        Loss before training.
    target : float
        Loss to reach, below `start`.

    Returns
    -------
    Pace

    Raises
    ------
    ValueError
        If the target is not below the start, or a value is not finite.

    Notes
    -----
    The interval takes errors of evaluations for independent, so it is too narrow where a whole
    curve leaves the power law. Source: own derivation.
    """
    share, value = np.asarray(done, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if not (np.isfinite(share).all() and np.isfinite(value).all() and np.isfinite(start)):
        raise ValueError("loss holds a value that is not finite: leave the evaluation out")
    if not target < start:
        raise ValueError(f"target is {target}: give less than the loss at the start, {start}")
    fallen = (start - value) / (start - target)
    error = _ERROR
    # The second time with the errors that the first one left.
    for _ in range(2):
        scale = error

        def residuals(guess: FloatArray, scale: float = scale) -> FloatArray:
            log_factor, exponent = guess
            miss = (share * np.exp(-log_factor)) ** exponent - fallen
            prior = (log_factor / _FACTOR_STD, (exponent - _EXPONENT) / _EXPONENT_STD)
            return np.append(miss / scale, prior)

        found = least_squares(residuals, (0.0, _EXPONENT), bounds=_BOUNDS, xtol=1e-12)
        left = found.fun[: len(fallen)] * scale
        error = max(_LEAST_ERROR, float(np.sqrt(np.mean(left**2)))) if len(fallen) else _ERROR
    slope = np.asarray(found.jac)
    deviation = float(np.sqrt(np.linalg.inv(slope.T @ slope)[0, 0]))
    middle = float(found.x[0])
    low, factor, high = np.exp([middle - _Z * deviation, middle, middle + _Z * deviation])
    return Pace(float(factor), float(low), float(high))


def rescaled(
    problem: Problem, rank: ArrayLike, probability: ArrayLike, factor: float
) -> RoundModel:
    """Round model whose `base` is such that a plan needs `factor` times as many rounds.

    Parameters
    ----------
    problem : Problem
        The fleet, with the model to rescale.
    rank, probability : array_like, shape (N,)
        The plan.
    factor : float
        As in `Pace`.

    Returns
    -------
    RoundModel
        The same model where it has no `base`. The base keeps a twentieth of its value at least.

    Notes
    -----
    Rounds are a line in the base in every model that has one, the noise of sampling staying as it
    is; where the noise alone exceeds what was seen, the base becomes as small as it may.
    """
    model: Any = problem.rounds
    if not hasattr(model, "base"):
        return problem.rounds
    doubled = replace(problem, rounds=replace(model, base=2 * model.base))
    rounds = problem.rounds_of(rank, probability)
    slope = (doubled.rounds_of(rank, probability) - rounds) / model.base
    base = model.base + (factor - 1) * rounds / slope
    changed: RoundModel = replace(model, base=max(base, _LEAST_BASE * model.base))
    return changed
