"""Devices that follow recorded places."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.mobility.base import Places
from wireless.trace_rows import queries, row_order, table_columns


@dataclass(frozen=True, slots=True, eq=False)
class Waypoints:
    """Devices that follow recorded places, in a straight line from each to the next.

    After its last record a device stands still. With D recorded devices, device n of the fleet
    follows recorded device n mod D. The records may come in any order; they are kept sorted by
    device and time.

    Parameters
    ----------
    device : array_like of int, shape (R,)
        Recorded device of each row, numbered from 0 without a gap.
    time_s : array_like, shape (R,)
        Times in seconds, >= 0; each device's first is 0, and none of its times comes twice.
    x_m, y_m : array_like, shape (R,)
        Places in metres.

    Raises
    ------
    ValueError
        If the rows break a rule above.
    """

    device: NDArray[np.int64]
    time_s: NDArray[np.float64]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    _instants_s: NDArray[np.float64] = field(init=False, repr=False)
    _address: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the records and sort them by device and time."""
        device, columns = table_columns(self.device, time_s=self.time_s, x_m=self.x_m, y_m=self.y_m)
        order = row_order(device, columns[0])
        device, (time, x, y) = device[order], (column[order] for column in columns)
        instants, rank = np.unique(time, return_inverse=True)
        for name, derived in {
            "device": device,
            "time_s": time,
            "x_m": x,
            "y_m": y,
            "_instants_s": instants,
            # One integer that sorts like (device, time): one binary search then finds both.
            "_address": device * len(instants) + rank,
        }.items():
            object.__setattr__(self, name, derived)

    def __len__(self) -> int:
        """Return the number of recorded devices D."""
        return int(self.device[-1]) + 1

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        number, time = queries(device, time_s)
        base = number % len(self) * len(self._instants_s)
        rank = np.searchsorted(self._instants_s, time, side="right") - 1
        before = np.searchsorted(self._address, base + rank, side="right") - 1
        last = np.searchsorted(self._address, base + len(self._instants_s)) - 1
        after = np.minimum(before + 1, last)
        span_s = np.where(before < after, self.time_s[after] - self.time_s[before], 1)
        share = (time - self.time_s[before]) / span_s
        x, y = (row[before] + share * (row[after] - row[before]) for row in (self.x_m, self.y_m))
        return x, y
