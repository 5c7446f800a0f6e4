"""Attempts under way, in the order in which they end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from sim.uplink.base import FloatArray, Transfer
from wireless.link import Link

#: Remainders that take less than this part of the time since the attempt began are roundings.
TIE = 1e-11
#: And those that take less than so many of the smallest steps of the clock.
STEPS = 4
#: Whole numbers of this unit stand for bands and weights: their sums are exact, whoever goes.
UNIT = 2.0**-200


def is_rounding(ahead_s: float, now_s: float, begin_s: float) -> bool:
    """Whether what would end so many seconds ahead has ended but for a rounding.

    Attempts that are meant to end together are set apart by roundings. With some slack they do end
    together, and none leaves a remainder that the clock cannot show.
    """
    if ahead_s <= 0:
        return True
    if ahead_s > TIE * now_s:  # most are
        return False
    return ahead_s <= max(TIE * (now_s - begin_s), STEPS * math.ulp(now_s))


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt(Transfer):
    """A transfer whose attempts are numbered.

    Parameters
    ----------
    number
        Of the attempt under way, from 1 in the order of the starts; 0 if there is none.
    goal_bits, budget_s
        What ends it: so many bits, or seconds at full power.
    runs_dry
        Whether it will be the latter, as far as is known.
    """

    number: int = 0
    goal_bits: float = 0.0
    budget_s: float = math.inf
    runs_dry: bool = False


@dataclass(slots=True, eq=False, kw_only=True)
class SteadyAttempt(Attempt):
    """A transfer whose attempts hold one constant band from begin to end.

    Parameters
    ----------
    band_hz, rate_bps, power_share
        The band, the rate over it, and the share of full power that it takes.
    lasts_s
        How long the attempt lasts if nobody stops it.
    """

    band_hz: float
    rate_bps: float
    power_share: float
    lasts_s: float = 0.0

    def aim(self, number: int, bits: float, power_s: float) -> None:
        """Note what ends a new attempt."""
        self.number, self.goal_bits, self.budget_s = number, bits, power_s
        lasts, longest = bits / self.rate_bps, power_s / self.power_share
        self.runs_dry = longest < lasts
        self.lasts_s = longest if longest < lasts else lasts

    def close(self, now_s: float, ended: bool) -> None:
        """Count what the attempt has taken, which is over now, by itself or not."""
        assert self.begin_s is not None
        lasted = now_s - self.begin_s
        self.number = 0
        self.used_hz_s = self.band_hz * lasted
        if ended and not self.runs_dry:
            self.sent_bits = self.goal_bits
        else:
            self.sent_bits = min(self.rate_bps * lasted, self.goal_bits)
        if ended and self.runs_dry:
            self.power_s = self.budget_s
        else:
            power_s = self.power_share * lasted
            self.power_s = power_s if power_s < self.budget_s else self.budget_s
        if not (ended or lasted):
            self.begin_s = None


def steady(bits: FloatArray, band_hz: FloatArray, link: Link) -> list[Transfer]:
    """Transfers of given payloads over given bands, all (M,)."""
    held = zip(
        bits.tolist(),
        band_hz.tolist(),
        link.rate(band_hz).tolist(),
        link.power_share(band_hz).tolist(),
        strict=True,
    )
    return [
        SteadyAttempt(payload, band_hz=hz, rate_bps=bps, power_share=share)
        for payload, hz, bps, share in held
    ]


_A = TypeVar("_A", bound=Attempt)


class Queue(Generic[_A]):
    """Attempts by a key, least first; equal keys in the order of the starts.

    An attempt leaves when its number changes; its entry is dropped when it comes to the front, or
    when more than half of the entries are such.
    """

    __slots__ = ("_heap", "_limit")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _A]] = []
        self._limit = 64

    def push(self, key: float, attempt: _A) -> None:
        """Enter an attempt under way."""
        heap = self._heap
        if len(heap) >= self._limit:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].number]
            heapify(heap)
            self._limit = max(64, 2 * len(heap))
        heappush(heap, (key, attempt.number, attempt))

    def first(self) -> tuple[float, int, _A] | None:
        """The least key with its attempt's number and the attempt; None if there is none."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if entry[1] == entry[2].number:
                return entry
            heappop(heap)
        return None

    def __iter__(self) -> Iterator[_A]:
        """The attempts under way, in no order."""
        return (attempt for _, number, attempt in self._heap if number == attempt.number)

    def scale(self, factor: float) -> None:
        """Multiply all keys by a positive number."""
        self._heap[:] = [(factor * key, number, each) for key, number, each in self._heap]

    def clear(self) -> None:
        """Forget everybody."""
        self._heap.clear()
