"""An upper bound of the round time that one sort evaluates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.times.base import Toggles

_ALWAYS = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Upper bound of the expected round time, O(C N log N); see `optimizer.times.base.TimeModel`.

    ``U = T_oh + E[max_n tau_n] + sum_n q_n w_n / B``: the cohort waits for its slowest member and
    then uploads one after the other over the full band, w_n / B the solo transfer time. It is
    multilinear in q, exact for one device, and close on links whose rate is proportional to
    bandwidth. Downloads in turn are added up like uploads, and so are cells, as if they shared one
    band.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Notes
    -----
    With F the distribution of the cohort's slowest compute time and ``Phi(t) = int_0^t F``,
    ``E[max] = t - Phi(t)`` from the slowest device on. Without device n, F is divided by
    ``1 - q_n`` below tau_n, so all toggles ``E[(tau - max_{-n})^+]`` read off the same Phi.
    Source: own derivation.
    """

    problem: Problem

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the bound: see `TimeModel.mean_s`."""
        k = np.asarray(rank, dtype=np.float64)
        return self.toggles(k, probability, k[None, :][:0]).mean_s

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the bound along each device: see `TimeModel.toggles`."""
        p = self.problem
        q, tau, moved_s = p.takes_part(probability), p.compute_s(rank), p.transfer_s(rank)
        # A device that always takes part would make F vanish and its own toggle 0/0.
        absent = np.maximum(1.0 - q, _ALWAYS)
        order = np.argsort(tau, kind="stable")
        knot = np.concatenate(([0.0], tau[order]))
        below = np.cumprod(absent[order][::-1])[::-1]
        area = np.concatenate(([0.0], np.cumsum(np.diff(knot) * below)))
        slowest = knot[-1]

        # Phi at each device's own compute time, which is a knot.
        own = np.empty_like(tau)
        own[order] = area[1:]
        mean_s = p.overhead_s + float(slowest - area[-1] + q @ moved_s)
        without_s = mean_s - q * (own / absent + moved_s)

        k = np.asarray(candidate, dtype=np.float64)
        t = p.compute_s(k)
        integral = np.interp(t, knot, area) + np.maximum(t - slowest, 0.0)
        waiting = np.minimum(integral, own) / absent + np.maximum(integral - own, 0.0)
        return Toggles(mean_s, without_s, p.takes_part(waiting + p.transfer_s(k)))
