"""Time division: one device at a time over the whole band, first ready first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import Link
from wireless.spectrum.cohorts import batch_time, serial_finish
from wireless.spectrum.events import timeline
from wireless.spectrum.rule import FloatArray, Transfers, Whole, one_cohort, unfinished


@dataclass(frozen=True, slots=True)
class TimeDivision:
    """The whole band for one device at a time, first ready first; see `wireless.spectrum.Rule`.

    Devices that are ready at the same moment go in the order of the array.
    """

    name: ClassVar[str] = "time-division"
    reserves: ClassVar[bool] = False

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Give the band to the first: see `Rule.divide`."""
        left, _ = unfinished(left_bits, total_bits, link, bandwidth_hz)
        band = np.zeros(len(left))
        band[:1] = bandwidth_hz
        return band

    def round_time(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        present: ArrayLike | None = None,
        cell: ArrayLike | None = None,
    ) -> FloatArray:
        """Return when each cohort ends: see `Rule.round_time`."""
        return batch_time(serial_finish, start_s, bits, link, bandwidth_hz, present, cell)

    def transfers(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        whole: Whole | None = None,
    ) -> Transfers:
        """Follow one cohort's transfers: see `Rule.transfers`.

        The queue in closed form: transfer i ends at S_i + max over j <= i of (tau_j - S_{j-1}),
        S_i the sum of the first i times alone in the band.
        """
        start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
        width = bandwidth_hz
        if whole is not None:
            width = float(whole(np.array([bandwidth_hz]), bandwidth_hz)[0])
            if not width > 0:
                raise ValueError("whole must leave band to at least one of the devices that send")
        senders = np.flatnonzero(sent > 0)
        order = senders[np.argsort(start[senders], kind="stable")]
        ready, origin = start[order], start[order[:1]]
        solo = sent[order] / link.take(order).rate(np.full(len(order), width))
        sums = np.cumsum(solo)
        idle = np.maximum.accumulate(ready - origin - np.append(0.0, sums[:-1])[: len(order)])
        end = np.maximum(origin + (idle + sums), ready)
        begin, finish, band = start.copy(), start.copy(), np.zeros_like(start)
        begin[order] = np.maximum(ready, np.append(-np.inf, end[:-1])[: len(order)])
        finish[order] = end
        band[order] = width
        return timeline(begin, finish, band, link)
