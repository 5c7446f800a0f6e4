"""Physical invariants of a run, checked on its rows as they stand, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from sim.findings import TOLERANCE, Finding, close

_UP = 1 + TOLERANCE


def band_never_exceeded(
    timeline: pd.DataFrame, spectrum: pd.DataFrame, band_hz: Sequence[float]
) -> Iterator[Finding]:
    """No cell uses more than its band, and what `spectrum.csv` says the transfers add up to.

    Parameters
    ----------
    timeline, spectrum
        Tables of the run.
    band_hz
        Band of a cell in each round, from round 0.
    """
    time = spectrum["time_s"].to_numpy(dtype=np.float64)
    in_use = spectrum["bandwidth_in_use_hz"].to_numpy(dtype=np.float64)
    active = spectrum["active"].to_numpy(dtype=np.float64)
    if (np.diff(time) < 0).any():
        yield Finding("spectrum.csv", int(np.argmax(np.diff(time) < 0)) + 3, "goes back in time")
        return
    uplink = timeline[(timeline["phase"] == "uplink") & (timeline["outcome"] == "done")]
    numbers = uplink["round"].to_numpy(dtype=np.int64)
    limit = np.asarray(band_hz)[np.clip(numbers, 0, len(band_hz) - 1)]
    held = uplink["bandwidth_hz"].to_numpy(dtype=np.float64)
    for number in uplink.index.to_numpy()[held > limit * _UP]:
        yield Finding("timeline.csv", int(number) + 2, "holds more than the band of its round")
    if not len(uplink):
        return
    # A round's changes lie between the begin of its first and the end of its last transfer.
    end_s = uplink["end_s"].to_numpy(dtype=np.float64)
    rounds, first = np.unique(numbers, return_index=True)
    last = np.maximum.accumulate(np.maximum.reduceat(end_s, first))
    which = np.minimum(np.searchsorted(last * _UP, time), len(rounds) - 1)
    most = np.asarray(band_hz)[np.clip(rounds[which], 0, len(band_hz) - 1)]
    for number in np.flatnonzero(~(in_use <= most * _UP))[:1]:
        yield Finding(
            "spectrum.csv",
            int(number) + 2,
            f"at {time[number]:.6f} s {in_use[number]:.6g} Hz are in use, the band is "
            f"{most[number]:.6g}",
        )
    length = np.zeros(len(time))
    for cell in np.unique(spectrum["cell"]):
        rows = np.flatnonzero(spectrum["cell"] == cell)
        length[rows[:-1]] = np.diff(time[rows])
        if in_use[rows[-1]] != 0 or active[rows[-1]] != 0:
            yield Finding("spectrum.csv", int(rows[-1]) + 2, "ends while the band is in use")
    seconds = end_s - uplink["start_s"].to_numpy(dtype=np.float64)
    for name, found, wanted in (
        ("hertz seconds", in_use * length, held * seconds),
        ("device seconds", active * length, seconds),
    ):
        slack = 1e-6 * wanted.sum()  # of sums of differences of times
        if not abs(found.sum() - wanted.sum()) <= slack:
            yield Finding(
                "spectrum.csv",
                None,
                f"adds up to {found.sum():.9g} {name}, the transfers to {wanted.sum():.9g}",
            )


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
