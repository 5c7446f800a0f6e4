"""A run directory made from known rows, without any simulation."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sim.records import Records
from sim.rundir import RunFiles, open_run
from sim.system import System
from sim.timeline import Interval, Round, Spectrum, cell_types

#: Timeline and band in use of the tiny scenario of `conftest.py`, in three rounds.
DATA = Path(__file__).with_name("data")


def known_rows(name: str, row: type[Any]) -> list[Any]:
    """Rows of a table kept with the tests, cell by cell."""
    kinds = [kind for kind, _ in cell_types(row).values()]
    with (DATA / name).open(newline="", encoding="utf-8") as stream:
        words = list(csv.reader(stream))[1:]
    return [
        row(*(kind(word) if word else None for kind, word in zip(kinds, line, strict=True)))
        for line in words
    ]


def rounds_of(rows: Iterable[Interval]) -> list[list[Interval]]:
    """Rows of each round, in order."""
    rounds: dict[int, list[Interval]] = {}
    for row in rows:
        rounds.setdefault(row.round, []).append(row)
    return list(rounds.values())


def record(
    folder: Path,
    system: System,
    intervals: Iterable[Interval] = (),
    spectrum: Iterable[Spectrum] = (),
) -> RunFiles:
    """Write a run directory of given rows; rounds last as long as theirs."""
    folder.mkdir(exist_ok=True)
    records = Records(folder, system)
    records.round(Round(0, 0.0, 0.0, 0.0))
    for row in spectrum:
        records.spectrum(row)
    for rows in rounds_of(intervals):
        for row in rows:
            records.interval(row)
        down, up, energy = records.round_totals()
        start_s, end_s = min(row.start_s for row in rows), max(row.end_s for row in rows)
        records.round(
            Round(
                rows[0].round,
                start_s,
                end_s,
                end_s - start_s,
                bytes_down=down,
                bytes_up=up,
                energy_j=energy,
            )
        )
    records.devices()
    records.summary({})
    records.close()
    return open_run(folder)
