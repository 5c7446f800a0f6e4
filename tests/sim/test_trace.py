"""Trace and Gantt chart: they show the rows of the timeline, each where it belongs."""

import importlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.plots.course import Course
from sim.plots.gantt import gantt
from sim.plots.trace import events
from sim.rundir import RunFiles
from sim.scenario import Scenario
from sim.system import build_system
from sim.timeline import Interval, Spectrum
from tests.sim.recorded import known_rows, record

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tiny: Callable[..., Scenario], tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    rows = known_rows("timeline.csv", Interval), known_rows("spectrum.csv", Spectrum)
    # One device of the second round gives up at once, one is cut off.
    dropped = Interval(2, 0, "uplink", 1.25, 1.25, 0, energy_j=0.0, outcome="dropped")
    rows[0][-1:-1] = [dropped]
    rows[0][16] = rows[0][16]._replace(outcome="cancelled")
    return record(tmp_path_factory.mktemp("run"), build_system(tiny()), *rows)


@pytest.fixture
def trace(run: RunFiles, command: Command, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def write(*options: str) -> list[dict[str, Any]]:
        file = tmp_path / "trace.json"
        answer = command("plot", run.folder, "--kind", "trace", "-o", file, *options)
        assert (answer.code, answer.out, answer.err) == (0, f"{file}\n", "")
        found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["traceEvents"]
        return found

    return write


def named(found: list[dict[str, Any]], what: str) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in found if e["name"] == what}


def test_trace_shows_every_row_and_change(run: RunFiles, trace: Any) -> None:
    found, timeline = trace(), run.table("timeline.csv")
    slices = [event for event in found if event["ph"] == "X"]
    assert len(slices) == len(timeline)
    for event, (_, row) in zip(slices, timeline.iterrows(), strict=True):
        assert (event["name"], event["args"]["outcome"]) == (row["phase"], row["outcome"])
        assert event["args"]["round"] == row["round"]
        assert event["args"].get("bytes") == (None if np.isnan(row["bytes"]) else row["bytes"])
        assert event["ts"] == pytest.approx(row["start_s"] * 1e6, abs=1e-3)
        assert event["dur"] == pytest.approx((row["end_s"] - row["start_s"]) * 1e6, abs=1e-3)
    for phase, part in timeline.groupby("phase"):
        total = sum(event["dur"] for event in slices if event["name"] == phase)
        seconds = (part["end_s"] - part["start_s"]).sum()
        assert total == pytest.approx(seconds * 1e6, abs=1e-3 * len(part))
    counters = [event for event in found if event["ph"] == "C"]
    spectrum = run.table("spectrum.csv")
    for name, column in (("band in use (Hz)", "bandwidth_in_use_hz"), ("senders", "active")):
        values = [event["args"]["value"] for event in counters if event["name"] == name]
        assert values == spectrum[column].tolist()


def test_tracks_bear_the_names_of_who_is_on_them(run: RunFiles, trace: Any) -> None:
    found = trace()
    processes, tracks = named(found, "process_name"), named(found, "thread_name")
    assert sorted(processes.values()) == ["devices", "server", "uplink"]
    kinds = run.table("devices.csv")["kind"]
    for event in (event for event in found if event["ph"] == "X"):
        (process,) = {name for (pid, _), name in processes.items() if pid == event["pid"]}
        who = tracks[event["pid"], event["tid"]]
        if process == "server":
            assert who == "server"
        else:
            assert (process, who) == ("devices", f"device {event['tid']} ({kinds[event['tid']]})")


def test_trace_of_some_rounds(run: RunFiles, trace: Any) -> None:
    found, rounds = trace("--rounds", "2"), run.table("rounds.csv").set_index("round")
    slices = [event for event in found if event["ph"] == "X"]
    assert {event["args"]["round"] for event in slices} == {2}
    assert len(slices) == (run.table("timeline.csv")["round"] == 2).sum()
    changes = [event["ts"] for event in found if event["ph"] == "C"]
    # The first tells what holds when the round begins.
    assert max(changes) <= rounds["end_s"][2] * 1e6
    assert min(changes) < rounds["start_s"][2] * 1e6 < changes[2]


@settings(deadline=None, derandomize=True, max_examples=20)
@given(times=st.lists(st.floats(0, 1e6), min_size=2, max_size=9).map(sorted))
def test_intervals_that_follow_each_other_do_so_in_the_trace(times: list[float]) -> None:
    rows = [Interval(1, 0, "compute", *each) for each in itertools.pairwise(times)]
    frame = pd.DataFrame(rows, columns=Interval._fields).astype({"bytes": float})
    course = Course(pd.DataFrame(), frame, pd.DataFrame(columns=Spectrum._fields))
    found = [event for event in events(course, pd.Series(["phone"])) if event["ph"] == "X"]
    for one, other in itertools.pairwise(found):
        # Whole nanoseconds.
        assert round((one["ts"] + one["dur"]) * 1000) == round(other["ts"] * 1000)


def test_gantt_shows_every_row(run: RunFiles) -> None:
    timeline = run.table("timeline.csv")
    figure = gantt([run])
    place, band = figure.axes
    bars = [bar for group in place.containers for bar in group]
    seconds = sum(bar.get_width() for bar in bars)
    assert len(bars) == len(timeline)
    assert seconds == pytest.approx((timeline["end_s"] - timeline["start_s"]).sum())
    rows = [label.get_text() for label in place.get_yticklabels()]
    assert rows == ["server", "0", "1", "2", "3"]
    for bar in bars:
        middle = bar.get_y() + bar.get_height() / 2
        own = timeline["device"].fillna(-1) == round(middle) - 1
        assert (timeline[own]["start_s"] == bar.get_x()).any()
    assert len([bar for bar in bars if bar.get_hatch()]) == 2
    (cross,) = [line for line in place.get_lines() if line.get_marker() == "x"]
    assert (cross.get_xdata().tolist(), cross.get_ydata().tolist()) == ([1.25], [1])
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["downlink", "compute", "uplink", "aggregate", "cancelled", "dropped at once"]
    (step,) = [line for line in band.get_lines() if line.get_drawstyle() == "steps-post"]
    top = run.table("spectrum.csv")["bandwidth_in_use_hz"].max()
    assert max(step.get_ydata()) == pytest.approx(top / 1e6)


def test_gantt_of_some_rounds(run: RunFiles) -> None:
    rounds = run.table("rounds.csv").set_index("round")
    place, band = gantt([run], (2, 2)).axes
    assert band.get_xlim() == (rounds["start_s"][2], rounds["end_s"][2])
    bars = [bar for group in place.containers for bar in group]
    assert len(bars) == (run.table("timeline.csv")["round"] == 2).sum()


def test_gantt_of_many_devices_shows_some(run: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("sim.plots.gantt"), "_ROWS", 2)
    place = gantt([run]).axes[0]
    assert place.get_ylabel() == "device, 2 of 4"
    assert [label.get_text() for label in place.get_yticklabels()] == ["server", "0", "3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "trace", "-o", "a.png"], "-o a.png: give a name ending in .json"),
        (["--kind", "gantt", "-o", "a.json"], "-o a.json: give a name ending in .png, .svg, .pdf"),
        (["--kind", "gantt", "--rounds", "9"], "--rounds 9-9: {run} has 3 rounds; choose among"),
        (["--kind", "trace", "--rounds", "3-2"], "--rounds 3-2: expected FIRST-LAST or one round"),
        (["--kind", "gantt", "--rounds", "0"], "--rounds 0: expected FIRST-LAST or one round"),
        (["--kind", "map", "--rounds", "1"], "--rounds 1: belongs to --kind gantt or trace"),
        (["{run}", "--kind", "trace"], "2 runs: --kind trace shows one"),
        (["{run}", "--kind", "gantt"], "2 runs: --kind gantt shows one"),
        (["--kind", "art"], "--kind art: known: convergence, map, link, gantt, trace"),
        (["--kind", "trace", "-o", "none/a.json"], "-o none/a.json: cannot be written"),
    ],
)
def test_refusals(options: list[str], message: str, run: RunFiles, command: Command) -> None:
    answer = command("plot", run.folder, *(word.format(run=run.folder) for word in options))
    assert answer.code == 2
    assert answer.err.startswith(f"sim: {message.format(run=run.folder)}")
