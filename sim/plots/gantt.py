"""Who did what when: a Gantt chart of some rounds, with the uplink band in use below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sim.plots.course import Course, course, only_run
from sim.rundir import RunFiles

#: Colours that colour-blind readers tell apart (Okabe and Ito), in the order of a round.
_COLOUR: Mapping[str, str] = MappingProxyType(
    {
        "plan": "#CC79A7",
        "wait": "#DDDDDD",
        "downlink": "#56B4E9",
        "compute": "#E69F00",
        "uplink": "#009E73",
        "aggregate": "#0072B2",
        "evaluate": "#F0E442",
    }
)
_HATCH: Mapping[str, str] = MappingProxyType(
    {"dropped": "/////", "cancelled": "xxxxx", "late": ".....", "lost": "|||||"}
)

#: Rounds that are shown if none are named, device rows and names of rows at most.
_ROUNDS, _ROWS, _NAMES = (1, 3), 80, 40


def gantt(runs: Sequence[RunFiles], rounds: tuple[int, int] = _ROUNDS) -> Figure:
    """Phases of the server and of the devices that take part; what did not end well is hatched.

    Of more devices than there is room for, evenly spaced ones by number are shown.

    Parameters
    ----------
    runs
        One finished run.
    rounds
        First and last round.

    Raises
    ------
    InputError
        If there is more than one run, or it has no such round or wrote no timeline.
    """
    run = only_run(runs, "gantt")
    shown = course(run, rounds)
    every = np.unique(shown.timeline["device"].dropna().to_numpy(dtype=np.int64))
    some = every[np.unique(np.linspace(0, len(every) - 1, min(len(every), _ROWS)).astype(int))]
    height_in = float(np.clip(0.24 * (len(some) + 1), 1.2, 9.0))
    figure = Figure(figsize=(9.0, height_in + 2.6), layout="constrained")
    place, band = figure.subplots(2, sharex=True, height_ratios=(height_in, 1.1))
    marks = _bars(place, shown.timeline, {int(n): row for row, n in enumerate(some, start=1)})
    _rows(place, some, len(every))
    _band(band, shown)
    _rounds((place, band), shown)
    used = shown.timeline[shown.timeline["device"].isna() | shown.timeline["device"].isin(some)]
    figure.legend(
        handles=_legend(used, marks),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize="small",
    )
    return figure


def _bars(axes: Axes, timeline: pd.DataFrame, row_of: Mapping[int, int]) -> list[str]:
    """Draw the rows, the server's at 0; outcomes of those too short to see are marked."""
    # Only the server has no number.
    row = timeline["device"].map(row_of).where(timeline["device"].notna(), 0)
    marks = []
    for (phase, outcome), part in timeline.assign(row=row).groupby(["phase", "outcome"]):
        bars = part[part["row"].notna()]
        axes.barh(
            bars["row"],
            bars["end_s"] - bars["start_s"],
            left=bars["start_s"],
            height=0.8,
            color=_COLOUR[str(phase)],
            hatch=_HATCH.get(str(outcome)),
            edgecolor="white" if outcome == "done" else "black",
            linewidth=0.3,
        )
        instant = bars[(bars["start_s"] == bars["end_s"]) & (outcome != "done")]
        if len(instant):
            axes.plot(instant["start_s"], instant["row"], "x", color="black", markersize=4)
            marks.append(str(outcome))
    return sorted(set(marks))


def _rows(axes: Axes, some: np.ndarray[Any, np.dtype[np.int64]], devices: int) -> None:
    """Name the rows, or every second, third... one of many."""
    step = max(1, -(-len(some) // _NAMES))
    axes.set_yticks(
        [0, *range(1, len(some) + 1, step)],
        ["server", *(str(n) for n in some[::step])],
        fontsize="small",
    )
    axes.set_ylim(len(some) + 0.6, -0.6)
    axes.axhline(0.5, color="0.7", linewidth=0.6)
    shown = "" if len(some) == devices else f", {len(some)} of {devices}"
    axes.set_ylabel(f"device{shown}")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _band(axes: Axes, shown: Course) -> None:
    """Uplink band in use, summed over cells."""
    spectrum = shown.spectrum.sort_values("time_s", kind="stable")
    in_use = spectrum.pivot_table(
        index="time_s", columns="cell", values="bandwidth_in_use_hz", aggfunc="last"
    )
    total = in_use.ffill().fillna(0.0).sum(axis=1)
    # Nothing is in use before the first change, and the last one holds to the end.
    time_s = np.clip([shown.start_s, *total.index, shown.end_s], shown.start_s, shown.end_s)
    held = np.array([0.0, *total, total.iloc[-1] if len(total) else 0.0]) / 1e6
    axes.fill_between(time_s, held, step="post", color=_COLOUR["uplink"], alpha=0.35, linewidth=0)
    axes.step(time_s, held, where="post", color=_COLOUR["uplink"], linewidth=1.0)
    axes.set_ylim(bottom=0)
    axes.set_xlim(shown.start_s, shown.end_s)
    axes.set_ylabel("uplink in\nuse (MHz)")
    axes.set_xlabel("simulated time (s)")
    axes.tick_params(labelsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _rounds(places: Sequence[Axes], shown: Course) -> None:
    """Lines where rounds begin, and their numbers above as far as there is room."""
    rounds = shown.rounds
    for axes in places:
        for start_s in rounds["start_s"].iloc[1:]:
            axes.axvline(start_s, color="0.4", linewidth=0.6, linestyle="--", zorder=0)
    wide = rounds[rounds["duration_s"] > 0.07 * (shown.end_s - shown.start_s)]
    top = places[0].secondary_xaxis("top")
    middle = (wide["start_s"] + wide["end_s"]) / 2
    top.set_xticks(middle, [f"round {number}" for number in wide["round"]], fontsize="small")
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)


def _legend(timeline: pd.DataFrame, marks: Sequence[str]) -> list[Any]:
    phases, outcomes = set(timeline["phase"]), set(timeline["outcome"])
    lasting = set(timeline[timeline["end_s"] > timeline["start_s"]]["outcome"])
    handles: list[Any] = [
        Patch(facecolor=colour, label=phase) for phase, colour in _COLOUR.items() if phase in phases
    ]
    handles += [
        Patch(facecolor="white", edgecolor="black", hatch=hatch, label=outcome)
        for outcome, hatch in _HATCH.items()
        if outcome in outcomes & lasting
    ]
    handles += [
        Line2D([], [], color="black", marker="x", linestyle="none", label=f"{outcome} at once")
        for outcome in marks
    ]
    return handles
