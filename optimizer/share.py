"""What a device can expect of the band when it takes part."""

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import cohort_time
from wireless.streams import uniform

#: Most cohorts drawn, and most random numbers drawn for them.
_COHORTS = 4096
_NUMBERS = 20_000_000


def expected_bandwidth(
    problem: Problem, rank: ArrayLike, probability: ArrayLike, seed: int
) -> FloatArray:
    """Mean bandwidth of each device over the cohorts it is in, by Monte-Carlo.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank, probability : array_like, shape (N,)
        Ranks k_n and sampling probabilities q_n.
    seed : int
        Root seed of the draws.

    Returns
    -------
    ndarray, shape (N,)
        Hertz under equal finish; NaN for a device that none of the drawn cohorts contains.
    """
    devices = problem.devices
    q = np.asarray(probability, dtype=np.float64)
    draws = 1 if np.all(q == 1.0) else min(_COHORTS, max(1, _NUMBERS // devices))
    compute_s, bits = problem.compute_s(rank), problem.upload_bits(rank)
    total_hz, times = np.zeros(devices), np.zeros(devices)
    step = max(1, _NUMBERS // 5 // devices)
    for first in range(0, draws, step):
        draw = np.arange(first, min(first + step, draws))
        present = uniform(seed, "share", draw[:, None], np.arange(devices)) < q
        cohort, device = np.nonzero(present)
        window_s = cohort_time(problem, rank, present)[cohort] - compute_s[device]
        need_hz = problem.link.take(device).bandwidth(bits[device] / window_s)
        # A window as short as the device can use asks, by a rounding, for more than there is.
        total_hz += np.bincount(
            device, np.minimum(need_hz, problem.bandwidth_hz), minlength=devices
        )
        times += np.bincount(device, minlength=devices)
    mean_hz = np.full(devices, np.nan)
    np.divide(total_hz, times, out=mean_hz, where=times > 0)
    return mean_hz
