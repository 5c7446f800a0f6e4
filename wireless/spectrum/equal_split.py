"""Equal split: the band is divided evenly among the devices that are sending."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import Link
from wireless.spectrum.cohorts import Cohorts
from wireless.spectrum.dynamic import DynamicRule
from wireless.spectrum.rule import FloatArray, unfinished
from wireless.spectrum.sharing import weighted_finish


@dataclass(frozen=True, slots=True)
class EqualSplit(DynamicRule):
    """Even division among the active, anew at every event; see `wireless.spectrum.Rule`.

    Also known as egalitarian processor sharing.
    """

    name: ClassVar[str] = "equal-split"

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band evenly: see `Rule.divide`."""
        left, _ = unfinished(left_bits, total_bits, link, bandwidth_hz)
        return np.full(len(left), bandwidth_hz / max(len(left), 1))

    def finish_s(self, cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
        """Share by equal weights."""
        return weighted_finish(cohorts, np.ones(len(cohorts.bits)), bandwidth_hz)
