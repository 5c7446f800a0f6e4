"""Physical invariants of a run, checked on its rows as they stand, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from sim.findings import TOLERANCE, Finding, close


def band_never_exceeded(
    timeline: pd.DataFrame, spectrum: pd.DataFrame, band: float
) -> Iterator[Finding]:
    """The uplink band is never exceeded, and `spectrum.csv` says what the transfers say."""
    uplink = timeline[timeline["phase"] == "uplink"]
    width = uplink["bandwidth_hz"].to_numpy(dtype=np.float64)
    moment = np.concatenate([uplink["start_s"], uplink["end_s"]])
    change = np.concatenate([width, -width])
    line = np.concatenate([uplink.index, uplink.index]).astype(np.int64)
    # Ends before starts, so that one transfer may take over another's band in the same instant.
    order = np.lexsort((change, moment))
    in_use = np.cumsum(change[order])
    over = np.flatnonzero(in_use > band * (1 + TOLERANCE))
    if len(over):
        at = order[over[0]]
        yield Finding(
            "timeline.csv",
            int(line[at]) + 2,
            f"at {moment[at]:.6f} s {in_use[over[0]]:.6g} Hz are in use, the band is {band:.6g}",
        )
    if len(spectrum) != len(moment):
        yield Finding(
            "spectrum.csv", None, f"has {len(spectrum)} changes, the timeline {len(moment)}"
        )
        return
    # Rows are written as intervals end, so their order is the order of events in one instant; an
    # upload begins when its device's computation ends.
    compute = timeline[timeline["phase"] == "compute"]
    ended = dict(
        zip(zip(compute["round"], compute["device"], strict=True), compute.index, strict=True)
    )
    keys = zip(uplink["round"], uplink["device"], strict=True)
    begun = [ended.get(key, own) for key, own in zip(keys, uplink.index, strict=True)]
    order = np.lexsort((np.concatenate([begun, uplink.index]), moment))
    values = {
        "time_s": moment[order],
        "bandwidth_in_use_hz": np.cumsum(change[order]),
        "active": np.cumsum(np.where(order < len(uplink), 1.0, -1.0)),
    }
    slack = {"time_s": float(moment.max(initial=0.0)), "bandwidth_in_use_hz": band, "active": 0.0}
    for name, wanted in values.items():
        found = spectrum[name].to_numpy(dtype=np.float64)
        allowed = TOLERANCE * np.maximum(slack[name], np.abs(wanted))
        for number in np.flatnonzero(~(np.abs(found - wanted) <= allowed)):
            yield Finding(
                "spectrum.csv",
                int(number) + 2,
                f"{name} is {found[number]}, the transfers give {wanted[number]}",
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


def round_totals(timeline: pd.DataFrame, rounds: pd.DataFrame) -> Iterator[Finding]:
    """Bytes and energy of each round add up; rounds follow each other without a gap."""
    server = timeline["device"].isna()
    sums = {
        "bytes_down": timeline[server & (timeline["phase"] == "downlink")],
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
