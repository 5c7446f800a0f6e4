"""Time of local training: a fixed part per step, and arithmetic at the device's speed.

Load and temperature vary it: `compute_jitter` from dispatch to dispatch, `throttled_time_s` within
one that heats the device.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from wireless import streams
from wireless.checks import require


def compute_time_s(
    flops: ArrayLike, steps: ArrayLike, compute_flops: ArrayLike, step_overhead_s: ArrayLike
) -> NDArray[np.float64]:
    """Return how long a device trains: H_n overhead_n + C_n / speed_n.

    Parameters
    ----------
    flops : array_like, shape (N,)
        Floating-point operations C_n of all steps together.
    steps : array_like, shape (N,)
        Local steps H_n.
    compute_flops : array_like, shape (N,)
        Effective training speeds in FLOP/s, > 0.
    step_overhead_s : array_like, shape (N,)
        Fixed times of one local step in seconds.

    Returns
    -------
    ndarray, shape (N,)
        Seconds.
    """
    arithmetic_s = np.asarray(flops, dtype=np.float64) / np.asarray(compute_flops)
    return np.asarray(np.asarray(steps) * np.asarray(step_overhead_s) + arithmetic_s)


def speed_from_tokens(tokens_per_s: ArrayLike, flops_per_token: ArrayLike) -> NDArray[np.float64]:
    """Return the effective speed of a device whose training is measured in tokens per second.

    Parameters
    ----------
    tokens_per_s : array_like, shape (N,)
        Tokens trained on per second, > 0.
    flops_per_token : array_like, shape (N,)
        Floating-point operations of one token in that measurement, > 0.

    Returns
    -------
    ndarray, shape (N,)
        Speeds in FLOP/s.

    Raises
    ------
    ValueError
        If a number is not positive and finite.
    """
    rate = _positive("tokens_per_s", tokens_per_s)
    return np.asarray(rate * _positive("flops_per_token", flops_per_token))


def compute_jitter(
    seed: int, device: ArrayLike, dispatch: ArrayLike, sigma: ArrayLike
) -> NDArray[np.float64]:
    """Draw by how much a dispatch takes longer or shorter than the device's mean time.

    Log-normal of mean 1, exp(sigma z - sigma^2 / 2), one draw per device and dispatch.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device : array_like of int, shape (M,)
        Device numbers.
    dispatch : array_like of int, shape (M,)
        Numbers of the dispatches.
    sigma : array_like, shape (M,)
        Standard deviations of the logarithm, >= 0.

    Returns
    -------
    ndarray, shape (M,)
        Factors of the compute times, positive.

    Raises
    ------
    ValueError
        If a sigma is negative or not finite.
    """
    spread = np.asarray(sigma, dtype=np.float64)
    require("sigma", spread, np.isfinite(spread) & (spread >= 0), "finite and at least 0")
    draw = streams.normal(seed, "compute.jitter", device, dispatch)
    return np.asarray(np.exp(spread * draw - spread**2 / 2))


def throttled_time_s(
    flops: ArrayLike,
    compute_flops: ArrayLike,
    throttle_after_s: ArrayLike,
    throttled_share: ArrayLike,
) -> NDArray[np.float64]:
    """Return how long a device computes that slows down once it is hot.

    Speed v for a time tau, a share s of it from then on, so that the time is t + (t - tau)+
    (1 / s - 1) with t = C / v (own derivation). The device starts cold.

    Parameters
    ----------
    flops : array_like, shape (N,)
        Floating-point operations C.
    compute_flops : array_like, shape (N,)
        Speeds v of the cold device in FLOP/s, > 0.
    throttle_after_s : array_like, shape (N,)
        Times tau of continuous load until it slows down, >= 0; ``inf`` is never.
    throttled_share : array_like, shape (N,)
        Speed of the hot device over that of the cold one, above 0 and at most 1.

    Returns
    -------
    ndarray, shape (N,)
        Seconds.

    Raises
    ------
    ValueError
        If a speed, time or share is outside its range.
    """
    share = np.asarray(throttled_share, dtype=np.float64)
    after_s = np.asarray(throttle_after_s, dtype=np.float64)
    require("throttled_share", share, (share > 0) & (share <= 1), "above 0 and at most 1")
    require("throttle_after_s", after_s, after_s >= 0, "at least 0")
    cold_s = np.asarray(flops, dtype=np.float64) / _positive("compute_flops", compute_flops)
    return np.asarray(cold_s + np.maximum(cold_s - after_s, 0) * (1 / share - 1))


def _positive(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Check that all numbers are positive and finite."""
    array = np.asarray(values, dtype=np.float64)
    require(name, array, np.isfinite(array) & (array > 0), "positive and finite")
    return array


@dataclass(frozen=True, slots=True, eq=False)
class ComputeFit:
    """A device's speed and overhead, fitted to P measured steps.

    Parameters
    ----------
    flops : float
        Effective speed in FLOP/s.
    step_overhead_s : float
        Fixed time of one step in seconds.
    fitted_s : ndarray, shape (P,)
        What the model gives for each measured step, in seconds.
    relative_error : ndarray, shape (P,)
        Fitted over measured time, less one.
    """

    flops: float
    step_overhead_s: float
    fitted_s: NDArray[np.float64]
    relative_error: NDArray[np.float64]

    @property
    def rms_error(self) -> float:
        """Root mean square of the relative errors."""
        return float(np.sqrt(np.mean(self.relative_error**2)))

    @property
    def worst_error(self) -> float:
        """Largest relative error, without its sign."""
        return float(np.abs(self.relative_error).max())


def fit_compute(flops: ArrayLike, step_s: ArrayLike) -> ComputeFit:
    """Fit speed and overhead to measured steps by relative least squares.

    Minimises the sum of ((overhead + C_p / speed) / t_p - 1)^2 over overhead, 1 / speed >= 0, so
    that a short step counts as much as a long one.

    Parameters
    ----------
    flops : array_like, shape (P,)
        Floating-point operations C_p of one step at each point.
    step_s : array_like, shape (P,)
        Measured time t_p of one step in seconds.

    Returns
    -------
    ComputeFit
        The model and its error at each point.

    Raises
    ------
    ValueError
        If a number is not positive and finite, fewer than two operation counts differ, or the
        times do not grow with the operations, which leaves no speed to fit.
    """
    count = np.asarray(flops, dtype=np.float64)
    time = np.asarray(step_s, dtype=np.float64)
    if count.ndim != 1 or count.shape != time.shape:
        raise ValueError(
            f"flops and step_s must be rows of equal length, got {count.shape}, {time.shape}"
        )
    _positive("flops", count)
    _positive("step_s", time)
    if len(np.unique(count)) < 2:
        raise ValueError(
            "two steps of unlike operation counts are needed to tell speed from overhead"
        )
    columns = np.stack([1 / time, count / time], axis=1)
    size = np.linalg.norm(columns, axis=0)  # seconds and operations differ by many orders
    solution, _ = nnls(columns / size, np.ones(len(time)))
    overhead_s, per_flop_s = solution / size
    if per_flop_s == 0:
        raise ValueError("the times do not grow with the operations, so they tell no speed")
    speed = float(1 / per_flop_s)
    fitted = compute_time_s(count, 1, speed, overhead_s)
    return ComputeFit(speed, float(overhead_s), fitted, fitted / time - 1)
