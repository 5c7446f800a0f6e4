"""What the rows of a timeline add up to, per device and per round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.timeline import Interval

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
        # Lists, as rows come one by one: an element of an array takes several times as long.
        self._sampled, self._completed = [0] * devices, [0] * devices
        self._bytes_up, self._bytes_down = [0] * devices, [0] * devices
        self._busy_s, self._energy_j = [0.0] * devices, [0.0] * devices

    def add(self, rows: Sequence[Interval]) -> None:
        """Add rows of the timeline."""
        down, up, energy = self._down, self._up, self._energy
        busy_s, energy_j, unicast = self._busy_s, self._energy_j, self._unicast
        for _, device, phase, start_s, end_s, size, _, _, spent, outcome in rows:
            if device is None:
                if phase == "downlink":
                    down += size or 0
                continue
            busy_s[device] += end_s - start_s
            if spent:
                energy_j[device] += spent
                energy += spent
            if phase == "uplink":
                up += size or 0
                self._bytes_up[device] += size or 0
                if outcome == "done":
                    self._completed[device] += 1
                    self._sampled[device] += 1
            elif phase == "downlink":
                self._bytes_down[device] += size or 0
                if unicast:
                    down += size or 0
            if outcome in ENDS:
                self._sampled[device] += 1
        self._down, self._up, self._energy = down, up, energy

    def round(self) -> tuple[int, int, float]:
        """Bytes down, bytes up and joules since the last call."""
        totals = self._down, self._up, self._energy
        self._down, self._up, self._energy = 0, 0, 0.0
        return totals

    def activity(self) -> Activity:
        """What each device did so far."""
        return Activity(
            np.array(self._sampled, dtype=np.int64),
            np.array(self._completed, dtype=np.int64),
            np.array(self._bytes_up, dtype=np.int64),
            np.array(self._bytes_down, dtype=np.int64),
            np.array(self._busy_s),
            np.array(self._energy_j),
        )
