"""Rows of a run's CSV files, and their streaming writer."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Phase = Literal["plan", "wait", "downlink", "compute", "uplink", "aggregate"]
Outcome = Literal["done", "dropped"]


@dataclass(frozen=True, slots=True)
class Interval:
    """One row of `timeline.csv`: what someone did from one moment to another.

    Parameters
    ----------
    round
        Number of the round, from 1.
    device
        Device number, or None for the server.
    phase
        What was done. The server's downlink row is the broadcast itself; a device's is its
        reception.
    start_s, end_s
        Simulated seconds from the start of the run.
    bytes
        Payload transferred, None where nothing is.
    bandwidth_hz, rate_bps
        Of a transfer, averaged over its time.
    energy_j
        Energy the device spent.
    outcome
        How it ended.
    """

    round: int
    device: int | None
    phase: Phase
    start_s: float
    end_s: float
    bytes: int | None = None
    bandwidth_hz: float | None = None
    rate_bps: float | None = None
    energy_j: float | None = None
    outcome: Outcome = "done"


@dataclass(frozen=True, slots=True)
class Spectrum:
    """One row of `spectrum.csv`: the uplink band of a cell in use from a moment on."""

    time_s: float
    bandwidth_in_use_hz: float
    active: int
    cell: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """One row of `rounds.csv`; round 0 is the state before training.

    `expected_s` is predicted before the cohort is drawn, `cohort_s` after. `bytes_down` counts a
    broadcast once. `queue_s` is the virtual queue of a policy that keeps one, after the round. What
    was not measured is None.
    """

    round: int
    start_s: float
    end_s: float
    duration_s: float
    expected_s: float | None = None
    cohort_s: float | None = None
    sampled: int = 0
    completed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    energy_j: float = 0.0
    train_loss: float | None = None
    eval_loss: float | None = None
    eval_metric: float | None = None
    queue_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One row of `devices.csv`: who the device is, and what it did over the run.

    Places and links are those at the start of the run; `solo_rate_bps` is what plans reckon with
    for the device alone on the whole band.
    """

    device: int
    weight: float
    compute_flops: float
    distance_m: float
    path_loss_db: float
    snr_db: float
    samples: int
    rank_cap: int
    rounds_sampled: int
    rounds_completed: int
    bytes_up: int
    bytes_down: int
    busy_s: float
    energy_j: float
    kind: str
    x_m: float
    y_m: float
    cell: int
    los: int
    downlink_snr_db: float
    step_overhead_s: float
    tx_power_dbm: float
    solo_rate_bps: float


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of `labels.csv`: how many training examples of a class a device holds, if any."""

    device: int
    label: str
    samples: int


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One row of `plan.csv`: a device's part in the plan that holds from `round` on.

    The first plan has a row for every device, a later one for those whose rank or probability it
    changes.
    `expected_bandwidth_hz` is None for a device so rare that no drawn cohort contains it.
    """

    round: int
    device: int
    rank: int
    probability: float
    compute_s: float
    upload_bits: float
    expected_bandwidth_hz: float | None


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """One row of `updates.csv`: what the server learnt from a device that completed a round.

    Round 0 holds what an oracle measured before the run; such updates have no aggregation weight.
    `update_norm` is the Frobenius norm of the change of the device's factors, as the server adds
    it.
    """

    round: int
    device: int
    rank: int
    weight: float | None
    loss: float
    update_norm: float


@dataclass(frozen=True, slots=True)
class HostRow:
    """One row of `host.csv`: real seconds of one part of the program."""

    round: int
    part: str
    host_s: float


#: The CSV files of a run directory and the rows they hold; `labels.csv` only if there are classes.
TABLES: dict[str, type[Any]] = {
    "timeline.csv": Interval,
    "spectrum.csv": Spectrum,
    "rounds.csv": Round,
    "devices.csv": DeviceRow,
    "labels.csv": LabelRow,
    "plan.csv": PlanRow,
    "updates.csv": UpdateRow,
    "host.csv": HostRow,
}


def columns(row: type[Any]) -> list[str]:
    """Column names of a row type, in order."""
    return [field.name for field in dataclasses.fields(row)]


class CsvTable:
    """A CSV file (RFC 4180, UTF-8) that takes rows of one type as they come.

    Numbers are written with the fewest digits that read back to the same value.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._names = columns(TABLES[name])
        self._file = (folder / name).open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(self._names)

    def write(self, row: Any) -> None:
        """Append a row; None becomes an empty cell."""
        self._writer.writerow([getattr(row, name) for name in self._names])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
