"""Schedules: when the server merges, and whom it waits for. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sim.network import Network, Process
from sim.schedules.base import Merge, OnMerge
from sim.schedules.deadline import deadline
from sim.schedules.fedasync import fedasync
from sim.schedules.fedbuff import fedbuff
from sim.schedules.over_selection import over_selection
from sim.schedules.synchronous import synchronous
from sim.steering import Steering
from sim.system import System

Schedule = Callable[[Network, System, Steering, OnMerge], Process]

SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "synchronous": synchronous,
        "deadline": deadline,
        "over-selection": over_selection,
        "fedbuff": fedbuff,
        "fedasync": fedasync,
    }
)

__all__ = ["SCHEDULES", "Merge", "OnMerge", "Schedule"]
