"""Sharing one uplink band among a cohort.

Device n is ready at tau_n and has u_n bits to send over its link; a rule says how much of the band
B it holds from then on until it has finished.

================ ==================================================================
rule             who holds how much of the band
================ ==================================================================
equal-finish     divided once, before the transfers, so that all end together
work-conserving  divided so that all active end together, anew at every event
equal-split      divided evenly among the active, anew at every event
proportional     divided by the work of the transfers, anew at every event
time-division    one at a time over the whole band, first ready first
================ ==================================================================

Beside them stands `OverTheAir`, under which nothing is divided: analog signals of all at once.

An event is a device that becomes ready or finishes. On linear links the last four end at the same
time, that of one transfer after the other; where bandwidth pays less and less, they differ, and
time division and an equal split may end later than the static equal finish.
"""

from collections.abc import Mapping
from types import MappingProxyType

from wireless.spectrum.equal_split import EqualSplit
from wireless.spectrum.over_the_air import OverTheAir
from wireless.spectrum.proportional import Proportional
from wireless.spectrum.rule import Rule, Transfers, Whole, solo_finish_time
from wireless.spectrum.static import Allocation, EqualFinish, equal_finish, equal_finish_time
from wireless.spectrum.time_division import TimeDivision
from wireless.spectrum.work_conserving import WorkConserving

_ALL: tuple[Rule, ...] = (
    EqualFinish(),
    WorkConserving(),
    EqualSplit(),
    Proportional(),
    TimeDivision(),
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _ALL})
"""The rules by the names that scenarios use."""

__all__ = [
    "RULES",
    "Allocation",
    "EqualFinish",
    "EqualSplit",
    "OverTheAir",
    "Proportional",
    "Rule",
    "TimeDivision",
    "Transfers",
    "Whole",
    "WorkConserving",
    "equal_finish",
    "equal_finish_time",
    "solo_finish_time",
]
