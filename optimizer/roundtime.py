"""Expected duration of a round: enumerated or sampled."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from wireless.spectrum import RULES
from wireless.streams import uniform

BoolArray = NDArray[np.bool_]

EXACT_DEVICES = 12
"""Largest fleet whose 2^N cohorts are enumerated rather than sampled."""

_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class RoundTime:
    """Expected duration of a round, overhead included.

    Parameters
    ----------
    mean_s : float
        Expected duration (s).
    half_width_s : float
        Half-width (s) of its 95 % confidence interval; zero when exact.
    draws : int
        Cohorts evaluated.
    """

    mean_s: float
    half_width_s: float
    draws: int


def all_cohorts(devices: int) -> BoolArray:
    """All cohorts of a small fleet.

    Parameters
    ----------
    devices : int
        Number of devices N, at most 20.

    Returns
    -------
    ndarray of bool, shape (2**N, N)

    Raises
    ------
    ValueError
        If the fleet is too large.
    """
    if devices > 20:
        raise ValueError(f"exact enumeration of {devices} devices: use monte-carlo above 20")
    return np.asarray((np.arange(2**devices)[:, None] >> np.arange(devices)) & 1, dtype=np.bool_)


def cohort_mass(present: BoolArray, probability: ArrayLike) -> FloatArray:
    """Probability of each cohort under independent sampling.

    Parameters
    ----------
    present : ndarray of bool, shape (C, N)
        Cohorts.
    probability : array_like, shape (N,)
        Sampling probabilities q_n.

    Returns
    -------
    ndarray, shape (C,)
    """
    q = np.asarray(probability, dtype=np.float64)
    return np.asarray(np.where(present, q, 1.0 - q).prod(axis=-1))


def cohort_time(problem: Problem, rank: ArrayLike, present: BoolArray) -> FloatArray:
    """Duration of given cohorts without the overhead: zero for an empty one.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks k_n.
    present : ndarray of bool, shape (C, N)
        Cohorts.

    Returns
    -------
    ndarray, shape (C,)
        Seconds until the last member has uploaded.
    """
    rule, bits = RULES[problem.allocation], problem.upload_bits(rank)
    time_s = np.empty(len(present))
    step = max(1, _CHUNK // problem.devices)
    for first in range(0, len(present), step):
        rows = slice(first, first + step)
        some = present[rows]
        time_s[rows] = rule.round_time(
            problem.ready_s(rank, some),
            bits,
            problem.link,
            problem.bandwidth_hz,
            some,
            problem.cell if problem.cells > 1 else None,
        )
    return time_s


def expected_round_time(
    problem: Problem,
    rank: ArrayLike,
    probability: ArrayLike,
    draws: int = 4096,
    seed: int = 0,
    method: Literal["exact", "monte-carlo"] | None = None,
) -> RoundTime:
    """Expected duration of a round under the allocation rule, overhead included.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks k_n.
    probability : array_like, shape (N,)
        Sampling probabilities q_n.
    draws : int
        Cohorts to sample, at least 2.
    seed : int
        Root seed. Draw i of device n is the same number for every plan: common random numbers.
    method : {"exact", "monte-carlo"}, optional
        Enumeration of all cohorts or sampling; by default the first up to 12 devices.

    Returns
    -------
    RoundTime

    Raises
    ------
    ValueError
        If `draws` is below 2, the method is unknown or the fleet too large to enumerate.
    """
    if method is None:
        method = "exact" if problem.devices <= EXACT_DEVICES else "monte-carlo"
    q = problem.takes_part(probability)
    if method == "exact":
        present = all_cohorts(problem.devices)
        mean = float(cohort_mass(present, q) @ cohort_time(problem, rank, present))
        return RoundTime(problem.overhead_s + mean, 0.0, len(present))
    if method != "monte-carlo":
        raise ValueError(f"method is {method!r}: give 'exact' or 'monte-carlo'")
    if draws < 2:
        raise ValueError(f"draws is {draws}: give 2 or more")
    if np.all(q == 1.0):
        everybody = np.ones((1, problem.devices), dtype=np.bool_)
        time_s = float(cohort_time(problem, rank, everybody)[0])
        return RoundTime(problem.overhead_s + time_s, 0.0, 1)
    # The draws are made in chunks as well: eight bytes each, they outweigh the cohorts.
    step = max(1, _CHUNK // problem.devices)
    chunks = np.split(np.arange(draws), range(step, draws, step))
    device = np.arange(problem.devices)
    sample = np.concatenate(
        [
            cohort_time(problem, rank, uniform(seed, "certificate", draw[:, None], device) < q)
            for draw in chunks
        ]
    )
    half_width_s = float(1.96 * sample.std(ddof=1) / np.sqrt(draws))
    return RoundTime(problem.overhead_s + float(sample.mean()), half_width_s, draws)
