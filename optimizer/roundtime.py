"""Expected duration of a round: enumerated, sampled, integrated or of a mean field."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.controls import Controls
from optimizer.problem import Problem, in_turn
from optimizer.rounds import FloatArray
from optimizer.times.mean_field import mean_field_time
from optimizer.times.quadrature import Quadrature
from wireless.link import LinearLink
from wireless.spectrum import RULES
from wireless.streams import uniform

BoolArray = NDArray[np.bool_]
Method = Literal["exact", "monte-carlo", "quadrature", "mean-field"]

EXACT_DEVICES = 12
"""Largest fleet whose 2^N cohorts are enumerated rather than sampled."""

_CHUNK = 4_000_000
_DRAWS = 4096
_NUMBERS = 200_000_000


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
        Cohorts evaluated; fewer in large fleets where transfers are followed from event to event,
        see `expected_round_time`.
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
    rule, rank = RULES[problem.allocation], np.asarray(rank)
    bits, compute_s = problem.upload_bits(rank), problem.compute_s(rank)
    time_s = np.empty(len(present))
    step = max(1, _CHUNK // problem.devices)
    for first in range(0, len(present), step):
        rows = slice(first, first + step)
        # Of a large fleet few are in any cohort of the batch: nothing is computed for the others.
        device = np.flatnonzero(present[rows].any(axis=0))
        if not len(device):
            time_s[rows] = 0.0
            continue
        some = present[rows, device]
        time_s[rows] = rule.round_time(
            _ready_s(problem, rank, compute_s, device, some),
            bits[device],
            problem.link.take(device),
            problem.bandwidth_hz,
            some,
            problem.cell[device] if problem.cells > 1 else None,
        )
    return time_s


def expected_round_time(
    problem: Problem,
    rank: ArrayLike,
    probability: ArrayLike,
    draws: int | None = None,
    seed: int = 0,
    method: Method | None = None,
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
    draws : int, optional
        Cohorts to sample, at least 2; by default 4096, fewer above 48,000 devices (200 million
        divided by N), and 64 at the fewest. Where transfers are followed from event to event (see
        `followed`) a cohort takes up to N^2 steps, hence fewer above 220 devices: 200 million
        divided by N^2.
    seed : int
        Root seed. Draw i of device n is the same number for every plan: common random numbers.
    method : {"exact", "monte-carlo", "quadrature", "mean-field"}, optional
        Enumeration of all cohorts, sampling of some with control variates
        (`optimizer.controls`), the integral over the distribution of the
        round time (`Quadrature`), or the time at which the average cohort fits
        (`mean_field_time`, a baseline that exceeds every device's tau). By default
        the first up to 12 devices and then the second: the last two report no interval, and their
        error is not zero.

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
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}: give one of {', '.join(get_args(Method))}")
    if draws is not None and draws < 2:
        raise ValueError(f"draws is {draws}: give 2 or more")
    if method == "quadrature":
        return RoundTime(Quadrature.build(problem).mean_s(rank, probability), 0.0, 0)
    if method == "mean-field":
        return RoundTime(mean_field_time(problem, rank, probability), 0.0, 0)
    q = problem.takes_part(probability)
    if method == "exact":
        present = all_cohorts(problem.devices)
        mean = float(cohort_mass(present, q) @ cohort_time(problem, rank, present))
        return RoundTime(problem.overhead_s + mean, 0.0, len(present))
    if np.all(q == 1.0):
        everybody = np.ones((1, problem.devices), dtype=np.bool_)
        time_s = float(cohort_time(problem, rank, everybody)[0])
        return RoundTime(problem.overhead_s + time_s, 0.0, 1)
    steps = problem.devices ** (2 if followed(problem) else 1)
    number = draws or min(max(_NUMBERS // steps, 64), _DRAWS)
    sample = drawn_times(problem, rank, q, seed, "certificate", number)
    half_width_s = float(1.96 * sample.std(ddof=1) / np.sqrt(number))
    return RoundTime(problem.overhead_s + float(sample.mean()), half_width_s, number)


def followed(problem: Problem) -> bool:
    """Whether cohorts have to be followed from event to event.

    They end at a time given by one formula or one equation under equal finish and time division,
    and on linear links.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Returns
    -------
    bool
    """
    at_once = problem.allocation in ("equal-finish", "time-division")
    return not (at_once or isinstance(problem.link, LinearLink))


def drawn_times(
    problem: Problem,
    rank: ArrayLike,
    takes_part: FloatArray,
    seed: int,
    purpose: str,
    draws: int,
) -> FloatArray:
    """Durations of drawn cohorts without the overhead, less what control variates explain.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks k_n.
    takes_part : ndarray, shape (N,)
        Probabilities c_n q_n.
    seed : int
        Root seed.
    purpose : str
        Name of the random stream: plans of one seed and purpose are compared on the same draws.
    draws : int
        Number J of cohorts.

    Returns
    -------
    ndarray, shape (J,)
        Seconds: their mean and its standard error are those of the expected duration, see
        `optimizer.controls`.
    """
    # The draws are made in chunks as well: eight bytes each, they outweigh the cohorts.
    step = max(1, _CHUNK // problem.devices)
    device = np.arange(problem.devices)
    controls = Controls.build(problem, rank, takes_part)
    time_s, control = [], []
    for draw in np.split(np.arange(draws), range(step, draws, step)):
        present = uniform(seed, purpose, draw[:, None], device) < takes_part
        time_s.append(cohort_time(problem, rank, present))
        control.append(controls.of(present))
    return controls.adjusted(np.concatenate(time_s), np.concatenate(control))


def _ready_s(
    problem: Problem,
    rank: NDArray[np.float64],
    compute_s: FloatArray,
    device: NDArray[np.intp],
    present: BoolArray,
) -> FloatArray:
    """`Problem.ready_s` of some devices, whose columns (J, n) of the cohorts are `present`."""
    if problem.download_bps is None:
        return np.broadcast_to(compute_s[device], present.shape)
    download_s = np.where(present, problem.download_s(rank)[device], 0.0)
    return in_turn(download_s, problem.cell[device]) + compute_s[device]
