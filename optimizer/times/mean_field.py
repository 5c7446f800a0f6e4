"""The round time at which devices fit into the band on average."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from optimizer.problem import Problem, in_turn
from optimizer.rounds import FloatArray
from wireless.link import Link
from wireless.spectrum import solo_finish_time


def mean_field_time(problem: Problem, rank: ArrayLike, probability: ArrayLike) -> float:
    """Mean-field round time under equal finish, overhead included.

    T solves ``sum_n c_n q_n b_n(u_n / (T - tau_n)) = B``, b_n the bandwidth that a rate needs: the
    band holds the average cohort. So T exceeds every device's tau_n, however rarely it is drawn: a
    baseline, from which plans that use stragglers now and then look as slow as their slowest. For
    fleets drawn densely it is the limit of the expected round time.

    Parameters
    ----------
    problem : Problem
        The fleet. Of several cells the slowest counts; downloads in turn wait for those before
        them on average.
    rank : array_like, shape (N,)
        Ranks k_n; real values are allowed.
    probability : array_like, shape (N,)
        Sampling probabilities q_n.

    Returns
    -------
    float
        Seconds.

    Notes
    -----
    Source: own derivation; the surrogate of theory that is a geometric program.
    """
    q, bits = problem.takes_part(probability), problem.upload_bits(rank)
    download_s = problem.download_s(rank)
    queue_s = in_turn(q * download_s, problem.cell) - q * download_s
    tau = queue_s + download_s + problem.compute_s(rank)
    ends = [
        _end_s(q[one], tau[one], bits[one], problem.link.take(one), problem.bandwidth_hz)
        for one in (problem.cell == number for number in np.unique(problem.cell))
    ]
    return problem.overhead_s + max(ends)


def _end_s(
    q: FloatArray, tau: FloatArray, bits: FloatArray, link: Link, bandwidth_hz: float
) -> float:
    def spare(time_s: float) -> float:
        # Reciprocal: finite where no band is enough, and straight for equal starts.
        with np.errstate(divide="ignore"):
            need = float(q @ link.bandwidth(bits / np.maximum(time_s - tau, 0.0)))
        return bandwidth_hz / need - 1.0

    solo_s = solo_finish_time(np.zeros_like(bits), bits, link, bandwidth_hz)
    first, last = float((tau + bits / link.limit_bps).max()), float(tau.max() + solo_s.sum())
    # A link that reaches its limit within the band may leave band over.
    return first if spare(first) >= 0 else float(brentq(spare, first, last * (1 + 1e-12)))
