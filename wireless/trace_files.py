"""CSV files of traces: availability, bandwidth, compute speed and positions.

A file has a header, commas, ``.`` decimals and UTF-8. Devices are named by any text and numbered
in the order in which they first appear. Every fault is reported with file, line and remedy; nothing
is guessed and nothing left out.
"""

import csv
import math
from collections.abc import Callable, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wireless.mobility import Waypoints
from wireless.trace_rows import RowError
from wireless.traces import StepTrace

_Path = str | PathLike[str]
_Floats = NDArray[np.float64]


class _Column(NamedTuple):
    """A column of numbers: its name, which of them are valid, and that in words."""

    name: str
    valid: Callable[[_Floats], NDArray[np.bool_]]
    accepted: str


def _not_negative(name: str) -> _Column:
    return _Column(name, lambda number: number >= 0, "not negative")


_TIME = _not_negative("time_s")


def _read_rows(path: _Path, headers: Sequence[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a file; row i is line i + 2."""
    accepted = " or ".join(",".join(header) for header in headers)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if header not in headers:
                raise ValueError(
                    f"{path}, line 1: the header must be {accepted}, got {','.join(header)!r}"
                )
            rows = list(reader)
            lines = reader.line_num
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; correct the path of the trace") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; correct the quotes") from None
    if not rows:
        raise ValueError(f"{path}, line 2: no rows below the header; add at least one")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {i + 2}: {len(header)} values expected ({','.join(header)}), "
                f"got {len(row)}; complete or delete the line"
            )
        if lines != len(rows) + 1 and any("\n" in text or "\r" in text for text in row):
            raise ValueError(f"{path}, line {i + 2}: a line break inside a value; remove it")
    return header, rows


def _number(text: str) -> float:
    """Return the number that a text writes, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _numbers(path: _Path, column: _Column, texts: Sequence[str]) -> _Floats:
    """Return a column as numbers."""
    try:
        numbers = np.array(texts, dtype=np.float64)
    except ValueError:
        numbers = np.array([_number(text) for text in texts])
    for row in np.flatnonzero(~(np.isfinite(numbers) & column.valid(numbers)))[:1]:
        raise ValueError(
            f"{path}, line {row + 2}: {column.name} must be a finite number, {column.accepted}, "
            f"got {texts[row]!r}; correct it"
        )
    return numbers


def _devices(path: _Path, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each row's device, in the order of first appearance."""
    if "" in names:
        raise ValueError(
            f"{path}, line {names.index('') + 2}: device must be a name, got ''; fill it in"
        )
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    return np.fromiter((number[name] for name in names), dtype=np.int64, count=len(names))


def _read_table(
    path: _Path, columns: Sequence[_Column], headers: Sequence[list[str]]
) -> tuple[NDArray[np.int64], list[_Floats]]:
    """Return the devices of the rows, all 0 without such a column, and the columns of numbers."""
    header, rows = _read_rows(path, headers)
    texts = dict(zip(header, zip(*rows, strict=True), strict=True))
    device = np.zeros(len(rows), dtype=np.int64)
    if "device" in texts:
        device = _devices(path, texts["device"])
    return device, [_numbers(path, column, texts[column.name]) for column in columns]


def _read_steps(
    path: _Path, column: _Column, headers: Sequence[list[str]], period_s: float
) -> StepTrace:
    """Return the step function of a file."""
    device, (time, level) = _read_table(path, (_TIME, column), headers)
    try:
        return StepTrace(device, time, level, period_s)
    except RowError as error:
        raise ValueError(f"{path}, line {error.row + 2}: {error}") from None


def read_availability_trace(path: str | PathLike[str], period_s: float = math.inf) -> StepTrace:
    """Read when devices are available.

    Parameters
    ----------
    path : path
        File with the columns ``time_s,device,available``, or ``time_s,available`` for all devices
        alike; 1 from the time on that the device is available, 0 from the time on that it is not.
    period_s : float
        Time in seconds after which the trace starts again, above every time in the file; ``inf``
        lets the last values hold for ever.

    Returns
    -------
    StepTrace
        The trace of the file's devices.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file breaks a rule; the message names file, line, value and remedy.
    """
    column = _Column("available", lambda number: (number == 0) | (number == 1), "that is 0 or 1")
    headers = (["time_s", "device", "available"], ["time_s", "available"])
    return _read_steps(path, column, headers, period_s)


def read_bandwidth_trace(path: str | PathLike[str], period_s: float = math.inf) -> StepTrace:
    """Read the band that the fleet may use; background traffic takes the rest.

    Parameters
    ----------
    path : path
        File with the columns ``time_s,bandwidth_hz``; the band in Hz from the time on, >= 0.
    period_s : float
        As in `read_availability_trace`.

    Returns
    -------
    StepTrace
        A trace of one device, which every device follows.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_availability_trace`.
    """
    headers = (["time_s", "bandwidth_hz"],)
    return _read_steps(path, _not_negative("bandwidth_hz"), headers, period_s)


def read_compute_trace(path: str | PathLike[str], period_s: float = math.inf) -> StepTrace:
    """Read by which factor devices compute faster or slower than at their own speed.

    Parameters
    ----------
    path : path
        File with the columns ``time_s,device,speed``, or ``time_s,speed`` for all devices alike;
        the factor from the time on, >= 0.
    period_s : float
        As in `read_availability_trace`.

    Returns
    -------
    StepTrace
        The trace of the file's devices.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_availability_trace`.
    """
    headers = (["time_s", "device", "speed"], ["time_s", "speed"])
    return _read_steps(path, _not_negative("speed"), headers, period_s)


def read_position_trace(path: str | PathLike[str]) -> Waypoints:
    """Read where devices are.

    Parameters
    ----------
    path : path
        File with the columns ``time_s,device,x_m,y_m``; metres from the base station.

    Returns
    -------
    Waypoints
        The places of the file's devices.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_availability_trace`.
    """
    places = [_Column(name, np.isfinite, "in metres") for name in ("x_m", "y_m")]
    device, (time, x, y) = _read_table(
        path, (_TIME, *places), (["time_s", "device", "x_m", "y_m"],)
    )
    try:
        return Waypoints(device, time, x, y)
    except RowError as error:
        raise ValueError(f"{path}, line {error.row + 2}: {error}") from None
