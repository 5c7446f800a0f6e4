"""Schedules: when rounds begin and whom they wait for. One file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sim.network import Network, Process
from sim.schedules.synchronous import Finished, synchronous
from sim.steering import Steering
from sim.system import System

Schedule = Callable[[Network, System, Steering, Callable[[Finished], bool]], Process]

SCHEDULES: Mapping[str, Schedule] = MappingProxyType({"synchronous": synchronous})

__all__ = ["SCHEDULES", "Finished", "Schedule"]
