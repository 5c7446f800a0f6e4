"""What a device can expect of the band when it takes part."""

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import BoolArray, cohort_time
from wireless.spectrum import RULES
from wireless.spectrum.dynamic import DynamicRule
from wireless.streams import uniform

#: Most cohorts drawn, and most random numbers drawn for them.
_COHORTS = 4096
_NUMBERS = 20_000_000

#: The same for rules whose transfers are followed from event to event, in devices drawn.
_FOLLOWED_COHORTS = 256
_FOLLOWED_DEVICES = 20_000

#: Above so many devices a table has a share for few of them anyway, and seconds are what it may
#: cost: following a cohort of m from event to event takes m^2 steps, of which there are these.
_MANY, _STEPS = 100_000, 1_000_000


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
        Hertz, over the time of a transfer; NaN for a device that none of the drawn cohorts
        contains, and for all if even one cohort of a large fleet has too many events to follow.
    """
    devices, q = problem.devices, problem.takes_part(probability)
    at_once = problem.allocation == "equal-finish" and problem.cells == 1
    most = _COHORTS if at_once else _FOLLOWED_COHORTS
    numbers = _NUMBERS if at_once else int(_FOLLOWED_DEVICES * devices / q.sum())
    draws = 1 if np.all(q == 1.0) else min(most, max(1, numbers // devices))
    if devices > _MANY and not at_once:
        draws = min(draws, _NUMBERS // devices)
        if isinstance(RULES[problem.allocation], DynamicRule):
            draws = min(draws, int(_STEPS * problem.cells / q.sum() ** 2))
    total_hz, times = np.zeros(devices), np.zeros(devices)
    step = max(1, _NUMBERS // 5 // devices)
    for first in range(0, draws, step):
        draw = np.arange(first, min(first + step, draws))
        present = uniform(seed, "share", draw[:, None], np.arange(devices)) < q
        total_hz += (
            _equal_finish(problem, rank, present) if at_once else _followed(problem, rank, present)
        )
        times += present.sum(axis=0)
    mean_hz = np.full(devices, np.nan)
    np.divide(total_hz, times, out=mean_hz, where=times > 0)
    return mean_hz


def _equal_finish(problem: Problem, rank: ArrayLike, present: BoolArray) -> FloatArray:
    """Bandwidths (N,) summed over cohorts, each read off the cohort's one finishing time."""
    cohort, device = np.nonzero(present)
    ready_s = problem.ready_s(rank, present)[cohort, device]
    window_s = cohort_time(problem, rank, present)[cohort] - ready_s
    bits = problem.upload_bits(rank)
    need_hz = problem.link.take(device).bandwidth(bits[device] / window_s)
    # A window as short as the device can use asks, by a rounding, for more than there is.
    held = np.minimum(need_hz, problem.bandwidth_hz)
    return np.bincount(device, held, minlength=problem.devices).astype(np.float64)


def _followed(problem: Problem, rank: ArrayLike, present: BoolArray) -> FloatArray:
    """Bandwidths (N,) summed over cohorts, each followed from event to event, cell by cell."""
    rule, bits = RULES[problem.allocation], problem.upload_bits(rank)
    total_hz = np.zeros(problem.devices)
    for ready_s, members in zip(problem.ready_s(rank, present), present, strict=True):
        for number in np.unique(problem.cell[members]):
            some = np.flatnonzero(members & (problem.cell == number))
            sent = rule.transfers(
                ready_s[some], bits[some], problem.link.take(some), problem.bandwidth_hz
            )
            total_hz[some] += sent.bandwidth_hz
    return total_hz
