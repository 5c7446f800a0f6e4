"""Rules that the rows of every trace keep, and what may be asked of one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class RowError(ValueError):
    """A fault in one row of a table, counted from 0 in the order given."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def table_columns(device: ArrayLike, **values: ArrayLike) -> tuple[_Integers, list[_Floats]]:
    """Check that a table has rows, and equally long columns of finite numbers."""
    number = np.asarray(device)
    if number.dtype.kind not in "iu" or number.ndim != 1 or not len(number):
        raise ValueError(
            f"device must be a row of at least one integer, got {number.dtype} {number.shape}"
        )
    columns = []
    for name, value in values.items():
        column = np.asarray(value, dtype=np.float64)
        if column.shape != number.shape:
            raise ValueError(f"{name} must have shape {number.shape}, got {column.shape}")
        if not np.isfinite(column).all():
            raise ValueError(f"{name} must be finite, got {column[~np.isfinite(column)][0]}")
        columns.append(column)
    return number.astype(np.int64), columns


def row_order(device: _Integers, time_s: _Floats) -> NDArray[np.intp]:
    """Return the order by device, then time; refuse what gives a device two values or none."""
    order = np.lexsort((time_s, device))
    number, time = device[order], time_s[order]
    begins = np.diff(number, prepend=number[0] - 1) != 0
    if not np.array_equal(number[begins], np.arange(begins.sum())):
        raise ValueError("device must number the trace devices 0, 1, ... without a gap")
    for row in order[begins & (time != 0)][:1]:
        raise RowError(
            row, f"the first time_s of a device must be 0, got {time_s[row]:g}; add a row at time 0"
        )
    for row in order[~begins & (np.diff(time, prepend=-1.0) == 0)][:1]:
        raise RowError(
            row, f"the same device has another row at time_s = {time_s[row]:g}; delete one of them"
        )
    return order


def queries(device: ArrayLike, time_s: ArrayLike) -> tuple[_Integers, _Floats]:
    """Check and broadcast the devices and times that a process is asked about.

    Parameters
    ----------
    device : array_like of int, shape (M,)
        Numbers of devices, >= 0.
    time_s : array_like, shape (M,) or scalar
        Simulated times in seconds, finite and >= 0.

    Returns
    -------
    device : ndarray of int64, shape (M,)
    time_s : ndarray, shape (M,)

    Raises
    ------
    TypeError
        If a device is not an integer.
    ValueError
        If a device is negative, or a time negative or not finite.
    """
    number, time = np.asarray(device), np.asarray(time_s, dtype=np.float64)
    if number.dtype.kind not in "iu":
        raise TypeError(f"device must be integers, got {number.dtype}")
    if number.size and number.min() < 0:
        raise ValueError(f"device must be 0 or more, got {number.min()}")
    valid = np.isfinite(time) & (time >= 0)
    if not valid.all():
        raise ValueError(f"time_s must be finite and not negative, got {time[~valid][0]}")
    shape = np.broadcast_shapes(number.shape, time.shape)
    return np.broadcast_to(number.astype(np.int64), shape), np.broadcast_to(time, shape)
