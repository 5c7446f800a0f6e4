"""Over-the-air aggregation: everybody at once over the whole band, once the last is ready."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import Link
from wireless.spectrum.cohorts import Cohorts, batch_time
from wireless.spectrum.events import timeline
from wireless.spectrum.rule import FloatArray, Transfers, Whole, check_band, one_cohort


@dataclass(frozen=True, slots=True)
class OverTheAir:
    """The whole band for all at once, as their signals add up; see `wireless.spectrum.Rule`.

    Bits and links are the same for all, so that all end together. No choice of scenarios: it goes
    with analog uplinks, and digital ones would only disturb each other.
    """

    name: ClassVar[str] = "over-the-air"
    reserves: ClassVar[bool] = True

    def divide(
        self,
        left_bits: ArrayLike,  # noqa: ARG002
        total_bits: ArrayLike,  # noqa: ARG002
        link: Link,
        bandwidth_hz: float,
    ) -> FloatArray:
        """Give each the whole band, which all use as one."""
        check_band(bandwidth_hz)
        return np.full(len(link), bandwidth_hz)

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
        return batch_time(_finish, start_s, bits, link, bandwidth_hz, present, cell)

    def transfers(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        whole: Whole | None = None,  # noqa: ARG002
    ) -> Transfers:
        """Follow one cohort's transfers: see `Rule.transfers`.

        `in_use_hz` counts the band once for each sender.
        """
        start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
        sends = sent > 0
        band = np.where(sends, bandwidth_hz, 0.0)
        begin = np.where(sends, start.max(initial=0.0, where=sends), start)
        lasts = np.zeros_like(start)
        lasts[sends] = sent[sends] / link.take(sends).rate(band[sends])
        return timeline(begin, begin + lasts, band, link)


def _finish(cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
    """Return when each group ends, (R,) seconds after its earliest start."""
    last, longest = (
        np.maximum.reduceat(each, cohorts.first)
        for each in (cohorts.start_s, cohorts.solo_s(bandwidth_hz))
    )
    return np.asarray(last + longest)
