"""What a playback asked for, against the tables: rounds, updates, and the server's own rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.findings import TOLERANCE, Finding, compare, compare_table, where
from sim.parts import Parts
from sim.replay import Replay
from sim.system import System
from sim.timeline import Round, UpdateRow, columns

Mask = NDArray[np.bool_]


def rounds_and_updates(
    tables: Mapping[str, pd.DataFrame], told: Replay, oracle: list[UpdateRow]
) -> Iterator[Finding]:
    """Times, counts, losses and queues of the rounds, and what the server learnt."""
    wanted = columns_of(told.rounds, Round)
    names = ("start_s", "end_s", "duration_s", "expected_s", "cohort_s", "sampled", "completed")
    chosen = {name: wanted[name] for name in (*names, "train_loss", "queue_s", "progress")}
    slack = {"duration_s": TOLERANCE * wanted["end_s"], "cohort_s": TOLERANCE * wanted["end_s"]}
    followed = tables["rounds.csv"].iloc[: len(told.rounds)]
    yield from compare("rounds.csv", followed, chosen, ["round"], slack)
    updates = tables["updates.csv"]
    if told.trouble is not None:
        updates = updates[updates["round"] < len(told.rounds)]
    rows = columns_of([*oracle, *told.updates], UpdateRow)
    yield from compare_table("updates.csv", updates, rows, ["round", "device"])


def ranks_kept(system: System, updates: pd.DataFrame) -> Iterator[Finding]:
    """Devices keep all their ranks or what the method leaves them, and say so if it prunes."""
    method = system.workload.method
    left = {rank: method.left(rank) for rank in updates["rank"].unique().tolist()}
    least = updates["rank"].map(left).to_numpy(dtype=np.float64)
    kept, rank = updates["rank_kept"].to_numpy(dtype=np.float64), updates["rank"].to_numpy()
    silent = np.isnan(least) | (updates["round"] == 0).to_numpy()
    wrong = np.where(silent, ~np.isnan(kept), (kept != rank) & (kept != least))
    yield from where(
        "updates.csv", updates, wrong, "device {device} of rank {rank} cannot keep {rank_kept}"
    )


def columns_of(rows: list[Any], row: type[Any]) -> dict[str, NDArray[Any]]:
    """Columns of rows; what is None is nan."""
    names = columns(row)
    values = list(zip(*map(attrgetter(*names), rows), strict=True)) or [()] * len(names)
    return {
        name: np.array([math.nan if each is None else each for each in column])
        if None in column or not column
        else np.array(column)
        for name, column in zip(names, values, strict=True)
    }


def served_as_asked(
    system: System,
    timeline: pd.DataFrame,
    served: Mask,
    received: Mask,
    parts: Parts,
    told: Replay,
) -> Iterator[Finding]:
    """What the server did, who received its broadcasts, and whom fading kept from sending."""
    playback, nan = told.playback, math.nan
    until_s = math.inf if told.trouble is None else playback.clock.now
    ended = (timeline["end_s"] <= until_s).to_numpy()
    number, phase, start_s, end_s, size, bps = (
        zip(*playback.served, strict=True) if playback.served else ((),) * 6
    )
    hz = system.scenario.radio.downlink_bandwidth_hz
    count = len(number)
    wanted = {
        "round": np.array(number, dtype=np.int64),
        "phase": np.array(phase, dtype=object),
        "start_s": np.array(start_s, dtype=np.float64),
        "end_s": np.array(end_s, dtype=np.float64),
        "bytes": np.array(size, dtype=np.float64),
        "bandwidth_hz": np.where(np.isnan(np.array(bps, dtype=np.float64)), nan, hz),
        "rate_bps": np.array(bps, dtype=np.float64),
        "energy_j": np.full(count, nan),
    }
    rows = timeline[served & ended]
    yield from compare_table("timeline.csv", rows, wanted, ["round", "phase"])
    many = np.array([len(each[1]) for each in playback.received], dtype=np.int64)

    def spread(place: int) -> NDArray[Any]:
        return np.repeat(np.array([each[place] for each in playback.received]), many)

    device = [each[1] for each in playback.received]
    wanted = {
        "round": spread(0),
        "device": np.concatenate(device) if device else np.zeros(0, dtype=np.int64),
        "start_s": spread(2),
        "end_s": spread(3),
        "bytes": spread(4).astype(np.float64),
        "bandwidth_hz": np.full(many.sum(), hz),
        "rate_bps": spread(5),
        "energy_j": np.zeros(many.sum()),
        "outcome": np.full(many.sum(), "done", dtype=object),
    }
    rows = timeline[received & ended]
    yield from compare_table("timeline.csv", rows, wanted, ["round", "device"])
    yield from _dropped(timeline, parts, told)


def _dropped(timeline: pd.DataFrame, parts: Parts, told: Replay) -> Iterator[Finding]:
    """Devices that fading kept from sending, each with one row."""
    for number, device, _, part in told.playback.dropped:
        if part < 0:
            message = f"a row is missing: round {number}, device {device} in outage"
            yield Finding("timeline.csv", None, message)
    there = [each for each in told.playback.dropped if each[3] >= 0]
    time_s = np.array([each[2] for each in there])
    rows = timeline.iloc[parts.last[np.array([each[3] for each in there], dtype=np.int64)]]
    count = len(rows)
    wanted = {
        "phase": np.full(count, "uplink", dtype=object),
        "start_s": time_s,
        "end_s": time_s,
        "bytes": np.zeros(count),
        "bandwidth_hz": np.full(count, math.nan),
        "rate_bps": np.full(count, math.nan),
        "energy_j": np.zeros(count),
        "outcome": np.full(count, "dropped", dtype=object),
    }
    yield from compare("timeline.csv", rows, wanted, ["round", "device"])
