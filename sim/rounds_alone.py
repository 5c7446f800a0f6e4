"""What can be checked of a run without a timeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from sim.findings import Finding, close, compare, where
from sim.system import System
from sim.totals import Activity


def activity_as_told(devices: pd.DataFrame) -> Activity:
    """What `devices.csv` says that each device did."""
    names = ("rounds_sampled", "rounds_completed", "bytes_up", "bytes_down", "busy_s", "energy_j")
    return Activity(*(devices[name].to_numpy() for name in names))


def rounds_alone(system: System, tables: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    """Rounds, updates and devices add up to the same."""
    rounds, updates, devices = (tables[f"{name}.csv"] for name in ("rounds", "updates", "devices"))
    yield from where(
        "rounds.csv",
        rounds,
        (rounds["completed"] < 0).to_numpy(),
        "round {round}: completed below 0",
    )
    if not system.scenario.training.timing_only:
        yield from _updates(rounds, updates)
    sums = {"bytes_up": "bytes_up", "energy_j": "energy_j", "sampled": "rounds_sampled"}
    if system.scenario.radio.downlink == "unicast":
        sums["bytes_down"] = "bytes_down"
    for name, other in sums.items():
        total, wanted = rounds[name].sum(), devices[other].sum()
        if not close(total, wanted):
            message = f"{name} adds up to {total}, devices.csv to {wanted}"
            yield Finding("rounds.csv", None, message)
    if rounds["completed"].sum() > devices["rounds_completed"].sum():
        yield Finding("rounds.csv", None, "more was merged than devices completed")


def _updates(rounds: pd.DataFrame, updates: pd.DataFrame) -> Iterator[Finding]:
    """As many updates as devices completed, and the means of their losses."""
    number = updates["round"].to_numpy()
    strange = (number < 0) | (number >= len(rounds))
    yield from where("updates.csv", updates, strange, "there is no round {round}")
    trained = updates[(number > 0) & ~strange]
    number, weight = trained["round"].to_numpy(), trained["weight"].to_numpy()
    count = np.bincount(number, minlength=len(rounds))
    mass = np.bincount(number, weight, len(rounds))
    total = np.bincount(number, weight * trained["loss"].to_numpy(), len(rounds))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, total / mass, np.nan)
    yield from compare("rounds.csv", rounds, {"completed": count, "train_loss": mean}, ["round"])
