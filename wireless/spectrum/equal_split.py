"""Equal split: the band is divided evenly among the devices that are sending."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import Link
from wireless.spectrum.cohorts import Cohorts, batch_time
from wireless.spectrum.events import simulate
from wireless.spectrum.rule import FloatArray, Transfers, Whole, one_cohort, unfinished
from wireless.spectrum.sharing import weighted_finish


@dataclass(frozen=True, slots=True)
class EqualSplit:
    """Even division among the active, anew at every event; see `wireless.spectrum.Rule`.

    Also known as egalitarian processor sharing.
    """

    name: ClassVar[str] = "equal-split"
    reserves: ClassVar[bool] = False

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band evenly: see `Rule.divide`."""
        left, _ = unfinished(left_bits, total_bits, link, bandwidth_hz)
        return np.full(len(left), bandwidth_hz / max(len(left), 1))

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
        whole: Whole | None = None,
    ) -> Transfers:
        """Follow one cohort's transfers: see `Rule.transfers`."""
        start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
        return simulate(self.divide, start, sent, link, bandwidth_hz, whole)


def _finish(cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
    """Share by equal weights."""
    return weighted_finish(cohorts, np.ones(len(cohorts.bits)), bandwidth_hz)
