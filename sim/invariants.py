"""Physical invariants of a run, checked on its rows as they stand, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from sim.findings import TOLERANCE, Finding, close
from sim.timeline import Spectrum, columns

_UP = 1 + TOLERANCE


def band_never_exceeded(
    timeline: pd.DataFrame, spectrum: pd.DataFrame, band_hz: Sequence[float]
) -> Iterator[Finding]:
    """No cell uses more than its band, and the use adds up to that of the transfers.

    Parameters
    ----------
    timeline, spectrum
        Tables of the run.
    band_hz
        Band of a cell in each round, from round 0.
    """
    uplink = timeline[(timeline["phase"] == "uplink") & (timeline["outcome"] == "done")]
    if not len(uplink):
        if len(spectrum):
            yield Finding("spectrum.csv", 2, "is in use though nobody sends")
        return
    number = uplink["round"].to_numpy(dtype=np.int64)
    held = uplink["bandwidth_hz"].to_numpy(dtype=np.float64)
    start_s, end_s = (uplink[name].to_numpy(dtype=np.float64) for name in ("start_s", "end_s"))
    limit = np.asarray(band_hz)[np.clip(number, 0, len(band_hz) - 1)]
    for line in uplink.index.to_numpy()[held > limit * _UP]:
        yield Finding("timeline.csv", int(line) + 2, "holds more than the band of its round")

    # A round's changes end with its last transfer.
    rounds, first = np.unique(np.sort(number), return_index=True)
    last = np.maximum.accumulate(np.maximum.reduceat(end_s[np.argsort(number)], first))
    time = spectrum["time_s"].to_numpy(dtype=np.float64)
    in_use = spectrum["bandwidth_in_use_hz"].to_numpy(dtype=np.float64)
    active = spectrum["active"].to_numpy(dtype=np.float64)
    which = np.minimum(np.searchsorted(last * _UP, time), len(rounds) - 1)
    most = np.asarray(band_hz)[np.clip(rounds[which], 0, len(band_hz) - 1)]
    for row in np.flatnonzero(~(in_use <= most * _UP))[:1]:
        yield Finding(
            "spectrum.csv",
            int(row) + 2,
            f"at {time[row]:.6f} s {in_use[row]:.6g} Hz are in use, the band is {most[row]:.6g}",
        )
    lasts = np.zeros(len(time))
    for cell in np.unique(spectrum["cell"]):
        rows = np.flatnonzero(spectrum["cell"] == cell)
        lasts[rows[:-1]] = np.diff(time[rows])
        for row in rows[1:][np.diff(time[rows]) <= 0]:
            yield Finding("spectrum.csv", int(row) + 2, "is not later than the cell's row before")
    seconds = end_s - start_s
    for name, found, wanted in (
        ("hertz seconds", in_use @ lasts, held @ seconds),
        ("device seconds", active @ lasts, seconds.sum()),
    ):
        slack = 1e-6 * wanted  # of sums of differences of times
        if not abs(found - wanted) <= slack:
            yield Finding(
                "spectrum.csv",
                None,
                f"adds up to {found:.9g} {name}, the transfers to {wanted:.9g}",
            )


def spectrum_rows(
    spectrum: pd.DataFrame, wanted: Sequence[Spectrum], scale: float
) -> Iterator[Finding]:
    """Rows of `spectrum.csv` against recomputed ones; `scale` is of the times.

    Changes that rounding alone sets apart are one change, of which the last row holds; none at all
    is none.
    """
    expected = pd.DataFrame(wanted, columns=columns(Spectrum))
    for cell in sorted({*spectrum["cell"], *expected["cell"]}):
        found = _settled(spectrum[spectrum["cell"] == cell], scale)
        known = _settled(expected[expected["cell"] == cell], scale)
        for (line, row), (_, other) in zip(found.iterrows(), known.iterrows(), strict=False):
            for name in columns(Spectrum):
                absolute = {"time_s": scale, "bandwidth_in_use_hz": other[name]}.get(name, 0.0)
                if not close(row[name], other[name], absolute):
                    yield Finding(
                        "spectrum.csv",
                        int(str(line)) + 2,
                        f"{name} is {row[name]}, the transfers give {other[name]}",
                    )
        if len(found) != len(known):
            yield Finding(
                "spectrum.csv",
                None,
                f"cell {cell:.0f} has {len(found)} changes, the transfers {len(known)}",
            )


def _settled(rows: pd.DataFrame, scale: float) -> pd.DataFrame:
    """The rows that hold for longer than a rounding, and say something else than those before."""
    lasts = np.diff(rows["time_s"].to_numpy(dtype=np.float64), append=np.inf)
    held = rows[lasts > TOLERANCE * scale]
    in_use = held["bandwidth_in_use_hz"].to_numpy(dtype=np.float64)
    change = np.abs(np.diff(in_use, prepend=0.0)) > TOLERANCE * np.abs(in_use)
    change |= np.diff(held["active"].to_numpy(dtype=np.float64), prepend=0.0) != 0
    changed: pd.DataFrame = held[change]
    return changed


def one_thing_at_a_time(timeline: pd.DataFrame) -> Iterator[Finding]:
    """No device is in two phases at once, and no interval ends before it starts."""
    backwards = timeline["end_s"] < timeline["start_s"]
    for number in np.flatnonzero(backwards):
        yield Finding("timeline.csv", int(number) + 2, "ends before it starts")
    unordered = timeline["end_s"].to_numpy()[1:] < timeline["end_s"].to_numpy()[:-1]
    for number in np.flatnonzero(unordered):
        yield Finding("timeline.csv", int(number) + 3, "ends before the row above it")
    frame = timeline[timeline["device"].notna()]
    frame = frame.sort_values(["device", "start_s", "end_s"], kind="stable")
    slack = TOLERANCE * float(timeline["end_s"].max()) if len(timeline) else 0.0
    same = frame["device"].to_numpy()[1:] == frame["device"].to_numpy()[:-1]
    early = frame["start_s"].to_numpy()[1:] < frame["end_s"].to_numpy()[:-1] - slack
    for number in np.flatnonzero(same & early):
        row = frame.iloc[number + 1]
        yield Finding(
            "timeline.csv",
            int(frame.index.to_numpy()[number + 1]) + 2,
            f"device {row['device']:.0f} starts {row['phase']} at {row['start_s']} s while it is "
            f"still in {frame.iloc[number]['phase']}",
        )


def round_totals(timeline: pd.DataFrame, rounds: pd.DataFrame, unicast: bool) -> Iterator[Finding]:
    """Bytes and energy of each round add up; a broadcast counts once."""
    server = timeline["device"].isna()
    sums = {
        "bytes_down": timeline[(server | unicast) & (timeline["phase"] == "downlink")],
        "bytes_up": timeline[~server & (timeline["phase"] == "uplink")],
        "energy_j": timeline[~server],
    }
    for name, part in sums.items():
        column = "energy_j" if name == "energy_j" else "bytes"
        total = part.groupby("round")[column].sum()
        for number, row in rounds.iterrows():
            wanted = float(total.get(row["round"], 0.0))
            if not close(row[name], wanted):
                yield Finding(
                    "rounds.csv",
                    int(str(number)) + 2,
                    f"round {row['round']:.0f}: {name} is {row[name]}, its rows add up to {wanted}",
                )
