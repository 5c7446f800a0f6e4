"""The run directory: tables written as the run goes, totals kept on the way."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fslora.data import label_histogram
from optimizer import Plan, Problem
from optimizer.share import expected_bandwidth
from sim.errors import InputError
from sim.scenario import dump_scenario
from sim.system import System
from sim.timeline import (
    TABLES,
    CsvTable,
    DeviceRow,
    HostRow,
    Interval,
    LabelRow,
    PlanRow,
    Round,
    Spectrum,
    UpdateRow,
)
from wireless import streams


def check_folder(out: Path) -> None:
    """Refuse an occupied run directory before any work is done.

    Raises
    ------
    InputError
        If `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not an empty folder; name another or remove it")


def new_folder(out: Path) -> Path:
    """Make an empty run directory.

    Raises
    ------
    InputError
        If `out` exists and is not an empty folder, or cannot be made.
    """
    check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror})") from None
    return out


class Records:
    """Writes a run's files and adds up what each device and round did.

    Parameters
    ----------
    folder
        Run directory, empty.
    system
        Whose run it is.
    """

    def __init__(self, folder: Path, system: System) -> None:
        self._folder = folder
        self._system = system
        self._open = ExitStack()
        self._table = {
            name: self._open.enter_context(CsvTable(folder, name)) for name in tables_of(system)
        }
        devices = len(system.fleet)
        self._bytes_up = np.zeros(devices, dtype=np.int64)
        self._bytes_down = np.zeros(devices, dtype=np.int64)
        self._busy_s = np.zeros(devices)
        self._energy_j = np.zeros(devices)
        self._sampled = np.zeros(devices, dtype=np.int64)
        self._completed = np.zeros(devices, dtype=np.int64)
        self._round = (0, 0, 0.0)
        self._unicast = system.scenario.radio.downlink == "unicast"
        (folder / "scenario.yaml").write_text(dump_scenario(system.scenario), encoding="utf-8")
        self._log = self._open.enter_context((folder / "run.log").open("w", encoding="utf-8"))

    def close(self) -> None:
        """Flush and close every file."""
        self._open.close()

    def log(self, line: str) -> None:
        """Append a line to `run.log`."""
        print(line, file=self._log, flush=True)

    def interval(self, row: Interval) -> None:
        """Write a timeline row and add it to the totals."""
        self._table["timeline.csv"].write(row)
        down, up, energy = self._round
        size = row.bytes or 0
        if row.phase == "downlink" and (row.device is None or self._unicast):
            down += size
        if row.device is None:
            pass
        else:
            self._busy_s[row.device] += row.end_s - row.start_s
            self._energy_j[row.device] += row.energy_j or 0.0
            energy += row.energy_j or 0.0
            if row.phase == "downlink":
                self._bytes_down[row.device] += size
            elif row.phase == "uplink":
                # The last thing that happens to every device of a round, whatever its outcome.
                self._bytes_up[row.device] += size
                self._sampled[row.device] += 1
                self._completed[row.device] += row.outcome == "done"
                up += size
        self._round = (down, up, energy)

    def spectrum(self, row: Spectrum) -> None:
        """Write a spectrum row."""
        self._table["spectrum.csv"].write(row)

    def round_totals(self) -> tuple[int, int, float]:
        """Bytes down, bytes up and joules since the last call."""
        totals, self._round = self._round, (0, 0, 0.0)
        return totals

    def round(self, row: Round) -> None:
        """Write a rounds row."""
        self._table["rounds.csv"].write(row)

    def host(self, row: HostRow) -> None:
        """Write a row of real seconds."""
        self._table["host.csv"].write(row)

    def plan(
        self, problem: Problem, plan: Plan, round_index: int, before: Plan | None = None
    ) -> None:
        """Write a plan for a problem that holds from `round_index` on; see `plan_rows`."""
        for row in plan_rows(self._system, problem, plan, round_index, before):
            self._table["plan.csv"].write(row)

    def update(self, row: UpdateRow) -> None:
        """Write what the server learnt from one device."""
        self._table["updates.csv"].write(row)

    def labels(self) -> None:
        """Write which classes every device holds, if the data have classes."""
        for row in label_rows(self._system):
            self._table["labels.csv"].write(row)

    def devices(self) -> None:
        """Write every device with what it did."""
        for n in range(len(self._system.fleet)):
            row = device_row(
                self._system,
                n,
                int(self._sampled[n]),
                int(self._completed[n]),
                int(self._bytes_up[n]),
                int(self._bytes_down[n]),
                float(self._busy_s[n]),
                float(self._energy_j[n]),
            )
            self._table["devices.csv"].write(row)

    def summary(self, values: dict[str, Any]) -> None:
        """Write `summary.json`."""
        text = json.dumps(values, indent=2, allow_nan=False)
        (self._folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def tables_of(system: System) -> tuple[str, ...]:
    """Names of the CSV files that a run writes: `labels.csv` only if the data have classes."""
    classes = system.workload.dataset.label_names
    return tuple(name for name in TABLES if classes or name != "labels.csv")


def label_rows(system: System) -> list[LabelRow]:
    """Rows of `labels.csv`: every class of which a device holds examples."""
    workload = system.workload
    names = workload.dataset.label_names
    table = label_histogram(workload.dataset.train, workload.shards, len(names))
    return [
        LabelRow(int(n), names[c], int(table[n, c])) for n, c in zip(*table.nonzero(), strict=True)
    ]


def device_row(
    system: System,
    n: int,
    sampled: int,
    completed: int,
    bytes_up: int,
    bytes_down: int,
    busy_s: float,
    energy_j: float,
) -> DeviceRow:
    """Row of `devices.csv`: who device n is, with what it did."""
    fleet, start, shard = system.fleet, system.fleet.channel.start, system.workload.shards[n]
    return DeviceRow(
        n,
        float(system.problem.weight[n]),
        float(fleet.compute_flops[n]),
        float(start.distance_m[n]),
        float(start.path_loss_db[n] + start.shadowing_db[n]),
        float(start.snr_db[n]),
        len(shard),
        int(system.problem.rank_cap[n]),
        sampled,
        completed,
        bytes_up,
        bytes_down,
        busy_s,
        energy_j,
        system.world.kinds[int(fleet.kind[n])],
        float(start.x_m[n]),
        float(start.y_m[n]),
        int(start.cell[n]),
        int(start.los[n]),
        float(start.downlink_snr_db[n]),
        float(fleet.step_overhead_s[n]),
        float(fleet.channel.max_power_dbm[n]),
        float(system.solo_bps[n]),
    )


def plan_rows(
    system: System,
    problem: Problem,
    plan: Plan,
    round_index: int,
    before: Plan | None = None,
) -> list[PlanRow]:
    """Rows of `plan.csv` for a plan.

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
    if not changed.any():
        return []
    compute_s = problem.compute_s(plan.rank)
    bits = problem.upload_bits(plan.rank)
    seed = streams.key(system.scenario.seed, "plan")
    band = expected_bandwidth(problem, plan.rank, plan.probability, seed)
    return [
        PlanRow(
            round_index,
            n,
            int(plan.rank[n]),
            float(plan.probability[n]),
            float(compute_s[n]),
            float(bits[n]),
            None if np.isnan(band[n]) else float(band[n]),
        )
        for n in np.flatnonzero(changed).tolist()
    ]


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
