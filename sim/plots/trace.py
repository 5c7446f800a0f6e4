"""A run as a trace that Perfetto and chrome://tracing open (Chrome's trace event format, JSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sim.errors import InputError
from sim.plots.course import Course, course, only_run
from sim.rundir import RunFiles
from sim.timeline import BLOCK, Interval, Spectrum, cells, columns

Event = dict[str, Any]

#: What a timeline row tells beside who, what and when.
_TOLD = ("round", "bytes", "bandwidth_hz", "rate_bps", "energy_j", "outcome")


def write_trace(runs: Sequence[RunFiles], path: Path, rounds: tuple[int, int] | None) -> None:
    """Write one run as a trace: a track for the server, one per device, counters per cell.

    Times are rounded to nanoseconds, so that intervals that follow each other do so in the trace.

    Parameters
    ----------
    runs
        One finished run.
    path
        File to write, ending in .json.
    rounds
        First and last round; None for the whole run.

    Raises
    ------
    InputError
        If there is more than one run, it has no such round or wrote no timeline, or the file
        cannot be written.
    """
    run = only_run(runs, "trace")
    if path.suffix != ".json":
        raise InputError(f"-o {path}: give a name ending in .json")
    shown = course(run, rounds)
    kinds = run.table("devices.csv")["kind"]
    try:
        with path.open("w", encoding="utf-8") as stream:
            before = '{"displayTimeUnit":"ms","traceEvents":[\n'
            for event in events(shown, kinds):
                stream.write(before + json.dumps(event, separators=(",", ":")))
                before = ",\n"
            stream.write("\n]}\n")
    except OSError as error:
        raise InputError(f"-o {path}: cannot be written ({error.strerror})") from None


def events(shown: Course, kinds: pd.Series[str]) -> Iterator[Event]:
    """Events of a course; `kinds` names the kind of each device.

    The server, the devices and the uplink are processes, numbered beyond the devices, since a
    viewer takes a thread with its process's number for the main one.
    """
    server, devices, uplink = range(len(kinds), len(kinds) + 3)
    for place, (pid, name) in enumerate(
        ((server, "server"), (uplink, "uplink"), (devices, "devices"))
    ):
        yield _name("process_name", pid, pid, name)
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": place}}
    yield _name("thread_name", server, server, "server")
    timeline = shown.timeline
    for n in np.unique(timeline["device"].dropna().to_numpy(dtype=np.int64)).tolist():
        yield _name("thread_name", devices, n, f"device {n} ({kinds.iloc[n]})")
        order = {"sort_index": n}
        yield {"ph": "M", "name": "thread_sort_index", "pid": devices, "tid": n, "args": order}
    for row in _rows(timeline, columns(Interval)):
        told = Interval(*row)
        own = told.device is not None
        start, end = _nanoseconds(told.start_s), _nanoseconds(told.end_s)
        arguments = {name: getattr(told, name) for name in _TOLD}
        yield {
            "ph": "X",
            "name": told.phase,
            "pid": devices if own else server,
            "tid": int(told.device or 0) if own else server,
            "ts": start / 1000,
            "dur": (end - start) / 1000,
            "args": {name: value for name, value in arguments.items() if value is not None},
        }
    yield from _counters(shown.spectrum, uplink)


def _counters(spectrum: pd.DataFrame, pid: int) -> Iterator[Event]:
    several = spectrum["cell"].nunique() > 1
    for row in _rows(spectrum, columns(Spectrum)):
        told = Spectrum(*row)
        cell = f"cell {told.cell}: " if several else ""
        counted = {"band in use (Hz)": told.bandwidth_in_use_hz, "senders": told.active}
        for name, value in counted.items():
            yield {
                "ph": "C",
                "name": cell + name,
                "pid": pid,
                "ts": _nanoseconds(told.time_s) / 1000,
                "args": {"value": value},
            }


def _rows(frame: pd.DataFrame, names: list[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of a table, made a block at a time."""
    for first in range(0, len(frame), BLOCK):
        block = frame.iloc[first : first + BLOCK]
        yield from zip(*(cells(block[name].to_numpy()) for name in names), strict=True)


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
