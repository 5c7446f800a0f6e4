"""The quickest uplink that is right."""

from __future__ import annotations

import numpy as np

from sim.clock import Clock
from sim.uplink.analog import AnalogUplink
from sim.uplink.base import OnChange, OnEnd, OnPiece, Uplink
from sim.uplink.divided import DividedUplink
from sim.uplink.reserved import ReservedUplink
from sim.uplink.serial import SerialUplink
from sim.uplink.shared import SharedUplink
from wireless.link import Link, linear_efficiency, linear_power
from wireless.spectrum import (
    EqualSplit,
    OverTheAir,
    Proportional,
    Rule,
    TimeDivision,
    Whole,
    WorkConserving,
)


def make_uplink(
    rule: Rule,
    whole: Whole | None,
    fleet_link: Link | None,
    reallocation_s: float,
    clock: Clock,
    band_hz: float,
    on_end: OnEnd,
    on_change: OnChange,
    on_piece: OnPiece | None = None,
    *,
    constant: bool,
) -> Uplink:
    """The quickest uplink that is right; which one changes results by roundings alone.

    ============== =========================================================================
    uplink         taken when band and links are constant, and
    ============== =========================================================================
    AnalogUplink   the rule is over-the-air
    ReservedUplink the rule reserves
    SerialUplink   the rule is time division, without a least time between divisions
    SharedUplink   the rule is equal split, proportional or work-conserving, every link of the
                   fleet is linear over the whole band, at full power or at power in proportion to
                   the band, and the band is divided freely, without a least time between
    DividedUplink  in all other cases
    ============== =========================================================================

    Parameters
    ----------
    rule, whole
        How the band is divided, and rounded to whole resource blocks if it is.
    fleet_link
        Links of all who may ever send over this band, out of which all that `prepare` is given are
        taken; None if they are not known or not constant.
    reallocation_s
        Least time between two divisions of the band.
    clock, band_hz, on_end, on_change, on_piece
        As of `Uplink`.
    constant
        Whether the band stays and every transfer keeps its link, so that nobody needs
        `DividedUplink.set_band` and `DividedUplink.relink`.
    """
    rest = (clock, band_hz, on_end, on_change, on_piece)
    at_once = reallocation_s == 0
    if isinstance(rule, OverTheAir):
        return AnalogUplink(*rest)
    if constant and rule.reserves:
        return ReservedUplink(*rest)
    if constant and at_once and isinstance(rule, TimeDivision):
        return SerialUplink(whole, *rest)
    if (
        constant
        and at_once
        and whole is None
        and fleet_link is not None
        and isinstance(rule, EqualSplit | Proportional | WorkConserving)
        and _linear(fleet_link, band_hz)
    ):
        return SharedUplink(rule, *rest)
    return DividedUplink(rule, whole, reallocation_s, *rest)


def _linear(link: Link, band_hz: float) -> bool:
    """Whether all rates and powers are linear over the whole band."""
    slopes = linear_efficiency(link, band_hz) + linear_power(link, band_hz)
    return not np.isnan(slopes).any()
