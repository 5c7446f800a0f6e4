"""What the closed forms of several policies are made of."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import IntArray, Problem, in_turn
from optimizer.rounds import FloatArray
from wireless.spectrum import RULES


class SamplingRounds(NamedTuple):
    """Rounds at given ranks, ``R(q) = fixed + sum_n per_probability_n / q_n``.

    Parameters
    ----------
    fixed : float
        Rounds.
    per_probability : ndarray, shape (N,)
        Rounds, >= 0.
    """

    fixed: float
    per_probability: FloatArray

    def __call__(self, probability: FloatArray) -> float:
        """Return the rounds of probabilities (N,)."""
        return self.fixed + float(np.sum(self.per_probability / probability))


def sampling_rounds(problem: Problem, rank: ArrayLike) -> SamplingRounds:
    """Split the rounds at given ranks into what sampling costs and what it does not.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks k_n; real values are allowed.

    Returns
    -------
    SamplingRounds
    """
    ratio = np.asarray(rank, dtype=np.float64) / problem.rank
    everybody = np.ones(problem.devices)
    _, noise = problem.rounds.along(
        problem.weight, problem.variance, ratio, everybody, ratio[None, :]
    )
    return SamplingRounds(problem.rounds_of(rank, everybody) - float(noise.sum()), noise[0])


def members_s(problem: Problem, device: IntArray, rank: ArrayLike) -> FloatArray:
    """Duration of the round of given members under the problem's rule, overhead included.

    Parameters
    ----------
    problem : Problem
        The fleet.
    device : ndarray of int, shape (M,)
        The members, ascending: downloads follow that order.
    rank : array_like, shape (..., M)
        Their ranks.

    Returns
    -------
    ndarray, shape (...)
        Seconds; the overhead alone for nobody.
    """
    k = np.asarray(rank, dtype=np.float64)
    # Only the members are looked at, however large the fleet is.
    download_s = np.zeros(k.shape)
    if problem.download_bps is not None:
        bits = problem.fixed_down_bits[device] + k * problem.down_bits_per_rank
        download_s = in_turn(bits / problem.download_bps[device], problem.cell[device])
    compute_s = problem.compute_base_s[device] + k * problem.compute_per_rank_s[device]
    ends_s = RULES[problem.allocation].round_time(
        download_s + compute_s,
        problem.upload_bits(k, device),
        problem.link.take(device),
        problem.bandwidth_hz,
        cell=problem.cell[device] if problem.cells > 1 else None,
    )
    return np.asarray(problem.overhead_s + ends_s)
