"""The uplink band of a cell in simulated time: a fluid that is divided anew at every event."""

from __future__ import annotations

from sim.uplink.base import Transfer, Uplink

__all__ = ["Transfer", "Uplink"]
