"""As many devices as fit a deadline, the quickest first."""

from heapq import heapify, heappop, heappush

import numpy as np

from optimizer.policies.scheduled import fewest, round_s, schedule
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def fedcs(
    problem: Problem,
    seed: int,  # noqa: ARG001
    deadline_s: float | None = None,
) -> tuple[IntArray, FloatArray]:
    """Take the devices that lengthen the round least until the deadline, at the rank caps.

    Uploads are thought of as one after the other over the whole band, each from when its device is
    ready: ``Theta <- max(Theta, tau_n) + s_n``. Devices are ordered by always taking the one that
    ends Theta soonest; the longest beginning of that order is kept whose round, under the
    problem's own allocation rule and with the overhead, ends by the deadline.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: nothing is drawn.
    deadline_s : float, optional
        Longest round (s), overhead included. By default as long as it takes the first half of the
        order, at least `min_cohort` devices, and at most the problem's own deadline.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        One for the members, zero for the others.

    Raises
    ------
    ValueError
        If the deadline is too short for `min_cohort` devices, at least one.

    Notes
    -----
    Source: after arXiv 1804.08333. There the server polls a random share of the fleet in each round
    and selects among the answers; here it polls everybody, and nothing changes between rounds, so
    the cohort is one for all rounds, and whoever is not in it never counts: a biased policy. The
    order costs O(N log N).
    """
    order = quickest_first(problem)
    needed = fewest(problem)
    if deadline_s is None:
        half = round_s(problem, order[: max(needed, (len(order) + 1) // 2)])
        deadline_s = min(half, problem.deadline_s)
    least_s = round_s(problem, order[:needed])
    if not least_s <= deadline_s:
        raise ValueError(
            f"deadline_s is {deadline_s:g}: give at least {least_s:.6g}, in which the quickest "
            f"{needed} of the devices end"
        )
    low, high = needed, len(order) + 1
    while high - low > 1:
        middle = (low + high) // 2
        fits = round_s(problem, order[:middle]) <= deadline_s
        low, high = (middle, high) if fits else (low, middle)
    return schedule(problem, order[:low])


def quickest_first(problem: Problem) -> IntArray:
    """Order the devices by when they would end, each the soonest that can follow those before it.

    Parameters
    ----------
    problem : Problem
        The fleet; each of its cells has a chain of its own, and their orders are merged by end.

    Returns
    -------
    ndarray of int, shape (N,)
        Devices.
    """
    compute_s = problem.compute_s(problem.rank_cap)
    busy_s = problem.transfer_s(problem.rank_cap)
    end_s = np.empty(problem.devices)
    for number in np.unique(problem.cell):
        some = np.flatnonzero(problem.cell == number)
        end_s[some] = chain_end_s(compute_s[some], busy_s[some])
    return np.argsort(end_s, kind="stable").astype(np.int64)


def chain_end_s(start_s: FloatArray, busy_s: FloatArray) -> FloatArray:
    """End of each job on one machine that always takes the job which it would end soonest.

    Parameters
    ----------
    start_s, busy_s : ndarray, shape (M,)
        From when each job can begin, and how long it lasts (s).

    Returns
    -------
    ndarray, shape (M,)
        Seconds.
    """
    # Jobs that can begin at once end in the order of their length, the others in that of their
    # end; time only moves jobs from the second heap to the first.
    by_start = np.argsort(start_s, kind="stable")
    coming = [(start_s[n] + busy_s[n], n) for n in by_start]
    heapify(coming)
    waiting: list[tuple[float, int]] = []
    begun = np.zeros(len(start_s), dtype=np.bool_)
    end_s, now_s, arrived = np.empty(len(start_s)), -np.inf, 0
    for _ in range(len(start_s)):
        while arrived < len(by_start) and start_s[by_start[arrived]] <= now_s:
            n = by_start[arrived]
            heappush(waiting, (busy_s[n], n))
            arrived += 1
        while waiting and begun[waiting[0][1]]:
            heappop(waiting)
        while coming and (begun[coming[0][1]] or start_s[coming[0][1]] <= now_s):
            heappop(coming)
        at_once = now_s + waiting[0][0] if waiting else np.inf
        later, next_one = coming[0] if coming else (np.inf, -1)
        now_s, n = (at_once, heappop(waiting)[1]) if at_once <= later else (later, next_one)
        begun[n] = True
        end_s[n] = now_s
    return end_s
