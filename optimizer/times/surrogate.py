"""An upper bound of the round time that one sort evaluates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from wireless.spectrum import solo_finish_time

_ALWAYS = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Upper bound of the expected round time and what each device adds to it.

    ``U = T_oh + E[max_n tau_n] + sum_n q_n w_n / B``: the cohort waits for its slowest member and
    then uploads one after the other over the full band. It is multilinear in q, exact for one
    device, and close on links whose rate is proportional to bandwidth.

    Parameters
    ----------
    mean_s : float
        The bound U (s), overhead included.
    added_s : ndarray, shape (..., N)
        dU/dq_n (s): what device n at the candidate ranks adds where it completes, expected over
        the rest of the cohort, times its completion.
    """

    mean_s: float
    added_s: FloatArray


def surrogate_round_time(
    problem: Problem, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike | None = None
) -> Surrogate:
    """Evaluate the surrogate of the round time with one sort, O(N log N).

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank : array_like, shape (N,)
        Ranks k_n; real values are allowed.
    probability : array_like, shape (N,)
        Sampling probabilities q_n.
    candidate : array_like, shape (..., N), optional
        Ranks at which each device is toggled while the others keep theirs; by default `rank`.

    Returns
    -------
    Surrogate

    Notes
    -----
    With F the distribution of the cohort's slowest compute time and ``Phi(t) = int_0^t F``,
    ``E[max] = t - Phi(t)`` from the slowest device on. Without device n, F is divided by
    ``1 - q_n`` below tau_n, so all toggles ``E[(tau - max_{-n})^+]`` read off the same Phi.
    Source: own derivation.
    """
    q = problem.takes_part(probability)
    tau = problem.compute_s(rank)
    # A device that always takes part would make F vanish and its own toggle 0/0.
    absent = np.maximum(1.0 - q, _ALWAYS)
    order = np.argsort(tau, kind="stable")
    knot = np.concatenate(([0.0], tau[order]))
    below = np.cumprod(absent[order][::-1])[::-1]
    area = np.concatenate(([0.0], np.cumsum(np.diff(knot) * below)))
    slowest = knot[-1]

    def integral(t: FloatArray) -> FloatArray:
        return np.asarray(np.interp(t, knot, area) + np.maximum(t - slowest, 0.0))

    def transfer(k: ArrayLike) -> FloatArray:
        bits = problem.upload_bits(k)
        start = np.zeros_like(bits)
        upload_s = solo_finish_time(start, bits, problem.link, problem.bandwidth_hz)
        return np.asarray(problem.download_s(k) + upload_s)

    k = np.asarray(rank if candidate is None else candidate, dtype=np.float64)
    t = problem.compute_s(k)
    waiting = integral(np.minimum(t, tau)) / absent
    waiting += np.maximum(integral(t) - integral(tau), 0.0)
    mean_s = problem.overhead_s + (slowest - area[-1]) + float(q @ transfer(rank))
    return Surrogate(float(mean_s), problem.takes_part(waiting + transfer(k)))
