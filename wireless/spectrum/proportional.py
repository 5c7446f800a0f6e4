"""Proportional: the band is divided in proportion to the work of each whole transfer."""

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
class Proportional(DynamicRule):
    """Division by work among the active, anew at every event; see `wireless.spectrum.Rule`.

    The work of a transfer is w_n = B u_n / rate_n(B), its time alone in the band times the band,
    whatever has been sent of it. On linear links w_n = u_n / e_n, and transfers end in the order
    in which they began: each lasts the same on the clock of the share that a unit of work holds.
    """

    name: ClassVar[str] = "proportional"

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band by the work of the whole transfers: see `Rule.divide`."""
        _, total = unfinished(left_bits, total_bits, link, bandwidth_hz)
        solo = total / link.rate(np.full(len(total), bandwidth_hz))
        return np.asarray(bandwidth_hz * (solo / solo.sum()))

    def finish_s(self, cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
        """Share by the times alone in the band."""
        return weighted_finish(cohorts, cohorts.solo_s(bandwidth_hz), bandwidth_hz)
