"""Traces: step functions of time per device (`wireless.trace_files` reads them).

A trace has D devices of its own. Device n of the fleet follows trace device n mod D, so that a
short trace serves a fleet of any size. Queries are pure functions of (device, time).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.trace_rows import RowError, queries, row_order, table_columns

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


def whole_periods(time_s: _Floats, period_s: float) -> _Floats:
    """Return the whole number k with k period_s <= time_s < (k + 1) period_s.

    The products are those of floating point, so that whoever starts period k at ``k * period_s``
    never finds a time on the wrong side of it.

    Parameters
    ----------
    time_s : ndarray, shape (M,)
        Times in seconds.
    period_s : float
        Length of a period in seconds, > 0.

    Returns
    -------
    ndarray, shape (M,)
        Whole numbers, as floats.
    """
    count = np.floor(time_s / period_s)
    count = count - (count * period_s > time_s)
    return np.asarray(count + ((count + 1) * period_s <= time_s))


def _cumulative(steps: _Floats, first: NDArray[np.intp]) -> _Floats:
    """Return the sums of the steps before each row, per device.

    Rows first[n] to first[n + 1] belong to device n. Added up in order within the device, the sums
    neither fall nor depend on other devices, which differences of one long sum would.
    """
    sums = np.zeros(len(steps))
    count = np.diff(first)
    width = 2 ** np.ceil(np.log2(count)).astype(np.int64)
    for size in np.unique(width):  # at most one pass per power of two
        alike = width == size
        row = first[:-1][alike, None] + np.arange(size)
        inside = np.arange(size) < count[alike, None]
        padded = np.where(inside, steps[np.minimum(row, len(steps) - 1)], 0.0)
        before = np.cumsum(np.pad(padded, ((0, 0), (1, 0)))[:, :-1], axis=1)
        sums[row[inside]] = before[inside]
    return sums


def _pairs(first: NDArray[np.int64], second: _Floats) -> NDArray[np.complex128]:
    """Join two keys into one; numpy orders complex numbers by the real part, then the other."""
    pair = np.empty(np.shape(second), dtype=np.complex128)
    pair.real, pair.imag = first, second
    return pair


@dataclass(frozen=True, slots=True, eq=False)
class StepTrace:
    """A value per device that holds from one row's time to the next row's.

    The rows may come in any order. They are kept sorted by device and time, without those that
    only repeat the value before them.

    Parameters
    ----------
    device : array_like of int, shape (R,)
        Trace device of each row, numbered from 0 without a gap.
    time_s : array_like, shape (R,)
        Times in seconds from which the values hold, >= 0; each device's first is 0, and none of
        its times comes twice.
    level : array_like, shape (R,)
        Values, finite and >= 0.
    period_s : float
        Time in seconds after which the trace starts again, above every time of the rows; ``inf``
        (the default) lets the last value hold for ever.

    Raises
    ------
    ValueError
        If the rows break a rule above.
    """

    device: _Integers
    time_s: _Floats
    level: _Floats
    period_s: float = math.inf
    _first: NDArray[np.intp] = field(init=False, repr=False)
    _time_key: NDArray[np.complex128] = field(init=False, repr=False)
    _done: _Floats = field(init=False, repr=False)
    _done_key: NDArray[np.complex128] = field(init=False, repr=False)
    _total: _Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate, sort, and sum up what the queries need."""
        device, (time, level) = table_columns(self.device, time_s=self.time_s, level=self.level)
        for row in np.flatnonzero(level < 0)[:1]:
            raise RowError(int(row), f"level must not be negative, got {level[row]:g}")
        if not self.period_s > 0:
            raise ValueError(f"period_s must be positive, got {self.period_s}")
        order = row_order(device, time)
        for row in np.flatnonzero(time >= self.period_s)[:1]:
            raise RowError(
                int(row),
                f"time_s must be below period_s = {self.period_s:g}, got {time[row]:g}; "
                "lengthen the period or delete the row",
            )
        device, time, level = device[order], time[order], level[order]
        begins = np.diff(device, prepend=-1) != 0
        kept = begins | (np.diff(level, prepend=-1.0) != 0)
        device, time, level, begins = device[kept], time[kept], level[kept], begins[kept]

        first = np.append(np.flatnonzero(begins), len(device))
        # A device's last row ends with the period; without one, its length is never used.
        period = self.period_s if math.isfinite(self.period_s) else 0.0
        last = first[1:] - 1
        length = np.diff(time, append=0.0)
        length[last] = np.maximum(period - time[last], 0.0)
        done = _cumulative(level * length, first)
        for name, derived in {
            "device": device,
            "time_s": time,
            "level": level,
            "_first": first,
            "_time_key": _pairs(device, time),
            "_done": done,
            "_done_key": _pairs(device, done),
            "_total": done[last] + level[last] * length[last],
        }.items():
            object.__setattr__(self, name, derived)

    def __len__(self) -> int:
        """Return the number of trace devices D."""
        return len(self._total)

    @property
    def repeats(self) -> bool:
        """Whether the trace starts again after its period."""
        return math.isfinite(self.period_s)

    def _start(self, cycle: _Floats, row: NDArray[np.intp]) -> _Floats:
        """Time at which a row begins in the given repetition."""
        if not self.repeats:
            return self.time_s[row]
        return np.asarray(cycle * self.period_s + self.time_s[row])

    def _locate(
        self, device: ArrayLike, time_s: ArrayLike
    ) -> tuple[NDArray[np.int64], _Floats, NDArray[np.intp], _Floats]:
        """Return trace device, repetition and row that hold at a time, and the time itself."""
        number, time = queries(device, time_s)
        owner = number % len(self)
        cycle = whole_periods(time, self.period_s) if self.repeats else np.zeros(time.shape)
        rest = time - cycle * self.period_s if self.repeats else time
        row = np.asarray(np.searchsorted(self._time_key, _pairs(owner, rest), side="right") - 1)
        if self.repeats:
            # The rest is exact, the rows' times in this repetition are rounded: one may have come
            # that the rest does not reach yet. What they announce has happened at that time.
            while True:
                after = np.minimum(row + 1, self._first[owner + 1] - 1)
                late = (after > row) & (self._start(cycle, after) <= time)
                if not late.any():
                    break
                row = row + late
        return owner, cycle, row, time

    def _end(self, owner: _Integers, cycle: _Floats, row: NDArray[np.intp]) -> _Floats:
        """Time at which the row located by `_locate` gives way to the one after it."""
        is_last = row + 1 == self._first[owner + 1]
        after = np.where(is_last, self._first[owner], row + 1)
        if not self.repeats:
            return np.where(is_last, np.inf, self.time_s[after])
        return self._start(cycle + is_last, after)

    def value(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the values that hold at given times.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Devices of the fleet.
        time_s : array_like, shape (M,) or scalar
            Simulated times in seconds.

        Returns
        -------
        ndarray, shape (M,)
            Values; at the time of a row, already that row's.
        """
        _, _, row, _ = self._locate(device, time_s)
        return self.level[row]

    def next_change(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return when the values next become different ones.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Devices of the fleet.
        time_s : array_like, shape (M,) or scalar
            Simulated times in seconds.

        Returns
        -------
        ndarray, shape (M,)
            Times in seconds, after the given ones; ``inf`` where the value stays for ever.
        """
        owner, cycle, row, _ = self._locate(device, time_s)
        end = self._end(owner, cycle, row)
        if not self.repeats:
            return end
        # The start of the next repetition may bring the value that holds already.
        first, count = self._first[owner], np.diff(self._first)[owner]
        same = (row + 1 == first + count) & (self.level[row] == self.level[first])
        second = np.minimum(first + 1, len(self.level) - 1)
        end = np.where(same, self._start(cycle + 1, second), end)
        return np.where(count == 1, np.inf, end)

    def integral(self, device: ArrayLike, start_s: ArrayLike, end_s: ArrayLike) -> _Floats:
        """Return the integrals of the values over time.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Devices of the fleet.
        start_s, end_s : array_like, shape (M,) or scalar
            Bounds in seconds; the integral is negative if they are the wrong way round.

        Returns
        -------
        ndarray, shape (M,)
            Integrals in the value's unit times seconds.

        Notes
        -----
        From sums over whole rows and whole repetitions: the cost does not depend on the span.
        """
        owner, cycle_a, row_a, start = self._locate(device, start_s)
        _, cycle_b, row_b, end = self._locate(device, end_s)
        into_a = self.level[row_a] * (start - self._start(cycle_a, row_a))
        into_b = self.level[row_b] * (end - self._start(cycle_b, row_b))
        rows = self._done[row_b] - self._done[row_a] + (into_b - into_a)
        return np.asarray(self._total[owner] * (cycle_b - cycle_a) + rows)

    def finish_s(self, device: ArrayLike, start_s: ArrayLike, amount: ArrayLike) -> _Floats:
        """Return when the integral from a start reaches an amount.

        For a speed this is when work is done; for a bandwidth, when hertz-seconds are delivered.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Devices of the fleet.
        start_s : array_like, shape (M,) or scalar
            Starts in seconds.
        amount : array_like, shape (M,) or scalar
            Amounts in the value's unit times seconds, finite and >= 0.

        Returns
        -------
        ndarray, shape (M,)
            Earliest times in seconds; ``inf`` where the amount is never reached.

        Raises
        ------
        ValueError
            If an amount is negative or not finite.
        """
        wanted = np.asarray(amount, dtype=np.float64)
        valid = np.isfinite(wanted) & (wanted >= 0)
        if not valid.all():
            raise ValueError(f"amount must be finite and not negative, got {wanted[~valid][0]}")
        owner, cycle, row, start = self._locate(device, start_s)
        owner, cycle, row, start, wanted = np.broadcast_arrays(owner, cycle, row, start, wanted)
        value, end = self.level[row], self._end(owner, cycle, row)

        begin = self._start(cycle, row)
        target = self._done[row] + value * (start - begin) + wanted
        if self.repeats:
            total = self._total[owner]
            # The last moment of a repetition, not the first of the next: the earliest time counts.
            turns = np.ceil(target / np.where(total > 0, total, np.inf)) - 1
            turns = np.maximum(turns - (turns * total >= target), 0.0)  # a quotient rounded up
            target = np.clip(target - turns * total, 0.0, total)
            cycle = cycle + turns
        goal = np.searchsorted(self._done_key, _pairs(owner, target), side="left") - 1
        goal = np.maximum(goal, self._first[owner])
        # A row is left with its value at zero only if nothing comes after it.
        stuck = self.level[goal] == 0
        speed = np.where(stuck, 1.0, self.level[goal])
        later = self._start(cycle, goal) + (target - self._done[goal]) / speed
        later = np.where(stuck, np.inf, np.maximum(later, end))
        # Within the present row no sum is needed, and no digit is lost to one.
        remaining = np.where(value > 0, end - start, 0.0) * np.where(value > 0, value, 1.0)
        here = np.minimum(start + wanted / np.where(value > 0, value, 1.0), end)
        return np.where(wanted == 0, start, np.where(wanted <= remaining, here, later))

    def long_run_mean(self, device: ArrayLike) -> _Floats:
        """Return the means of the values over infinite time.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Devices of the fleet.

        Returns
        -------
        ndarray, shape (M,)
            Means over a period, or the values held for ever.
        """
        number, _ = queries(device, 0.0)
        owner = number % len(self)
        if self.repeats:
            return np.asarray(self._total[owner] / self.period_s)
        return self.level[self._first[owner + 1] - 1]
