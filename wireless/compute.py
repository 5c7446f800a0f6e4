"""Time of local training: a fixed part per step, and arithmetic at the device's speed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls


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
    for name, values in (("flops", count), ("step_s", time)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} must be positive and finite")
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
