"""What rules have in common that divide the band anew at every event."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

from numpy.typing import ArrayLike

from wireless.link import Link, straightened
from wireless.spectrum.cohorts import Cohorts, batch_time
from wireless.spectrum.events import simulate
from wireless.spectrum.rule import FloatArray, Transfers, Whole, one_cohort


class DynamicRule(ABC):
    """A `wireless.spectrum.Rule` that says how to divide, and when a batch of cohorts ends."""

    __slots__ = ()

    reserves: ClassVar[bool] = False

    @abstractmethod
    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band among the active devices: see `Rule.divide`."""

    @abstractmethod
    def finish_s(self, cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
        """Return when each of R groups ends, in seconds after its earliest start, shape (R,)."""

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
        return batch_time(self._finish_s, start_s, bits, link, bandwidth_hz, present, cell)

    def _finish_s(self, cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
        """See `finish_s`; on linear links there are closed forms."""
        link = straightened(cohorts.link, bandwidth_hz)
        return self.finish_s(replace(cohorts, link=link), bandwidth_hz)

    def transfers(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        whole: Whole | None = None,
    ) -> Transfers:
        """Follow one cohort's transfers: see `Rule.transfers`."""
        start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
        return simulate(self.divide, start, sent, link, bandwidth_hz, whole)
