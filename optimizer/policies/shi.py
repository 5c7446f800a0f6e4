"""The set of devices that trades rounds for round time best."""

import numpy as np
from scipy.optimize import brentq

from optimizer.policies.scheduled import fewest, round_s, schedule
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray

_BLOCK = 100


def shi(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:  # noqa: ARG001
    """Schedule a fixed set, grown by the least latency and cut where the time to target is least.

    The set S starts empty; the device is added with which the band, divided so that all end
    together, lets S end soonest: ``sum_{n in S} b_n(u_n / (T - tau_n)) = B``. Of the sets passed on
    the way, from `min_cohort` devices on, the one is kept with the least
    ``R(k, q = a(S)) (T_oh + T(S))``, where every probability of the round model is the share
    ``a(S) = sum_{n in S} a_n`` of the data that a round sees and T is that of the problem's rule.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: nothing is drawn.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        One for the members, zero for the others.

    Notes
    -----
    Source: after arXiv 2007.07174, which schedules anew as channels change and stops at the first
    rise of its convergence bound. The bound's place is taken here by the problem's round model,
    with the share of data as if every device were scheduled that often (own derivation); the whole
    path is looked at, so that no first bump ends it. Channels do not change here: the set is the
    same in all rounds, and the policy is biased. Beyond 100 members, one in a hundred more are
    added at a time.
    """
    order, sizes = _by_latency(problem)
    best_s, best = np.inf, order
    for size in sizes:
        members = order[:size]
        share = min(float(problem.weight[members].sum()), 1.0)
        if size < fewest(problem) or share <= 0:
            continue
        seen = np.full(problem.devices, share)
        value_s = problem.rounds_of(problem.rank_cap, seen) * round_s(problem, members)
        if value_s < best_s:
            best_s, best = value_s, members
    return schedule(problem, best)


def _by_latency(problem: Problem) -> tuple[IntArray, list[int]]:
    """Order of the devices (N,) in which they are added, and the sizes of the sets passed."""
    cap, link, cells = problem.rank_cap, problem.link, problem.cell
    number = np.unique(cells, return_inverse=True)[1]
    ready_s = problem.download_s(cap) + problem.compute_s(cap)
    bits = problem.upload_bits(cap)
    left = np.arange(problem.devices)
    members = np.empty(0, dtype=np.int64)
    sizes: list[int] = []

    def need_hz(device: IntArray, time_s: float) -> FloatArray:
        window_s = np.maximum(time_s - ready_s[device], 0.0)
        with np.errstate(divide="ignore"):
            return np.asarray(link.take(device).bandwidth(bits[device] / window_s))

    def total_hz(time_s: float) -> FloatArray:
        """Return what each remaining device would need together with its cell's members."""
        held = np.bincount(number[members], need_hz(members, time_s), minlength=problem.cells)
        return np.asarray(need_hz(left, time_s) + held[number[left]])

    def spare(time_s: float) -> float:
        return problem.bandwidth_hz / float(total_hz(time_s).min()) - 1.0

    time_s = 0.0
    while len(left):
        low, high = time_s, max(2 * time_s, 1.0)
        while spare(high) < 0:
            low, high = high, 2 * high
        time_s = float(brentq(spare, low, high, xtol=1e-300, rtol=1e-12)) if spare(low) < 0 else low
        together = max(1, len(members) // _BLOCK)
        wanted = np.argsort(total_hz(time_s), kind="stable")[:together]
        members = np.concatenate([members, left[wanted]])
        left = np.delete(left, wanted)
        sizes.append(len(members))
    return members, sizes
