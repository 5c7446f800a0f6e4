"""What goes wrong, and when: pure functions of (device, dispatch) or of time.

A failure is drawn for every dispatch of a device, whether or not it lasts long enough to be hit, so
that it is the same under every policy and schedule.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.checks import require
from wireless.poisson import Poisson

FloatArray = NDArray[np.float64]


def crash_s(seed: int, device: ArrayLike, dispatch: ArrayLike, mean_s: float) -> FloatArray:
    """Draw how long dispatched devices compute until they crash: exponential times.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device, dispatch : array_like of int, shape (M,)
        Devices, and how often each was dispatched before.
    mean_s : float
        Mean computing time between two crashes in seconds, > 0.

    Returns
    -------
    ndarray, shape (M,)
        Seconds of computing; a job that takes less is not hit.

    Raises
    ------
    ValueError
        If the mean is not positive and finite.
    """
    require("mean_s", mean_s, 0 < mean_s < np.inf, "positive and finite")
    return mean_s * streams.exponential(seed, "failure.crash", device, dispatch)


def delivered_share(
    seed: int, device: ArrayLike, dispatch: ArrayLike, attempts: int, probability: float
) -> FloatArray:
    """Draw how much of its payload each attempt of an upload gets through.

    An attempt is lost with the given probability, at a point of the payload that is uniform.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device, dispatch : array_like of int, shape (M,)
        Devices, and how often each was dispatched before.
    attempts : int
        Attempts A of an upload, >= 1.
    probability : float
        Probability that an attempt is lost, in [0, 1).

    Returns
    -------
    ndarray, shape (M, A)
        Shares in (0, 1]; one for an attempt that is not lost.

    Raises
    ------
    ValueError
        If the probability is outside its range.
    """
    require("probability", probability, 0 <= probability < 1, "at least 0 and below 1")
    number = np.asarray(device)[..., None], np.asarray(dispatch)[..., None], np.arange(attempts)
    draw = streams.uniform(seed, "failure.loss", *number)
    # Given that an attempt is lost, its draw over the probability is uniform again.
    return np.where(draw < probability, draw / max(probability, 2.0**-52), 1.0)


def server_failures(seed: int, mean_s: float) -> Poisson:
    """Return the moments at which the server fails, a Poisson process of device 0.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    mean_s : float
        Mean time between two failures in seconds, > 0.

    Returns
    -------
    Poisson
    """
    require("mean_s", mean_s, 0 < mean_s < np.inf, "positive and finite")
    return Poisson(seed, "failure.server", mean_s)
