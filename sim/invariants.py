"""Invariants of a run, checked on its rows as they stand, whatever made them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.findings import MOST, TOLERANCE, Finding, compare, of_clock, where
from sim.parts import DONE, LATE, LOST, OUTCOMES, PHASES, SERVER_PHASES, UPLINK, Parts, codes
from sim.totals import Activity

_TIMELINE, _ROUNDS = "timeline.csv", "rounds.csv"


def sound_rows(timeline: pd.DataFrame, devices: int) -> NDArray[np.bool_]:
    """Rows (R,) of a timeline whose device, phase and outcome exist together."""
    device = timeline["device"].to_numpy(dtype=np.float64)
    server = np.isnan(device)
    outcome = codes(timeline["outcome"], OUTCOMES)
    by_server = server & (codes(timeline["phase"], SERVER_PHASES) >= 0) & (outcome == DONE)
    by_device = (device >= 0) & (device < devices) & (device == np.floor(device))
    phase = codes(timeline["phase"], PHASES)
    by_device &= (phase >= 0) & (outcome >= 0)
    by_device &= (phase == UPLINK) | (outcome != LATE) & (outcome != LOST)
    return np.asarray(by_server | by_device)


def one_thing_at_a_time(timeline: pd.DataFrame) -> Iterator[Finding]:
    """No device does two things at once, no row ends before it starts, rows come as they end."""
    start_s, end_s = timeline["start_s"].to_numpy(), timeline["end_s"].to_numpy()
    yield from where(_TIMELINE, timeline, end_s < start_s, "ends before it starts")
    yield from where(
        _TIMELINE, timeline, np.diff(end_s, prepend=-math.inf) < 0, "ends before the row above it"
    )
    device = np.nan_to_num(timeline["device"].to_numpy(dtype=np.float64), nan=-1.0)
    order = np.argsort(device, kind="stable")  # and as they end
    slack = of_clock(end_s[order[:-1]])
    early = start_s[order[1:]] < end_s[order[:-1]] - slack
    wrong = np.zeros(len(timeline), dtype=np.bool_)
    wrong[order[1:]] = early & (device[order[1:]] == device[order[:-1]])
    yield from where(
        _TIMELINE,
        timeline,
        wrong,
        "device {device} starts {phase} at {start_s} s while it still does something else",
    )


def whole_parts(timeline: pd.DataFrame, parts: Parts) -> Iterator[Finding]:
    """Every part ends with a row that ends it, and nothing is sent that was not computed."""
    rows = timeline.iloc[parts.last]
    yield from where(
        _TIMELINE, rows, ~parts.closed, "{phase} of device {device} is not followed by what ends it"
    )
    rows = timeline.iloc[parts.row[parts.first]]
    at_once = (rows["start_s"] == rows["end_s"]).to_numpy() & (parts.length == 1)
    yield from where(
        _TIMELINE,
        rows,
        (parts.computes == 0) & (parts.attempts > 0) & ~at_once,
        "device {device} sends what it has not computed",
    )


def never_more_out(parts: Parts, timeline: pd.DataFrame, most: int) -> Iterator[Finding]:
    """No more devices are out at once than may be."""
    begin_s = timeline["start_s"].to_numpy()[parts.row[parts.first]]
    order = np.lexsort((parts.end_s, begin_s))
    begin_s, last = begin_s[order], parts.last[order]
    # A download that begins as another device comes back may do so a rounding before.
    back = np.searchsorted(np.sort(parts.end_s), begin_s + of_clock(begin_s), "right")
    out = np.arange(1, len(parts) + 1) - back
    for place in np.flatnonzero(out > most)[:MOST]:
        yield Finding(
            _TIMELINE,
            int(last[place]) + 2,
            f"{out[place]} devices are out at {begin_s[place]} s, at most {most} may be",
        )


def merged_after_arrival(
    timeline: pd.DataFrame, rounds: pd.DataFrame, updates: pd.DataFrame
) -> Iterator[Finding]:
    """Nothing is merged before it has arrived, and nothing twice."""
    done = (timeline["phase"] == "uplink") & (timeline["outcome"] == "done")
    arrived = timeline[done.to_numpy() & timeline["device"].notna().to_numpy()]
    end_s = np.sort(arrived["end_s"].to_numpy())
    merged = np.cumsum(rounds["completed"].to_numpy())
    by_then = np.searchsorted(end_s, rounds["end_s"].to_numpy(), "right")
    yield from where(
        _ROUNDS, rounds, merged > by_then, "round {round}: more is merged than has arrived by then"
    )
    trained = updates[updates["round"] > 0]
    device, number = trained["device"].to_numpy(), trained["round"].to_numpy()
    known = (number < len(rounds)) & (device >= 0)
    merge_s = rounds["end_s"].to_numpy()[np.where(known, number, 0)]
    # The m-th update of a device comes no earlier than its m-th arrival.
    of_device = arrived["device"].to_numpy(dtype=np.int64)
    order = np.argsort(of_device, kind="stable")
    first = np.searchsorted(of_device[order], device)
    behind = np.searchsorted(of_device[order], device, "right")
    place = first + _occurrence_in_order(device)
    arrival_s = np.append(arrived["end_s"].to_numpy()[order], np.inf)
    place = np.where(place < behind, place, len(order))
    yield from where(
        "updates.csv",
        trained,
        ~known | (arrival_s[place] > merge_s),
        "device {device}'s update of round {round} has not arrived by then",
    )


def _occurrence_in_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal values come before each."""
    return np.asarray(pd.Series(values).groupby(values).cumcount(), dtype=np.int64)


def rounds_follow(rounds: pd.DataFrame) -> Iterator[Finding]:
    """Each round begins where the one before it ends, and lasts from its begin to its end."""
    end_s = rounds["end_s"].to_numpy()
    start_s = rounds["start_s"].to_numpy()
    before = np.append(0.0, end_s[:-1])
    yield from where(
        _ROUNDS,
        rounds,
        start_s != before,
        "round {round} starts at {start_s} s, not when the one before it ends",
    )
    yield from where(_ROUNDS, rounds, end_s < start_s, "round {round} ends before it starts")
    yield from compare(
        _ROUNDS,
        rounds,
        {"duration_s": end_s - start_s},
        ["round"],
        {"duration_s": TOLERANCE * end_s},
    )


def round_totals(timeline: pd.DataFrame, rounds: pd.DataFrame, unicast: bool) -> Iterator[Finding]:
    """Bytes and energy of each round are those of the rows that ended in it; a broadcast counts
    once.
    """
    behind = _behind(timeline, rounds)
    first = np.append(0, behind[:-1])
    server = timeline["device"].isna().to_numpy()
    phase = codes(timeline["phase"], PHASES)
    size = np.nan_to_num(timeline["bytes"].to_numpy(dtype=np.float64)).astype(np.int64)
    energy = np.nan_to_num(timeline["energy_j"].to_numpy(dtype=np.float64))
    down = np.where((server | unicast) & (phase == PHASES.index("downlink")), size, 0)
    up = np.where(~server & (phase == UPLINK), size, 0)
    joules = np.where(server, 0.0, energy)
    expected = {
        "bytes_down": _between(down, first, behind),
        "bytes_up": _between(up, first, behind),
        "energy_j": _between(joules, first, behind),
    }
    yield from compare(_ROUNDS, rounds, expected, ["round"])


def _behind(timeline: pd.DataFrame, rounds: pd.DataFrame) -> NDArray[np.intp]:
    """Behind which row of the timeline each round ends (its aggregation, where it has one)."""
    end_s = np.maximum.accumulate(timeline["end_s"].to_numpy()) if len(timeline) else np.zeros(0)
    behind = np.searchsorted(end_s, rounds["end_s"].to_numpy(), "right")
    merges = np.flatnonzero((timeline["phase"] == "aggregate").to_numpy())
    number = timeline["round"].to_numpy()[merges]
    known = (number >= 0) & (number < len(rounds) - 1)  # in the last one the rest ends as well
    behind[number[known]] = merges[known] + 1
    return np.maximum.accumulate(behind)


def _between(values: NDArray[Any], first: NDArray[np.intp], behind: NDArray[np.intp]) -> Any:
    """Sums of consecutive stretches of values."""
    bounds = np.column_stack([first, behind]).ravel()
    padded = np.append(values, values.dtype.type(0))
    sums = np.add.reduceat(padded, bounds)[::2]
    return np.where(behind > first, sums, 0).astype(values.dtype)


def activity_of(timeline: pd.DataFrame, parts: Parts, devices: int) -> Activity:
    """What each device did, by its rows."""
    sound = sound_rows(timeline, devices) & timeline["device"].notna().to_numpy()
    rows = timeline[sound]
    device = rows["device"].to_numpy(dtype=np.int64)
    phase = codes(rows["phase"], PHASES)
    size = np.nan_to_num(rows["bytes"].to_numpy(dtype=np.float64))
    energy = np.nan_to_num(rows["energy_j"].to_numpy(dtype=np.float64))
    seconds = rows["end_s"].to_numpy() - rows["start_s"].to_numpy()

    def count(of: NDArray[np.int64], weight: NDArray[Any] | None = None) -> NDArray[Any]:
        return np.bincount(of, weight, devices)

    up, down = phase == UPLINK, phase == PHASES.index("downlink")
    done = parts.device[(parts.phase == UPLINK) & (parts.outcome == DONE)]
    return Activity(
        count(parts.device[parts.closed]),
        count(done),
        count(device[up], size[up]).astype(np.int64),
        count(device[down], size[down]).astype(np.int64),
        count(device, seconds),
        count(device, energy),
    )
