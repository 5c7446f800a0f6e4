"""What bounds leave of each device's probability."""

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import Toggles

#: What bounds may be missed by, and by what they are when they are just met.
_ROUNDING, _NEARLY = 1e-9, 1e-12


def raise_to_bounds(
    problem: Problem, rank: ArrayLike, probability: FloatArray, most: ArrayLike = 1.0
) -> FloatArray:
    """Scale probabilities up until the expected cohort is large and the noise small enough.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Positive numbers.
    most : array_like, shape () or (N,)
        Upper bounds of the probabilities.

    Returns
    -------
    ndarray, shape (N,)
        ``clip(c q, q_min, most)`` with the smallest c >= 1 that will do; all at their upper bounds
        where none does.
    """
    limit = problem.noise_limit * (1 + _NEARLY)
    noise = None if limit == np.inf else problem.noise_shares(rank)

    def scaled(factor: float) -> FloatArray:
        return np.clip(factor * probability, problem.min_probability, most)

    def enough(q: FloatArray) -> bool:
        return bool(q.sum() >= problem.min_cohort) and (
            noise is None or float(np.sum(noise / q)) <= limit
        )

    low, high = 1.0, max(1.0, 1.0 / float(probability.min()))
    if enough(least := scaled(low)):
        return least
    for _ in range(200):
        middle = float(np.sqrt(low * high))
        if not low < middle < high:
            break
        if enough(scaled(middle)):
            high = middle
        else:
            low = middle
    return scaled(high)


def within(problem: Problem, rank: ArrayLike, probability: FloatArray) -> bool:
    """Whether the expected cohort is large enough and the noise small enough, but for rounding.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank, probability : array_like, shape (N,)
        A plan.

    Returns
    -------
    bool
    """
    if probability.sum() < problem.min_cohort * (1 - _ROUNDING):
        return False
    limit = problem.noise_limit * (1 + _ROUNDING)
    return limit == np.inf or problem.noise(rank, probability) <= limit


def most_by_energy(problem: Problem, toggles: Toggles, rank: ArrayLike) -> FloatArray:
    """Highest probabilities at which devices stay within their energy while the others keep theirs.

    A device that completes computes for tau_n and holds its transmitter on until the uploads end,
    so a round takes ``c_n q_n (P_c tau_n + P_t (E[T | n] - tau_n))`` of it on average.

    Parameters
    ----------
    problem : Problem
        The fleet.
    toggles : Toggles
        Round time along each device.
    rank : array_like, shape (C, N)
        Ranks that the toggles are of.

    Returns
    -------
    ndarray, shape (C, N)
        At most one; may fall below `min_probability`.
    """
    k = np.asarray(rank, dtype=np.float64)
    if np.all(np.isinf(problem.energy_limit_j)):
        return np.ones(k.shape)
    compute_s = problem.compute_s(k)
    end_s = toggles.without_s - problem.overhead_s + toggles.added_s / problem.completion
    sending_s = np.maximum(end_s - problem.download_s(k) - compute_s, 0.0)
    spent_j = problem.compute_power_w * compute_s + problem.transmit_power_w * sending_s
    with np.errstate(divide="ignore"):
        return np.minimum(problem.energy_limit_j / (problem.completion * spent_j), 1.0)


def check_energy(problem: Problem) -> None:
    """Refuse a device whose energy does not suffice even if it has the band to itself.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Raises
    ------
    ValueError
        With the device's number and the least limit at which it can take part.
    """
    k = np.full(problem.devices, problem.min_rank)
    upload_s = problem.upload_bits(k) / problem.link.rate(
        np.full(problem.devices, problem.bandwidth_hz)
    )
    spent_j = problem.compute_power_w * problem.compute_s(k) + problem.transmit_power_w * upload_s
    least_j = problem.takes_part(problem.min_probability) * spent_j
    short = least_j > problem.energy_limit_j
    if short.any():
        bad = int(np.argmax(short))
        raise ValueError(
            f"energy_limit_j of device {bad} is {problem.energy_limit_j[bad]:g}: give at least "
            f"{least_j[bad]:.6g}, or lower its min_probability"
        )
