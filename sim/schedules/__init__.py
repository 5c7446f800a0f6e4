"""Schedules: when rounds begin and whom they wait for. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from optimizer import Plan
from sim.network import Network, Process
from sim.schedules.synchronous import Finished, synchronous
from sim.system import System

Schedule = Callable[[Network, System, Plan, Callable[[Finished], bool]], Process]

SCHEDULES: Mapping[str, Schedule] = MappingProxyType({"synchronous": synchronous})

__all__ = ["SCHEDULES", "Finished", "Schedule"]
