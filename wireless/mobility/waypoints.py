"""Devices that follow recorded places."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.mobility.base import Places, finite_vector, queried


@dataclass(frozen=True, slots=True, eq=False)
class Waypoints:
    """Devices that follow recorded places, in a straight line from each to the next.

    Before its first and after its last record a device stands still. With D recorded devices,
    device n of the fleet follows record device n mod D.

    Parameters
    ----------
    device_of_row : ndarray of int, shape (R,)
        Device of each record, >= 0, in any order.
    time_s : ndarray, shape (R,)
        Times in seconds; those of one device differ.
    x_m, y_m : ndarray, shape (R,)
        Places in metres.

    Raises
    ------
    ValueError
        If the rows differ in length, a number is not finite, there are no rows, or a device has
        two records of one time. Asking for a number without records is refused too.
    """

    device_of_row: NDArray[np.intp]
    time_s: NDArray[np.float64]
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    _instants_s: NDArray[np.float64] = field(init=False, repr=False)
    _address: NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the records and sort them by device and time."""
        number, time = np.asarray(self.device_of_row), finite_vector(self.time_s, "time_s")
        x, y = finite_vector(self.x_m, "x_m"), finite_vector(self.y_m, "y_m")
        if number.dtype.kind not in "iu" or number.size == 0 or number.min() < 0:
            raise ValueError("device_of_row must be at least one integer, none negative")
        for name, row in (("time_s", time), ("x_m", x), ("y_m", y)):
            if row.shape != number.shape:
                raise ValueError(
                    f"{name} must have the shape of device_of_row, {number.shape}, got {row.shape}"
                )
        order = np.lexsort((time, number))
        number, time = number[order].astype(np.intp), time[order]
        instants, rank = np.unique(time, return_inverse=True)
        # One integer that sorts like (device, time): a single binary search then finds both.
        address = number * len(instants) + rank
        twice = np.flatnonzero(np.diff(address) == 0)
        if twice.size:
            row = twice[0]
            raise ValueError(
                f"time_s must differ between the records of a device, got {time[row]} twice for "
                f"device {number[row]}"
            )
        object.__setattr__(self, "device_of_row", number)
        object.__setattr__(self, "time_s", time)
        object.__setattr__(self, "x_m", x[order])
        object.__setattr__(self, "y_m", y[order])
        object.__setattr__(self, "_instants_s", instants)
        object.__setattr__(self, "_address", address)

    def _segment(
        self, device: ArrayLike, time_s: ArrayLike
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Return the records before and after each time, and the share of the way walked."""
        number, time = queried(device, time_s, np.iinfo(np.intp).max)
        number = number % (int(self.device_of_row[-1]) + 1)
        base = number * len(self._instants_s)
        first = np.searchsorted(self._address, base)
        last = np.searchsorted(self._address, base + len(self._instants_s)) - 1
        if (last < first).any():
            raise ValueError(f"device has no records: {number[last < first].flat[0]}")
        rank = np.searchsorted(self._instants_s, time, side="right") - 1
        before = np.searchsorted(self._address, base + rank, side="right") - 1
        after = np.clip(before + 1, first, last)
        before = np.clip(before, first, last)
        moving = before < after
        span_s = np.where(moving, self.time_s[after] - self.time_s[before], 1)
        return before, after, np.where(moving, (time - self.time_s[before]) / span_s, 0)

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        before, after, share = self._segment(device, time_s)
        x, y = (row[before] + share * (row[after] - row[before]) for row in (self.x_m, self.y_m))
        return x, y

    def speed_m_s(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.float64]:
        """Return the speeds in m/s, shape (M,), of devices (M,) at times () or (M,)."""
        before, after, _ = self._segment(device, time_s)
        way_m = np.hypot(self.x_m[after] - self.x_m[before], self.y_m[after] - self.y_m[before])
        span_s = np.where(before < after, self.time_s[after] - self.time_s[before], 1)
        return np.asarray(way_m / span_s)
