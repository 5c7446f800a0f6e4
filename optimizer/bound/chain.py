"""A recursion over devices that no expected round time falls below."""

from dataclasses import dataclass

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from wireless.spectrum import equal_finish_time, solo_finish_time

_BISECTIONS = 40
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Expected finish ``e_i = e_{i-1} + p_i [(start_i - e_{i-1})^+ + work_i]``, from e_0 = 0.

    ``p_i = c_i q_i`` is the probability that the i-th device takes part. For every plan e_N is at
    most the expected round time without the overhead.

    Parameters
    ----------
    device : ndarray of int, shape (N,)
        Devices in the order of the recursion.
    start_s : ndarray, shape (C, N)
        Starts (s) at each of C ranks, devices in that order; ascending along it at any ranks.
    work_s : ndarray, shape (C, N)
        What each device then adds (s), > 0.
    """

    device: IntArray
    start_s: FloatArray
    work_s: FloatArray

    def expected_s(
        self, option: IntArray, takes_part: FloatArray, begin: int = 0, begin_s: float = 0.0
    ) -> float:
        """Evaluate e_N for one plan.

        Parameters
        ----------
        option : ndarray of int, shape (N,)
            Row of each device's rank, devices in their own order.
        takes_part : ndarray, shape (N,)
            Probabilities c_n q_n, likewise.
        begin : int
            Place in the order of the first device that counts.
        begin_s : float
            Expected finish (s) of those before it.

        Returns
        -------
        float
            Seconds.
        """
        column = np.arange(begin, len(self.device))
        row, p = option[self.device[begin:]], takes_part[self.device[begin:]]
        end_s = begin_s
        for tau, work, part in zip(
            self.start_s[row, column], self.work_s[row, column], p, strict=True
        ):
            end_s += part * (max(tau - end_s, 0.0) + work)
        return end_s


def starts(problem: Problem, ranks: IntArray) -> FloatArray:
    """When each device would be ready to send at each of some ranks (C,), first to be served.

    Parameters
    ----------
    problem : Problem
        The fleet.
    ranks : ndarray of int, shape (C,)
        Ranks.

    Returns
    -------
    ndarray, shape (C, N)
        Seconds.
    """
    k = np.broadcast_to(ranks[:, None], (len(ranks), problem.devices))
    return problem.download_s(k) + problem.compute_s(k)


def transfer_chain(problem: Problem, ranks: IntArray) -> Chain:
    """One upload after the other, each with the least of the band that it can do with.

    Parameters
    ----------
    problem : Problem
        The fleet.
    ranks : ndarray of int, shape (C,)
        Ranks that a plan may use, ascending.

    Returns
    -------
    Chain

    Notes
    -----
    A cohort that ends at T <= D leaves device j no more than ``L_j = D - tau_j`` to send. Rates
    being concave in bandwidth, it then takes ``L_j b_j(u_j / L_j)`` Hz s at least, ``w_j`` on
    linear links. Whatever the rule, all who start at tau_i or later fit into the band between
    tau_i and T, so that ``T >= F = max_i (tau_i + sum_{j >= i} work_j)`` in order of starts, which
    is ``F <- max(F, tau_i) + work_i`` over the members. If D is so late that F of the whole
    fleet at its caps is at most D, cohorts with T > D satisfy T >= F as well. F is convex and
    increasing in what it was before, which is independent of whether the next device takes part:
    by Jensen its mean obeys the recursion with means put in. The bands of several cells are pooled
    and each device waits for its own download alone, both of which only helps.

    A higher rank starts later; a start is cut off at the next device's lowest, so that the order
    does not depend on the plan. Source: own derivation.
    """
    band_hz = problem.bandwidth_hz * problem.cells
    k = np.broadcast_to(ranks[:, None], (len(ranks), problem.devices))
    start_s = starts(problem, ranks)
    device = np.argsort(start_s[0], kind="stable").astype(np.int64)
    start_s, bits = start_s[:, device], problem.upload_bits(k)[:, device]
    link, cap = problem.link.take(device), problem.rank_cap[device]
    earliest = start_s[0]
    start_s = np.minimum(start_s, np.append(earliest[1:], np.inf))

    def work_s(end_s: float, sent: FloatArray) -> FloatArray:
        left_s = np.maximum(end_s - earliest, _LEAST)
        return np.asarray(left_s * link.bandwidth(sent / left_s) / band_hz)

    most = problem.upload_bits(cap, device)
    start_at_cap = start_s[np.searchsorted(ranks, cap), np.arange(problem.devices)]

    def last_s(end_s: float) -> float:
        to_come = np.cumsum(work_s(end_s, most)[::-1])[::-1]
        return float(np.max(start_at_cap + to_come))

    # The earliest such D: below it, the fleet would not fit.
    high = float(equal_finish_time(start_at_cap, most, link, band_hz)) * (1 + 1e-9)
    while last_s(high) > high:
        high *= 1.01
    low = float(earliest[0])
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if last_s(middle) <= middle else (middle, high)
    # Ranks above a device's cap may not fit at all; no plan uses them.
    work = np.where(ranks[:, None] <= cap, work_s(high, np.minimum(bits, most)), 1.0)
    return Chain(device, start_s, work)


def solo_chain(problem: Problem, ranks: IntArray) -> Chain:
    """The slowest member, each with the whole band to itself.

    Parameters
    ----------
    problem : Problem
        The fleet.
    ranks : ndarray of int, shape (C,)
        Ranks that a plan may use, ascending.

    Returns
    -------
    Chain

    Notes
    -----
    ``T >= max_n m_n``, the time at which device n alone would end. Above the other chain on links
    of limited power where most rounds have few devices. Source: own derivation.
    """
    k = np.broadcast_to(ranks[:, None], (len(ranks), problem.devices))
    finish_s = solo_finish_time(
        starts(problem, ranks), problem.upload_bits(k), problem.link, problem.bandwidth_hz
    )
    device = np.argsort(finish_s[0], kind="stable").astype(np.int64)
    finish_s = finish_s[:, device]
    finish_s = np.minimum(finish_s, np.append(finish_s[0, 1:], np.inf))
    # The recursion divides by what a device adds; so little is not seen in its figures.
    return Chain(device, finish_s, np.full(finish_s.shape, _LEAST * finish_s.max()))
