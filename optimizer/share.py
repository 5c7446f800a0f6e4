"""What a device can expect of the band when it takes part."""

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import cohort_time
from wireless.streams import uniform

#: Cohorts evaluated over all devices, and cells of the cohort table held at once.
_COHORTS = 65_536
_CELLS = 4_000_000


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
        Hertz under equal finish; the others are drawn independently, so that conditioning on a
        device being sampled only adds it to the cohort.
    """
    devices = problem.devices
    draws = max(1, _COHORTS // devices)
    q = np.asarray(probability, dtype=np.float64)
    others = uniform(seed, "share", np.arange(draws)[:, None], np.arange(devices)) < q
    compute_s, bits = problem.compute_s(rank), problem.upload_bits(rank)
    mean_hz = np.empty(devices)
    step = max(1, _CELLS // (draws * devices))
    for first in range(0, devices, step):
        device = np.arange(first, min(first + step, devices))
        present = np.repeat(others[None], len(device), axis=0)
        present[np.arange(len(device)), :, device] = True
        time_s = cohort_time(problem, rank, present.reshape(-1, devices))
        window_s = time_s.reshape(len(device), draws) - compute_s[device, None]
        link = problem.link.take(device)
        need_hz = link.bandwidth(bits[device] / window_s.T)
        # A window as short as the device can use asks, by a rounding, for more than there is.
        mean_hz[device] = np.minimum(need_hz, problem.bandwidth_hz).mean(axis=0)
    return mean_hz
