"""What the rows of a timeline add up to, per device and per round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.timeline import BLOCK, Interval

#: Outcomes that end a dispatch in whatever phase; besides, an upload that is done ends it.
ENDS = frozenset({"dropped", "late", "cancelled"})

_TRANSFERS = ("uplink", "downlink")


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
        # By position, for speed: 1 is the device, 2 the phase, 5 the bytes, 8 the energy.
        for row in rows:
            size, spent = row[5], row[8]
            if spent and row[1] is not None:
                energy += spent
            if size:
                if row[2] == "uplink":
                    up += size
                elif row[2] == "downlink" and (row[1] is None or self._unicast):
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
        rows = [row for row in self._rows if row[1] is not None]
        self._rows = []
        if not rows:
            return
        _, who, phase, start_s, end_s, size, _, _, energy_j, outcome = zip(*rows, strict=True)
        device, total, n = np.fromiter(who, np.int64, len(rows)), self._sum, len(rows)
        up, down = (np.fromiter(map(name.__eq__, phase), np.bool_, n) for name in _TRANSFERS)
        done = up & np.fromiter(map("done".__eq__, outcome), np.bool_, n)
        ends = done | np.fromiter(map(ENDS.__contains__, outcome), np.bool_, n)
        sizes = np.fromiter([each or 0 for each in size], np.int64, n)
        busy_s = np.fromiter(end_s, np.float64, n) - np.fromiter(start_s, np.float64, n)
        spent_j = np.fromiter([each or 0.0 for each in energy_j], np.float64, n)
        # In the order of the rows, so that sums of floats are those of adding row by row.
        np.add.at(total.busy_s, device, busy_s)
        np.add.at(total.energy_j, device, spent_j)
        np.add.at(total.bytes_up, device[up], sizes[up])
        np.add.at(total.bytes_down, device[down], sizes[down])
        np.add.at(total.completed, device[done], 1)
        np.add.at(total.sampled, device[ends], 1)
