"""The course of some rounds of a run: what happened, and the band in use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sim.errors import InputError
from sim.rundir import RunFiles


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Some rounds of a run.

    Parameters
    ----------
    rounds
        Their rows of `rounds.csv`.
    timeline
        Rows of `timeline.csv` that overlap with them in time, in order.
    spectrum
        Rows of `spectrum.csv` within their time, after the last one before it of each cell.
    """

    rounds: pd.DataFrame
    timeline: pd.DataFrame
    spectrum: pd.DataFrame

    @property
    def start_s(self) -> float:
        """When the first round begins."""
        return float(self.rounds["start_s"].iloc[0])

    @property
    def end_s(self) -> float:
        """When the last round ends."""
        return float(self.rounds["end_s"].iloc[-1])


def only_run(runs: Sequence[RunFiles], kind: str) -> RunFiles:
    """The run of a picture that shows one.

    Raises
    ------
    InputError
        If there are more.
    """
    if len(runs) != 1:
        raise InputError(f"{len(runs)} runs: --kind {kind} shows one; name one")
    return runs[0]


def parse_rounds(text: str) -> tuple[int, int]:
    """First and last round of `FIRST-LAST`, or of one number.

    Raises
    ------
    InputError
        If it is neither.
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"--rounds {text}: expected FIRST-LAST or one round, from 1 on, as 1-3")
    return first, last


def course(run: RunFiles, rounds: tuple[int, int] | None) -> Course:
    """The course from a first to a last round, as far as the run has them; None for all of it.

    Raises
    ------
    InputError
        If the run has no such round, or wrote no timeline.
    """
    every = run.table("rounds.csv").query("round > 0")
    chosen = every if rounds is None else every[every["round"].between(*rounds)]
    if not len(chosen):
        wanted = "" if rounds is None else f"--rounds {rounds[0]}-{rounds[1]}: "
        raise InputError(f"{wanted}{run.folder} has {len(every)} rounds; choose among them")
    start_s, end_s = chosen["start_s"].iloc[0], chosen["end_s"].iloc[-1]
    timeline, spectrum = run.table("timeline.csv"), run.table("spectrum.csv")
    # A row of no length belongs to what begins at its time, and at the end of the run to the end.
    inside = (timeline["end_s"] > start_s) | (timeline["start_s"] >= start_s)
    if chosen["round"].iloc[-1] < every["round"].iloc[-1]:
        inside &= timeline["start_s"] < end_s
    return Course(chosen, timeline[inside], _within(spectrum, float(start_s), float(end_s)))


def _within(spectrum: pd.DataFrame, start_s: float, end_s: float) -> pd.DataFrame:
    """Changes up to an end, from the last one not after a start on, cell by cell."""
    early = spectrum[spectrum["time_s"] <= start_s].groupby("cell").tail(1).index
    time_s = spectrum["time_s"].to_numpy()
    keep = (time_s > start_s) & (time_s <= end_s)
    keep |= np.isin(spectrum.index.to_numpy(), early.to_numpy())
    return spectrum[keep]
