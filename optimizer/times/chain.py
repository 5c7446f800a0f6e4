"""Rounds of transfers that follow one another, exactly and without each device.

Under every rule that never leaves the band idle, a cohort on linear links ends at
``max_i (tau_(i) + sum_{j >= i} s_(j))`` with its members in order of readiness and s = w/B: the
Lindley chain ``F <- max(F, tau) + s``. A device more or less touches only prefix and suffix maxima
of these values, so all toggles of a cohort cost no more than one sort. Source: own derivation.
"""

from dataclasses import dataclass

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import BoolArray

_BLOCK = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Ends of cohorts on linear links; see `optimizer.times.sampled.Ends`.

    Parameters
    ----------
    problem : Problem
        The fleet, on linear links.
    """

    problem: Problem

    def end_s(self, device: IntArray, rank: FloatArray, present: BoolArray) -> FloatArray:
        """Return when cohorts of some devices end: see `Ends.end_s`."""
        ready_s, work_s = self._transfers(device, rank)
        return _Chain(ready_s, work_s, present).end_s

    def toggles(
        self,
        device: IntArray,
        rank: FloatArray,
        candidate: FloatArray,
        present: BoolArray,
        mass: FloatArray,
        floor_s: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean ends without and with each device: see `Ends.toggles`."""
        own, other = self._transfers(device, rank), self._transfers(device, candidate)
        without_s, with_s = np.zeros(len(device)), np.zeros((len(candidate), len(device)))
        step = max(1, _BLOCK // len(device))
        for first in range(0, len(present), step):
            rows = slice(first, first + step)
            chain = _Chain(*own, present[rows])
            weight, floor = mass[rows], floor_s[rows]
            least = np.maximum(chain.without_s(), floor)
            without_s += least @ weight
            for c in range(len(candidate)):
                with_s[c] += chain.with_s(other[0][c], other[1][c], least) @ weight
        return without_s, with_s

    def _transfers(self, device: IntArray, rank: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Readiness and solo transfer times (s) of some devices at ranks (..., N), (..., n)."""
        p = self.problem
        ready_s = (p.download_s(rank) + p.compute_s(rank))[..., device]
        rate = p.link.rate(np.full(p.devices, p.bandwidth_hz))
        return ready_s, np.asarray((p.upload_bits(rank) / rate)[..., device])


class _Chain:
    """Cohorts (J, n) of n devices with readiness and solo transfer times (n,), both in s.

    Times are kept in order of readiness, devices by cohorts. Absent devices have the value 0, which
    no maximum over members falls below, and so does an empty cohort.
    """

    def __init__(self, ready_s: FloatArray, work_s: FloatArray, present: BoolArray) -> None:
        self.order = np.argsort(ready_s, kind="stable")
        self.ready_s = ready_s[self.order]
        self.place = np.empty(len(self.order), dtype=np.intp)
        self.place[self.order] = np.arange(len(self.order))
        member = present.T[self.order]
        nobody = np.zeros((1, len(present)))
        self.work_s = np.where(member, work_s[self.order, None], 0.0)
        later = np.cumsum(self.work_s[::-1], axis=0)[::-1]
        self.value = np.where(member, self.ready_s[:, None] + later, 0.0)
        # Row p: work of, and maxima over, those from place p on, and maxima over those before.
        self.later_s = np.concatenate((later, nobody))
        after = np.maximum.accumulate(self.value[::-1], axis=0)[::-1]
        self.after = np.concatenate((after, nobody))
        self.before = np.concatenate((nobody, np.maximum.accumulate(self.value, axis=0)))
        self.end_s: FloatArray = self.after[0]

    def without_s(self) -> FloatArray:
        """Return when each cohort ends without each device, (n, J) seconds."""
        end = np.maximum(self.before[:-1] - self.work_s, self.after[1:])
        return np.asarray(end[self.place])

    def with_s(self, ready_s: FloatArray, work_s: FloatArray, without_s: FloatArray) -> FloatArray:
        """Return when it ends if the device is there, ready and working as given, (n, J) s.

        Since the end is monotone, `without_s` bounds it and covers all values that the device does
        not delay.
        """
        at, own, work = np.searchsorted(self.ready_s, ready_s), self.place, work_s[:, None]
        mine = self.work_s[own]
        # Earlier than before: its old transfer counts for everybody before its new place.
        sooner = at <= own
        spared = np.where(sooner[:, None], mine, 0.0)
        joins = ready_s[:, None] + self.later_s[at] - spared
        delayed = np.maximum(joins, np.where(sooner[:, None], self.before[at] - mine, 0.0))
        # Later than before: its old transfer counts for those before its old place alone.
        later = np.flatnonzero(~sooner)
        between = self._maxima(own[later] + 1, at[later])
        prefix = np.maximum(self.before[own[later]] - mine[later], between)
        delayed[later] = np.maximum(delayed[later], prefix)
        return np.asarray(np.maximum(without_s, delayed + work))

    def _maxima(self, first: IntArray, last: IntArray) -> FloatArray:
        """Return the maxima of the values from places `first` to before `last`, (m, J)."""
        found = np.zeros((len(first), self.value.shape[1]))
        length = last - first
        level = np.frexp(np.maximum(length, 1))[1] - 1
        table = self.value
        # Two overlapping stretches of 2^l values cover any length from 2^l to 2^(l+1).
        for power in range(int(level.max(initial=-1)) + 1):
            if power:
                half = 1 << (power - 1)
                table = np.maximum(table[:-half], table[half:])
            here = np.flatnonzero((level == power) & (length > 0))
            found[here] = np.maximum(table[first[here]], table[last[here] - (1 << power)])
        return found
