"""Poisson processes of events that can be asked about any time at the same cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wireless import streams
from wireless.traces import whole_periods

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Poisson:
    """One Poisson process of events per device, with access to any time at the same cost.

    Time is cut into cells of the mean spacing. Within a cell the spacings are drawn in order from
    streams keyed by (device, cell, number); as they have no memory, starting afresh in each cell
    leaves the process a Poisson one. Cells before time 0 hold the past.
    """

    seed: int
    purpose: str
    mean_s: float

    def last(self, device: NDArray[np.int64], time_s: FloatArray) -> FloatArray:
        """Return the time of the last event at or before each time, shape (M,)."""
        return self._search(device, time_s, forward=False)

    def next(self, device: NDArray[np.int64], time_s: FloatArray) -> FloatArray:
        """Return the time of the first event after each time, shape (M,)."""
        return self._search(device, time_s, forward=True)

    def _search(self, device: NDArray[np.int64], time_s: FloatArray, forward: bool) -> FloatArray:
        """Look through one cell after the other, for the devices that are still without."""
        if (time_s > 2.0**50 * self.mean_s).any():
            raise ValueError(f"time_s must be below 2**50 mean spells of {self.mean_s} s")
        cell = whole_periods(time_s, self.mean_s).astype(np.int64).ravel()
        number, time = device.ravel(), time_s.ravel()
        found = np.empty(time.shape)
        pending = np.arange(len(time))
        while len(pending):
            before, after = self._around(number[pending], cell[pending], time[pending])
            event = after if forward else before
            found[pending] = event
            pending = pending[np.isinf(event)]
            cell[pending] += 1 if forward else -1
        return found.reshape(time_s.shape)

    def _around(
        self, device: NDArray[np.int64], cell: NDArray[np.int64], time_s: FloatArray
    ) -> tuple[FloatArray, ...]:
        """Return the last event up to the time and the first after it, of those in the cell.

        Minus infinity and infinity stand for none.
        """
        before, after = np.full(len(time_s), -np.inf), np.full(len(time_s), np.inf)
        start = cell * self.mean_s
        final = np.nextafter((cell + 1) * self.mean_s, -np.inf)
        position = np.zeros(len(time_s))
        active = np.arange(len(time_s))
        number = 0
        while len(active):
            position[active] += streams.exponential(
                self.seed, self.purpose, device[active], cell[active], number
            )
            active = active[position[active] < 1]
            # Rounding must not carry an event into the cell after its own.
            event = np.minimum(start[active] + position[active] * self.mean_s, final[active])
            past = event <= time_s[active]
            before[active[past]] = event[past]
            after[active[~past]] = event[~past]
            active = active[past]
            number += 1
        return before, after
