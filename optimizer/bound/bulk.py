"""An expected round time of the early devices that knows how the band is shared."""

import heapq
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from optimizer.bound.chain import Chain
from optimizer.bound.programme import Charge, cautious, fewer, value_from
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from wireless.spectrum import RULES, solo_finish_time

#: What is chosen among to begin with: the part of the chain that makes the bulk, the time around
#: which links are linearised in expected round times of the known plan, and the share of the band
#: with which every device has to finish by then, or else as soon as it can.
_PARTS = (0.9, 0.4, 0.6, 0.7, 0.8, 0.85, 0.95, 1.0)
_AROUND = (1.2, 0.85, 1.0, 1.5, 2.0, 3.0)
_SHARES = (0.3, 0.1, 1.0)

#: Pieces of a value function to each interval of the pull that is divided, and the ratio of ends at
#: which one is narrow enough.
_PIECES, _NARROW = 5, 1.01

#: Ends of the first intervals, relative to the known plan's pull.
_FIRST = np.array([1 / 16, 1 / 4, 1 / 2, 1 / 1.4, 1 / 1.1, 1 / 1.01, 1.01, 1.1, 1.4, 2, 4, 16])

#: Prices that are looked at in one interval, choices of r and tangents, and what one has to gain.
_ANSWERS, _UPDATES, _GAIN = 10, 3, 1e-4

#: Pieces of the value function of what follows while the bulk is chosen.
_NODES = 80

#: Slopes of lines below the cost of what follows.
_SLOPES = 65

_BELOW, _LEAST, _TINY = 1 - 1e-9, 1e-9, 1e-300


class Line(NamedTuple):
    """Terms ``fixed + per_part p`` of a round time at each of C ranks, seconds, both (C, n)."""

    fixed: FloatArray
    per_part: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Bulk:
    """Round time of the cohort's members among n devices, bounded from below in the mean.

    With the expected pull ``Z = sum_n p_n pull_n`` and ``Z_n = Z + (1 - p_n) pull_n``,
    ``E[T] >= sum_n p_n [start_n pull_n / Z_n + need_n / (1 + Z_n) + 2 r sent_n
    - r^2 (pull_n + Z_n flat_n)]`` for every plan and every r.

    Parameters
    ----------
    device : ndarray of int, shape (n,)
        Devices.
    pull : ndarray, shape (C, n)
        How much each device at each of C ranks has to say about the round time, > 0.
    start_s, need_s : ndarray, shape (C, n)
        Starts and time on the whole band (s).
    sent, flat : ndarray, shape (C, n)
        Transfers (s per second of r) and shares of the band, >= 0.

    Notes
    -----
    Bandwidth b_n is convex in the rate, so that device n's share of the band at rate u_n / L is at
    least ``w_n / L - f_n``, by a tangent at some L_n.

    *A band that is divided once* (equal finish): ``sum w_n / (T - tau_n) <= 1 + f`` over the
    members, f their sum of f_n. By the inequality of Cauchy and Schwarz
    ``(sum w_n y_n)^2 <= (1 + f) sum w_n y_n^2 (T - tau_n)`` for any y_n, and with
    ``pull_n = w_n y_n^2`` of sum z over the members
    ``T >= sum pull_n tau_n / z + (sum w_n y_n)^2 / (z (1 + f))``. The square over the product is no
    less than ``2 r sum w_n y_n - r^2 z (1 + f)``; the mean of z f is known since members are
    independent. So is that of ``pull_n / z``, n being a member, at least
    ``pull_n / (pull_n + sum_{m != n} p_m pull_m)`` by Jensen's inequality. With ``y_n = 1 / L_n``
    it is exact where all finish at ``tau_n + L_n``.

    *Any rule*: the least band time ``L b_n(u_n / L)`` is convex in L, so that
    ``T - s >= sum_n (g_n - f_n (T - tau_n - L_n))`` with g_n its value at L_n and s the earliest
    start of all: ``T - s >= sum need_n / (1 + z)`` with ``need_n = g_n + f_n (L_n + tau_n - s)``
    and pull_n = f_n. The start itself is paid by any cohort but the empty one, and so is its mean
    over the members with weights pull_n.

    Bands of several cells are pooled, and devices wait for their own downloads alone, which only
    helps. Source: own derivation.
    """

    device: IntArray
    pull: FloatArray
    start_s: FloatArray
    need_s: FloatArray
    sent: FloatArray
    flat: FloatArray

    def line(self, most: float, scale: float, part: FloatArray) -> Line:
        """Bound that is linear in p, for all plans whose pull is at most some figure.

        Parameters
        ----------
        most : float
            Highest expected pull Z.
        scale : float
            The r of the class.
        part : ndarray, shape (n,)
            Probabilities of taking part at which the bound, convex in p, is met by its tangent.

        Returns
        -------
        Line
        """
        absent, pull = (1 - part) * self.pull, self.pull
        fixed, per_part = np.zeros(pull.shape), np.zeros(pull.shape)
        for top, base in ((self.start_s * pull, 0.0), (self.need_s, 1.0)):
            bottom = base + most + absent
            per_part += top * (base + most + pull) / bottom**2
            fixed -= top * pull * (part / bottom) ** 2
        per_part += 2 * scale * self.sent
        per_part -= scale**2 * (pull + (most + (1 - 2 * part) * pull) * self.flat)
        fixed -= scale**2 * pull * self.flat * part**2
        return Line(fixed, per_part)

    def scale(self, option: IntArray, part: FloatArray, most: float) -> float:
        """Best r of the class for one plan, rows of ranks and probabilities (n,), at a Z."""
        n = np.arange(len(part))
        pull, sent, flat = (one[option, n] for one in (self.pull, self.sent, self.flat))
        spread = np.sum(part * (pull + (most + (1 - part) * pull) * flat))
        return float(np.sum(part * sent) / spread)

    def expected_s(self, option: IntArray, part: FloatArray) -> float:
        """Bound of the expected round time of one plan, rows and probabilities (n,)."""
        n = np.arange(len(part))
        total = float(np.sum(part * self.pull[option, n]))
        line = self.line(total, self.scale(option, part, total), part)
        return float(np.sum(line.fixed[option, n] + line.per_part[option, n] * part))


@dataclass(frozen=True, slots=True, eq=False)
class Parted:
    """A chain that takes over where the bulk of its first devices has finished.

    Parameters
    ----------
    bulk : Bulk
        The first devices of the chain.
    chain : Chain
        The chain, of which the devices that follow count.
    """

    bulk: Bulk
    chain: Chain

    @staticmethod
    def build(
        problem: Problem,
        ranks: IntArray,
        chain: Chain,
        start_s: FloatArray,
        charge: Charge,
        option: IntArray,
        takes_part: FloatArray,
    ) -> "Parted":
        """Cut a chain and linearise links where this gives the highest of lower bounds.

        Parameters
        ----------
        problem : Problem
            The fleet.
        ranks : ndarray of int, shape (C,)
            Ranks that a plan may use, ascending.
        chain : Chain
            The chain.
        start_s : ndarray, shape (C, N)
            Starts (s) that the devices of the chain, in its order, do not precede.
        charge : Charge
            Seconds that plans are charged.
        option : ndarray of int, shape (N,)
            Rows of the known plan's ranks.
        takes_part : ndarray, shape (N,)
            Its probabilities c_n q_n.

        Returns
        -------
        Parted
        """
        whole_s = chain.expected_s(option, takes_part)
        spared_s = charge.of(option, takes_part) - charge.lowest

        def made(cut: float, around: float, share: float) -> Parted:
            device, start = chain.device[: int(cut)], start_s[:, : int(cut)]
            return Parted(linearised(problem, ranks, device, start, around * whole_s, share), chain)

        def bound_s(choice: tuple[float, ...]) -> float:
            one = made(*choice)
            highest_s = one.expected_s(option, takes_part) + spared_s
            return one.least_cost(charge, option, takes_part, highest_s, _NODES)

        # One after the other, twice: what is best of one depends little on the others.
        cuts = np.maximum(1, np.rint(np.multiply(_PARTS, problem.devices)))
        values = (tuple(cuts), _AROUND, _SHARES)
        best: tuple[float, ...] = tuple(first for first, *_ in values)
        found = {best: bound_s(best)}
        for place in (0, 1, 2, 0, 1, 2):
            for value in values[place]:
                choice = (*best[:place], value, *best[place + 1 :])
                if choice not in found:
                    found[choice] = bound_s(choice)
            best = max(found, key=lambda one: found[one])
        return made(*best)

    def expected_s(self, option: IntArray, takes_part: FloatArray) -> float:
        """Bound of the expected round time of one plan, rows and probabilities (N,)."""
        early = self.bulk.device
        begin_s = self.bulk.expected_s(option[early], takes_part[early])
        return self.chain.expected_s(option, takes_part, len(early), begin_s)

    def least_cost(
        self,
        charge: Charge,
        option: IntArray,
        takes_part: FloatArray,
        highest_s: float,
        nodes: int,
    ) -> float:
        """Lower bound of the charge and the expected round time over all plans.

        Parameters
        ----------
        charge : Charge
            Seconds that plans are charged, with devices in their own order.
        option : ndarray of int, shape (N,)
            Rows of the known plan's ranks.
        takes_part : ndarray, shape (N,)
            Its probabilities.
        highest_s : float
            Highest expected finish (s) of the bulk that is told apart.
        nodes : int
            Number of pieces of the value function of what follows.

        Returns
        -------
        float
            Seconds.

        Notes
        -----
        The cost of what follows a bulk that ends at e ascends no steeper than e, and lies above a
        line of slope g: g is paid for each second of the bulk, and devices of the bulk answer one
        by one. A bulk that ends later than all that is told apart pays at least its least charge.
        """
        early = self.bulk.device
        ends_s = self.bulk.expected_s(option[early], takes_part[early])
        known = _Answers(self.bulk, charge, option[early], takes_part[early])
        after = [
            value_from(self.chain, charge, highest_s, pieces, len(early))
            for pieces in (nodes, fewer(nodes))
        ]
        slopes = np.linspace(0.0, 1.0, _SLOPES)
        lines = slopes * ends_s + _above(after[0], slopes, highest_s)
        slope = slopes[np.argmax(lines)]
        near = known.least_cost(float(slope), nodes // _PIECES)
        late = charge.lowest_of(early)
        fine, rough = (
            min(near + float(_above(value, slope, highest_s)[0]), late + float(value[-1]))
            for value in after
        )
        return cautious(fine, rough) + charge.constant


def linearised(
    problem: Problem,
    ranks: IntArray,
    device: IntArray,
    start_s: FloatArray,
    around_s: float,
    share: float,
) -> Bulk:
    """Take some devices together, links linearised where transfers end at a time.

    Parameters
    ----------
    problem : Problem
        The fleet.
    ranks : ndarray of int, shape (C,)
        Ranks that a plan may use, ascending.
    device : ndarray of int, shape (n,)
        Devices.
    start_s : ndarray, shape (C, n)
        Starts (s) that they do not precede.
    around_s : float
        The time (s).
    share : float
        Part of the band, in (0, 1], with which a device that cannot end by then ends as soon as it
        can.

    Returns
    -------
    Bulk
    """
    link, band_hz = problem.link.take(device), problem.bandwidth_hz * problem.cells
    bits = np.stack([problem.upload_bits(np.full(problem.devices, k))[device] for k in ranks])
    soon_s = solo_finish_time(start_s, bits, link, share * problem.bandwidth_hz)
    # Just below a rate that the band can reach at most, where the slope may be infinite.
    rate = bits / (np.maximum(around_s, soon_s) - start_s) * _BELOW
    left_s = bits / rate
    held_hz, slope = link.bandwidth_and_slope(rate)
    effective_s, flat = slope * bits / band_hz, np.maximum(slope * rate - held_hz, 0.0) / band_hz
    nothing = np.zeros(bits.shape)
    if RULES[problem.allocation].reserves:
        sent = effective_s / left_s
        return Bulk(device, sent / left_s, start_s, nothing, sent, flat)
    first_s = float(start_s.min())
    need_s = held_hz * left_s / band_hz + flat * (left_s + start_s - first_s)
    first = np.full(bits.shape, first_s)
    # More pull than there is lowers the bound, but some weight is needed for the start.
    return Bulk(device, np.maximum(flat, _LEAST), first, need_s, nothing, nothing)


def _above(value: FloatArray, slope: FloatArray, highest_s: float) -> FloatArray:
    """How far lines of some slopes (S,) may be raised below a function at equal steps, (S,)."""
    at = np.linspace(0.0, highest_s, len(value))
    return np.asarray(np.min(value - np.multiply.outer(slope, at).reshape(-1, len(at)), axis=1))


class _Answers:
    """Least charge of the devices of a bulk and the time that they take, each for itself."""

    def __init__(
        self, bulk: Bulk, charge: Charge, option: IntArray, takes_part: FloatArray
    ) -> None:
        device = bulk.device
        self.bulk, self.option, self.part = bulk, option, takes_part
        self.noise, self.fixed = charge.noise[:, device], charge.fixed[:, device]
        self.reward = charge.reward[device]
        self.least, self.most = charge.least[device], charge.most[device]
        self.held = np.isfinite(self.noise)
        self.column = np.arange(len(device))

    def least_cost(self, slope: float, divisions: int) -> float:
        """Lower bound (s) of the charge and `slope` times the bulk's time over all plans.

        The pull is not known; intervals of it are bounded one by one and the lowest is divided.
        """
        pull = np.where(self.held, self.bulk.pull, np.inf)
        low = float(np.sum(self.least * pull.min(axis=0)))
        high = float(np.sum(self.most * np.where(self.held, self.bulk.pull, 0.0).max(axis=0)))
        known = self._pull(self.option, self.part)
        ends = [low, *(known * _FIRST)[(known * _FIRST > low) & (known * _FIRST < high)], high]
        heap = [(self._between(slope, a, b), a, b) for a, b in itertools.pairwise(ends)]
        heapq.heapify(heap)
        for _ in range(divisions):
            bound, low, high = heap[0]
            if high <= _NARROW * low:
                break
            middle = float(np.sqrt(low * high))
            heapq.heapreplace(heap, (max(bound, self._between(slope, low, middle)), low, middle))
            heapq.heappush(heap, (max(bound, self._between(slope, middle, high)), middle, high))
        return heap[0][0]

    def _pull(self, option: IntArray, part: FloatArray) -> float:
        return float(np.sum(part * self.bulk.pull[option, self.column]))

    def _between(self, slope: float, low: float, high: float) -> float:
        """Lower bound (s) over plans whose expected pull lies in an interval.

        A price of the pull keeps the answers there; r and the tangents are those of answers.
        """
        near = np.sqrt(low * high) / self._pull(self.option, self.part)
        option, part = self.option, np.clip(near * self.part, self.least, self.most)
        best, price = -np.inf, 0.0
        step = slope * self.bulk.expected_s(option, part) / high
        for _ in range(_UPDATES):
            line = self.bulk.line(high, self.bulk.scale(option, part, high), part)
            too_low, too_high, before = -np.inf, np.inf, best
            for _ in range(_ANSWERS):
                cost, option, part = self._answer(slope, line, price)
                best = max(best, cost + price * (low if price > 0 else high))
                pull = self._pull(option, part)
                if low <= pull <= high:
                    break
                too_low, too_high = (price, too_high) if pull < low else (too_low, price)
                if np.isinf(too_low) or np.isinf(too_high):
                    price += step if pull < low else -step
                    step *= 4
                else:
                    price = (too_low + too_high) / 2
            step = max(abs(price) / 8, 1e-3 * step)
            if best - before <= _GAIN * abs(best):
                break
        return best

    def _answer(self, slope: float, line: Line, price: float) -> tuple[float, IntArray, FloatArray]:
        """Least charge and time, less the price of the pull; ranks and probabilities (n,)."""
        pays = slope * line.per_part - price * self.bulk.pull - self.reward
        with np.errstate(divide="ignore"):
            part = np.where(pays > 0, np.sqrt(self.noise / np.maximum(pays, _TINY)), self.most)
        part = np.clip(part, self.least, self.most)
        cost = self.noise / part + self.fixed + slope * line.fixed + pays * part
        option = np.argmin(cost, axis=0)
        return float(cost[option, self.column].sum()), option, part[option, self.column]
