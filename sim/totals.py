"""What the rows of a timeline add up to, per device and per round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.timeline import BLOCK, Interval

#: Outcomes that end a dispatch in whatever phase; besides, an upload that is done ends it.
ENDS = frozenset({"dropped", "late", "cancelled"})


@dataclass(frozen=True, slots=True)
class Activity:
    """What each of N devices did.

    Parameters
    ----------
    sampled, completed
        (N,) dispatches that ended, and those whose upload was done.
    bytes_up, bytes_down
        (N,) sent, lost attempts included, and received.
    busy_s
        (N,) seconds in all phases.
    energy_j
        (N,) joules spent.
    """

    sampled: NDArray[np.int64]
    completed: NDArray[np.int64]
    bytes_up: NDArray[np.int64]
    bytes_down: NDArray[np.int64]
    busy_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]


class Totals:
    """Adds up rows as they come; sums do not depend on how rows are grouped into blocks.

    Parameters
    ----------
    devices
        Number of devices N.
    unicast
        Whether devices download one by one; otherwise only the broadcast counts as a round's
        downlink.
    """

    def __init__(self, devices: int, unicast: bool) -> None:
        self._unicast = unicast
        self._down, self._up, self._energy = 0, 0, 0.0
        self._rows: list[Interval] = []
        whole, real = (np.zeros((4, devices), dtype=np.int64), np.zeros((2, devices)))
        self._sum = Activity(*whole, *real)

    def add(self, rows: Sequence[Interval]) -> None:
        """Add rows of the timeline."""
        down, up, energy = self._down, self._up, self._energy
        for _, device, phase, _, _, size, _, _, spent, _ in rows:
            if device is not None and spent:
                energy += spent
            if size:
                if phase == "uplink":
                    up += size
                elif phase == "downlink" and (device is None or self._unicast):
                    down += size
        self._down, self._up, self._energy = down, up, energy
        self._rows += rows
        if len(self._rows) >= BLOCK:
            self._add_to_devices()

    def round(self) -> tuple[int, int, float]:
        """Bytes down, bytes up and joules since the last call."""
        totals = self._down, self._up, self._energy
        self._down, self._up, self._energy = 0, 0, 0.0
        return totals

    def activity(self) -> Activity:
        """What each device did so far."""
        self._add_to_devices()
        return self._sum

    def _add_to_devices(self) -> None:
        rows = [row for row in self._rows if row.device is not None]
        self._rows = []
        if not rows:
            return
        _, who, phase, start_s, end_s, size, _, _, energy_j, outcome = zip(*rows, strict=True)
        device, total = np.array(who), self._sum
        up = np.array([each == "uplink" for each in phase])
        down = np.array([each == "downlink" for each in phase])
        done = up & np.array([each == "done" for each in outcome])
        size_b = np.array([each or 0 for each in size])
        # In the order of the rows, so that sums of floats are those of adding row by row.
        np.add.at(total.busy_s, device, np.array(end_s) - np.array(start_s))
        np.add.at(total.energy_j, device, np.array([each or 0.0 for each in energy_j]))
        np.add.at(total.bytes_up, device[up], size_b[up])
        np.add.at(total.bytes_down, device[down], size_b[down])
        np.add.at(total.completed, device[done], 1)
        np.add.at(total.sampled, device[done | [each in ENDS for each in outcome]], 1)
