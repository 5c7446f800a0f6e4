"""The run directory: tables written as the run goes, totals kept on the way."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer import Plan, Problem
from optimizer.share import expected_bandwidth
from sim.errors import InputError
from sim.parquet import ParquetTable, copy_csv
from sim.scenario import dump_scenario
from sim.system import System
from sim.timeline import (
    BLOCK,
    COURSE,
    TABLES,
    CsvTable,
    DeviceRow,
    HostRow,
    Interval,
    LabelRow,
    Piece,
    PlanRow,
    Round,
    Spectrum,
    UpdateRow,
    cells,
    columns,
    writing,
)
from sim.totals import Activity, Totals
from sim.whole import write_whole
from wireless import streams

#: Devices of the largest fleet whose tables are CSV files; a larger one's are Parquet files.
MOST_IN_CSV = 100_000

_OF_FLEET = ("devices.csv", "plan.csv")


def check_folder(out: Path) -> None:
    """Refuse an occupied run directory before any work is done.

    Raises
    ------
    InputError
        If `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not an empty folder; name another or remove it")


def new_folder(out: Path, resume: bool = False) -> Path:
    """Make a run directory; an empty one, unless a run is resumed.

    Raises
    ------
    InputError
        If `out` exists and is not an empty folder, or cannot be made.
    """
    if not resume:
        check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None
    return out


class Records:
    """Writes a run's files and adds up what each device and round did.

    Memory does not grow with the length of the run, and files hold whole lines at any time.

    Parameters
    ----------
    folder
        Run directory, empty.
    system
        Whose run it is.

    Raises
    ------
    RunError
        Here and in every method, if a file cannot be written.
    """

    def __init__(self, folder: Path, system: System) -> None:
        self._folder = folder
        self._system = system
        self._totals = Totals(len(system.fleet), system.scenario.radio.downlink == "unicast")
        self._rows: list[Interval] = []
        with writing(folder / "scenario.yaml"):
            write_whole(folder / "scenario.yaml", dump_scenario(system.scenario).encode())
        self._open = ExitStack()
        names = tables_of(system)
        if system.scenario.output.parquet:
            for name in COURSE["full"]:
                if name in names:
                    # Last of all, from the finished file, so that a killed run lacks nothing else.
                    self._open.callback(copy_csv, folder, name)
        self._by_row: dict[str, CsvTable] = {}
        self._by_column: dict[str, CsvTable | ParquetTable] = {}
        for name in names:
            if name in _OF_FLEET:
                kind = CsvTable if len(system.fleet) <= MOST_IN_CSV else ParquetTable
                self._by_column[name] = kind(folder, name)
                self._open.callback(self._by_column[name].close)
            else:
                self._by_row[name] = self._open.enter_context(CsvTable(folder, name))
        self._log_path = folder / "run.log"
        with writing(self._log_path):
            self._log = self._open.enter_context(self._log_path.open("w", encoding="utf-8"))
        self._open.callback(self._settle)
        self._timeline = self._by_row.get("timeline.csv")
        self._spectrum = self._by_row.get("spectrum.csv")
        self._pieces = self._by_row.get("pieces.csv")

    def close(self) -> None:
        """Complete and close every file."""
        self._open.close()

    def log(self, line: str) -> None:
        """Append a line to `run.log`."""
        with writing(self._log_path):
            print(line, file=self._log, flush=True)

    def interval(self, row: Interval) -> None:
        """Write a timeline row, if the timeline is written, and add it to the totals."""
        self._rows.append(row)
        if len(self._rows) >= BLOCK:
            self._settle()

    def spectrum(self, row: Spectrum) -> None:
        """Write a spectrum row, if the timeline is written."""
        if self._spectrum is not None:
            self._spectrum.write(row)

    def piece(self, row: Piece) -> None:
        """Write a row of a transfer's piece, if the timeline is written in full."""
        if self._pieces is not None:
            self._pieces.write(row)

    def round_totals(self) -> tuple[int, int, float]:
        """Bytes down, bytes up and joules since the last call."""
        self._settle()
        return self._totals.round()

    def round(self, row: Round) -> None:
        """Write a rounds row, and with it everything up to the end of the round."""
        self._by_row["rounds.csv"].write(row)
        self._settle()
        for table in self._by_row.values():
            table.flush()

    def host(self, row: HostRow) -> None:
        """Write a row of real seconds."""
        self._by_row["host.csv"].write(row)

    def plan(
        self, problem: Problem, plan: Plan, round_index: int, before: Plan | None = None
    ) -> None:
        """Write a plan for a problem that holds from `round_index` on; see `plan_columns`."""
        values = plan_columns(self._system, problem, plan, round_index, before)
        self._by_column["plan.csv"].write_columns(values)

    def update(self, row: UpdateRow) -> None:
        """Write what the server learnt from one device."""
        self._by_row["updates.csv"].write(row)

    def labels(self) -> None:
        """Write which classes every device holds, if the data have classes."""
        for row in label_rows(self._system):
            self._by_row["labels.csv"].write(row)

    def devices(self) -> None:
        """Write every device with what it did."""
        self._settle()
        every = np.arange(len(self._system.fleet))
        values = device_columns(self._system, every, self._totals.activity())
        self._by_column["devices.csv"].write_columns(values)

    def summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`; a run that has it has finished, so the other files come first."""
        path = self._folder / "summary.json"
        text = json.dumps(values, indent=2, allow_nan=False)
        with writing(path):
            write_whole(path, text.encode(), b"\n")

    def _settle(self) -> None:
        """Add up and write the rows that were held back."""
        rows, self._rows = self._rows, []
        self._totals.add(rows)
        if self._timeline is not None:
            self._timeline.write_block(rows)


def tables_of(system: System) -> tuple[str, ...]:
    """Names of the tables that a run writes, by their CSV files.

    `labels.csv` only if the data have classes, those of the course of rounds by the level of
    `output.timeline`. Devices and plans of large fleets are kept as Parquet.
    """
    left_out = set(COURSE["full"]) - set(COURSE[system.scenario.output.timeline])
    if not system.workload.label_names:
        left_out.add("labels.csv")
    return tuple(name for name in TABLES if name not in left_out)


def label_rows(system: System) -> list[LabelRow]:
    """Rows of `labels.csv`: every class of which a device holds examples."""
    names, table = system.workload.label_names, system.workload.label_counts()
    return [
        LabelRow(int(n), names[c], int(table[n, c])) for n, c in zip(*table.nonzero(), strict=True)
    ]


def device_columns(
    system: System, device: NDArray[np.int64], activity: Activity
) -> dict[str, NDArray[Any]]:
    """Columns of `devices.csv`: who devices are, with what they did.

    Parameters
    ----------
    system
        What is simulated.
    device
        (M,) numbers of the devices.
    activity
        What each of the M did.
    """
    fleet, problem = system.fleet, system.problem
    start = fleet.channel.start
    values = (
        device,
        problem.weight[device],
        fleet.compute_flops[device],
        start.distance_m[device],
        start.path_loss_db[device] + start.shadowing_db[device],
        start.snr_db[device],
        system.workload.samples[device],
        problem.rank_cap[device],
        activity.sampled,
        activity.completed,
        activity.bytes_up,
        activity.bytes_down,
        activity.busy_s,
        activity.energy_j,
        np.array(system.world.kinds)[fleet.kind[device]],
        start.x_m[device],
        start.y_m[device],
        start.cell[device],
        start.los[device].astype(np.int64),
        start.downlink_snr_db[device],
        fleet.step_overhead_s[device],
        fleet.channel.max_power_dbm[device],
        system.solo_bps[device],
    )
    return dict(zip(columns(DeviceRow), values, strict=True))


def plan_columns(
    system: System,
    problem: Problem,
    plan: Plan,
    round_index: int,
    before: Plan | None = None,
) -> dict[str, NDArray[Any]]:
    """Columns of `plan.csv` for a plan; NaN where there is no value.

    Parameters
    ----------
    system
        What is simulated.
    problem
        What the plan answers.
    plan
        The plan.
    round_index
        The first round that it holds for.
    before
        The plan in force until then: devices that keep rank and probability get no row.
    """
    changed = np.ones(problem.devices, dtype=np.bool_)
    if before is not None:
        changed = (plan.rank != before.rank) | (plan.probability != before.probability)
    device = np.flatnonzero(changed)
    band = np.zeros(problem.devices)
    if system.fleet.channel.radio.analog is not None:
        band[:] = problem.bandwidth_hz
    elif len(device):
        seed = streams.key(system.scenario.seed, "plan")
        band = expected_bandwidth(problem, plan.rank, plan.probability, seed)
    values = (
        np.full(len(device), round_index),
        device,
        plan.rank[device],
        plan.probability[device],
        problem.compute_s(plan.rank)[device],
        system.workload.cost.upload_bits(plan.rank)[device],
        band[device],
    )
    return dict(zip(columns(PlanRow), values, strict=True))


def plan_rows(
    system: System,
    problem: Problem,
    plan: Plan,
    round_index: int,
    before: Plan | None = None,
) -> list[PlanRow]:
    """Rows of `plan.csv` for a plan; see `plan_columns`."""
    values = plan_columns(system, problem, plan, round_index, before)
    return [PlanRow(*row) for row in zip(*map(cells, values.values()), strict=True)]


def plan_summary(plan: Plan) -> dict[str, Any]:
    """A plan's figures as `summary.json` holds them; what is not known is null."""
    figures = {
        "policy": plan.policy,
        "expected_round_s": plan.expected_round_s,
        "rounds": plan.rounds,
        "objective_s": plan.objective_s,
        "mean_rank": float(plan.rank.mean()),
        **dataclasses.asdict(plan.certificate),
    }
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
