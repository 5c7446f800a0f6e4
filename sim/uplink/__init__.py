"""The uplink band of a cell in simulated time: a fluid that is divided anew at every event.

`make_uplink` picks the quickest of the classes that are right for a rule, its links and whatever
may change; `DividedUplink` is right for everything.
"""

from __future__ import annotations

from sim.uplink.base import Transfer, Uplink
from sim.uplink.choose import make_uplink
from sim.uplink.divided import DividedUplink

__all__ = ["DividedUplink", "Transfer", "Uplink", "make_uplink"]
