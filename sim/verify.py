"""Re-checking a finished run from its files alone.

Two ways, neither by checksum. Every row is computed again by formula, from the scenario and the
plans on disk, without the event engine; and physical invariants are checked on the rows as they
stand: the band is never exceeded, nobody does two things at once, totals add up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from optimizer import Plan
from sim.compare import cost_to
from sim.errors import InputError, RunError
from sim.evaluations import evaluations, final_metrics
from sim.findings import Finding, close, compare_rows, stated
from sim.formula import Recomputed, Recorded, recompute
from sim.invariants import (
    band_never_exceeded,
    one_thing_at_a_time,
    round_totals,
    spectrum_rows,
)
from sim.load import check_names
from sim.planning import with_norms
from sim.plans_on_disk import BadPlan, PlansOnDisk
from sim.records import device_row, label_rows, plan_summary, tables_of
from sim.rundir import RunFiles
from sim.sections.base import NUMBER_BITS
from sim.sections.course import Target
from sim.steering import Steering
from sim.system import System, build_system
from sim.timeline import Round, UpdateRow


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a verification.

    Parameters
    ----------
    rows
        Rows checked.
    findings
        What does not hold, empty for a sound run.
    """

    rows: int
    findings: tuple[Finding, ...]


def verify(run: RunFiles) -> Verdict:
    """Check every invariant of a finished run.

    Losses are taken as recorded: only training again could tell them.

    Raises
    ------
    InputError
        If a file is missing or malformed, or the data of the run are not on this machine.
    """
    check_names(run.scenario)
    system = build_system(run.scenario)
    if system.workload.dataset.sha256 != run.summary.get("data_sha256"):
        raise InputError(
            f"{run.folder}: was made with other data (data_sha256 differs); verify it where "
            f"{run.scenario.data.source} reads as it did then"
        )
    # What the host took differs from run to run.
    tables = {name: run.table(name) for name in tables_of(system) if name != "host.csv"}
    findings, oracle = _oracle(system, tables["updates.csv"])
    findings += [*_first_plan(system, tables["plan.csv"]), *_numbered(tables["rounds.csv"])]
    deserted = False
    if not findings:
        system = with_norms(system, oracle) if oracle else system
        plans = PlansOnDisk(system, tables["plan.csv"])
        try:
            plan = plans(system.problem, 1)
            steering = Steering(system, plan, plans)
            wanted = recompute(system, steering, _recorded(tables))
        except BadPlan as error:
            findings += error.findings
        except RunError as error:
            findings.append(Finding("rounds.csv", None, f"has a round too many: {error}"))
        else:
            deserted = wanted.deserted
            findings += plans.findings()
            findings += _recomputed(wanted, oracle, tables)
            findings += band_never_exceeded(
                tables["timeline.csv"], tables["spectrum.csv"], wanted.band_hz
            )
            end_s = wanted.rounds[-1].end_s
            findings += spectrum_rows(tables["spectrum.csv"], wanted.spectrum, end_s)
            findings += stated("", run.summary, {"plans": steering.plans}, "plan.csv")
            findings += _stated_plan(run, plan)
    findings += one_thing_at_a_time(tables["timeline.csv"])
    unicast = run.scenario.radio.downlink == "unicast"
    findings += round_totals(tables["timeline.csv"], tables["rounds.csv"], unicast)
    findings += _devices(system, tables["timeline.csv"], tables["devices.csv"])
    if "labels.csv" in tables:
        findings += compare_rows(
            "labels.csv", tables["labels.csv"], label_rows(system), ["device", "label"], 0.0
        )
    findings += evaluations(system, tables["rounds.csv"])
    findings += _summary(run, tables["rounds.csv"], deserted)
    findings += final_metrics(system, run.summary)
    findings += _traffic(run, tables["timeline.csv"], tables["updates.csv"])
    return Verdict(sum(map(len, tables.values())), tuple(findings))


def _stated_plan(run: RunFiles, plan: Plan) -> Iterator[Finding]:
    """Figures of the first plan; its residual is next to zero where rounding is all of it."""
    found, figures = run.summary.get("plan"), plan_summary(plan)
    residual = figures.pop("kkt_residual")
    yield from stated("plan", found, figures, "plan.csv")
    told = found.get("kkt_residual") if isinstance(found, dict) else None
    if not close(told, residual, 1.0):
        message = f"plan.kkt_residual is {told}, plan.csv gives {residual}"
        yield Finding("summary.json", None, message)


def _numbered(rounds: pd.DataFrame) -> Iterator[Finding]:
    """Rounds are numbered from 0 on."""
    if not len(rounds) or list(rounds["round"]) != list(range(len(rounds))):
        yield Finding("rounds.csv", None, "rounds must be numbered from 0 without gaps")


def _oracle(system: System, updates: pd.DataFrame) -> tuple[list[Finding], list[UpdateRow]]:
    """What an oracle measured before the run: one update of every device, if there was one."""
    rows = updates[updates["round"] == 0]
    wanted = system.scenario.policy.knowledge == "oracle"
    devices = list(range(len(system.fleet))) if wanted else []
    if list(rows["device"]) != devices:
        word = f"devices 0 to {len(system.fleet) - 1}" if wanted else "nobody"
        return [Finding("updates.csv", None, f"expected {word} in round 0")], []
    cap = system.problem.rank_cap
    told = zip(rows["loss"], rows["update_norm"].clip(lower=0.0), strict=True)
    return [], [UpdateRow(0, n, int(cap[n]), None, *each) for n, each in enumerate(told)]


def _recorded(tables: dict[str, pd.DataFrame]) -> Recorded:
    """What of the run no formula gives."""
    rounds, updates = tables["rounds.csv"], tables["updates.csv"]
    names = ("round", "device", "loss", "update_norm")
    return Recorded(
        rounds["end_s"].tolist(),
        rounds["eval_loss"].tolist(),
        {
            # A norm below zero is a finding in the end, and no reason to stop here.
            (int(number), int(device)): (float(loss), max(float(norm), 0.0))
            for number, device, loss, norm in zip(*(updates[name] for name in names), strict=True)
        },
    )


def _first_plan(system: System, frame: pd.DataFrame) -> Iterator[Finding]:
    """The first plan is whole, and later ones come in the order of their rounds."""
    devices = system.problem.devices
    first = frame[frame["round"] <= 1]
    if list(first["device"]) != list(range(devices)) or (first["round"] != 1).any():
        yield Finding("plan.csv", None, f"expected devices 0 to {devices - 1} from round 1")
        return
    place = list(zip(frame["round"], frame["device"], strict=True))
    for number, (before, here) in enumerate(itertools.pairwise(place), start=3):
        if not before < here:
            yield Finding("plan.csv", number, "is not after the row before, by round and device")
            return
        if not 0 <= here[1] < devices:
            yield Finding("plan.csv", number, f"expected devices 0 to {devices - 1}")
            return


def _recomputed(
    wanted: Recomputed, oracle: list[UpdateRow], tables: dict[str, pd.DataFrame]
) -> Iterator[Finding]:
    """Timeline, round times and updates against closed forms."""
    rounds, updates = tables["rounds.csv"], tables["updates.csv"]
    for number, row in enumerate(wanted.rounds):
        yield from _round_row(number, rounds.iloc[number], row)
    yield from compare_rows(
        "timeline.csv",
        tables["timeline.csv"],
        wanted.intervals,
        ["round", "device", "phase"],
        wanted.rounds[-1].end_s,
    )
    yield from compare_rows(
        "updates.csv", updates, [*oracle, *wanted.updates], ["round", "device"], 0.0
    )


def _round_row(number: int, found: pd.Series[Any], wanted: Round) -> Iterator[Finding]:
    """Times and counts of a round, the mean of its updates' losses, and the policy's queue."""
    names = ("start_s", "end_s", "duration_s", "expected_s", "cohort_s", "sampled", "completed")
    for name in (*names, "train_loss", "queue_s"):
        value = getattr(wanted, name)
        scale = wanted.end_s if name in ("start_s", "end_s", "duration_s") else 0.0
        if not close(found[name], value, scale):
            yield Finding(
                "rounds.csv",
                number + 2,
                f"round {number}: {name} is {found[name]}, expected {value}",
            )


def _devices(system: System, timeline: pd.DataFrame, devices: pd.DataFrame) -> Iterator[Finding]:
    """Who each device is follows from the scenario, what it did from the timeline."""
    own = timeline[timeline["device"].notna()]
    seconds = (own["end_s"] - own["start_s"]).groupby(own["device"]).sum()
    energy = own.groupby("device")["energy_j"].sum()
    by_phase = own.groupby(["device", "phase"])["bytes"].agg(["sum", "size"])
    done = own[(own["phase"] == "uplink") & (own["outcome"] == "done")]
    completed = done.groupby("device").size()

    def of(n: int, phase: str, what: str) -> int:
        return int(by_phase[what].get((n, phase), 0))

    expected = [
        device_row(
            system,
            n,
            of(n, "uplink", "size"),
            int(completed.get(n, 0)),
            of(n, "uplink", "sum"),
            of(n, "downlink", "sum"),
            float(seconds.get(n, 0.0)),
            float(energy.get(n, 0.0)),
        )
        for n in range(len(system.fleet))
    ]
    yield from compare_rows("devices.csv", devices, expected, ["device"], 0.0)


def _summary(run: RunFiles, rounds: pd.DataFrame, deserted: bool) -> Iterator[Finding]:
    """What the run was, its totals, and why it ended follow from scenario and `rounds.csv`."""
    scenario, stop = run.scenario, run.scenario.stop
    seen = rounds[rounds["eval_loss"].notna()]
    if not len(seen):
        return
    end_s, target = float(rounds["end_s"].iloc[-1]), stop.target
    totals = {
        "rounds": int(rounds["round"].iloc[-1]),
        "simulated_s": end_s,
        "bytes_down": int(rounds["bytes_down"].sum()),
        "bytes_up": int(rounds["bytes_up"].sum()),
        "energy_j": float(rounds["energy_j"].sum()),
        "eval_loss_first": float(seen["eval_loss"].iloc[0]),
        "eval_loss_last": float(seen["eval_loss"].iloc[-1]),
        "eval_metric_first": float(seen["eval_metric"].iloc[0]),
        "eval_metric_last": float(seen["eval_metric"].iloc[-1]),
    }
    yield from stated("", run.summary, totals, "rounds.csv")
    choices = {
        "name": scenario.name,
        "seed": scenario.seed,
        "devices": scenario.fleet.devices,
        "metric": scenario.data.eval_metric,
    }
    yield from stated("", run.summary, choices, "scenario.yaml")
    aims = dict.fromkeys(Target.model_fields) if target is None else target.model_dump()
    yield from stated("target", run.summary.get("target"), aims, "scenario.yaml")
    cost = None if target is None else cost_to(run, target)
    when = {
        name: None if cost is None else getattr(cost, name)
        for name in ("round", "time_s", "interpolated_s")
    }
    yield from stated("reached", run.summary.get("reached"), when, "rounds.csv")
    enough = deserted or (stop.simulated_s is not None and end_s >= stop.simulated_s)
    if not (totals["rounds"] == stop.rounds or enough or (stop.at_target and cost is not None)):
        yield Finding(
            "rounds.csv", None, f"ends after round {totals['rounds']} though nothing stops it there"
        )


def _traffic(run: RunFiles, timeline: pd.DataFrame, updates: pd.DataFrame) -> Iterator[Finding]:
    """Uploads are rank x shapes x number size, with the shapes of the adapter on disk."""
    path = run.folder / "adapter" / "adapter_model.safetensors"
    per_rank = fixed = rank = 0
    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a mapping
                shape = tensors.get_slice(name).get_shape()
                if "lora_A" in name:
                    per_rank, rank = per_rank + shape[1], shape[0]
                elif "lora_B" in name:
                    per_rank += shape[0]
                else:
                    fixed += int(np.prod(shape))
    except (OSError, SafetensorError) as error:
        yield Finding("adapter/adapter_model.safetensors", None, f"cannot be read ({error})")
        return
    if rank != run.scenario.lora.rank:
        yield Finding(
            "adapter/adapter_model.safetensors",
            None,
            f"has rank {rank}, the scenario {run.scenario.lora.rank}",
        )
    number_bytes = NUMBER_BITS[run.scenario.method.number_format] // 8
    who = zip(updates["round"], updates["device"], strict=True)
    ranks = dict(zip(who, updates["rank"], strict=True))
    uplink = timeline[(timeline["phase"] == "uplink") & (timeline["outcome"] == "done")]
    rows = (uplink[name] for name in ("round", "device", "bytes"))
    for number, which, device, size in zip(uplink.index, *rows, strict=True):
        wanted = (int(ranks.get((which, device), 0)) * per_rank + fixed) * number_bytes
        if size != wanted:
            yield Finding(
                "timeline.csv",
                int(number) + 2,
                f"device {device:.0f} uploads {size:.0f} bytes, its rank and the adapter's shapes "
                f"give {wanted}",
            )
