"""Re-checking a finished run from its files alone.

Two ways, neither by checksum. Every row is computed again by closed forms, from the scenario and
the plan on disk, without the event engine; and physical invariants are checked on the rows as they
stand: the band is never exceeded, nobody does two things at once, totals add up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from fslora.data import Examples
from fslora.tasks import METRICS
from optimizer import Plan, draw_cohort, judge
from sim.compare import cost_to
from sim.errors import InputError
from sim.findings import TOLERANCE, Finding, close, compare_rows
from sim.invariants import band_never_exceeded, one_thing_at_a_time, round_totals
from sim.load import check_names
from sim.records import device_row, label_rows, plan_rows, plan_summary, tables_of
from sim.rundir import RunFiles
from sim.schedules.synchronous import Granted, grant
from sim.sections.base import NUMBER_BITS
from sim.sections.course import Target
from sim.system import System, build_system
from sim.timeline import Interval, Round
from wireless import streams
from wireless.energy import compute_energy_j, uplink_energy_j


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
    findings = [*_plan(system, tables["plan.csv"])]
    if not findings:
        plan = _evaluated(system, tables["plan.csv"])
        findings += _recomputed(system, plan, tables)
        findings += _stated("plan", run.summary.get("plan"), plan_summary(plan), "plan.csv")
    findings += band_never_exceeded(
        tables["timeline.csv"], tables["spectrum.csv"], run.scenario.radio.bandwidth_hz
    )
    findings += one_thing_at_a_time(tables["timeline.csv"])
    findings += round_totals(tables["timeline.csv"], tables["rounds.csv"])
    findings += _devices(system, tables["timeline.csv"], tables["devices.csv"])
    if "labels.csv" in tables:
        findings += compare_rows(
            "labels.csv", tables["labels.csv"], label_rows(system), ["device", "label"], 0.0
        )
    findings += _evaluations(system, tables["rounds.csv"])
    findings += _summary(run, tables["rounds.csv"])
    findings += _final_metrics(system, run.summary)
    findings += _traffic(run, tables["timeline.csv"], tables["plan.csv"])
    return Verdict(sum(map(len, tables.values())), tuple(findings))


def _plan(system: System, frame: pd.DataFrame) -> Iterator[Finding]:
    """Ranks and probabilities within bounds, one row per device; the rest recomputed."""
    problem = system.problem
    if list(frame["device"]) != list(range(problem.devices)) or (frame["round"] != 1).any():
        yield Finding("plan.csv", None, f"expected devices 0 to {problem.devices - 1} from round 1")
        return
    for number in range(problem.devices):
        rank, q = frame["rank"].iloc[number], frame["probability"].iloc[number]
        if not (1 <= rank <= problem.rank_cap[number] and rank == int(rank)):
            cap = problem.rank_cap[number]
            yield Finding("plan.csv", number + 2, f"rank is {rank}, device allows 1 to {cap}")
        if not problem.min_probability * (1 - TOLERANCE) <= q <= 1:
            low = problem.min_probability
            yield Finding("plan.csv", number + 2, f"probability is {q}, bounds are {low} and 1")


def _evaluated(system: System, frame: pd.DataFrame) -> Plan:
    """The plan on disk with what it is expected to cost, estimated again."""
    problem, seed = system.problem, streams.key(system.scenario.seed, "plan")
    rank = frame["rank"].to_numpy(dtype=np.int64)
    probability = frame["probability"].to_numpy(dtype=np.float64)
    return judge(problem, system.scenario.policy.name, rank, probability, seed)


def _recomputed(system: System, plan: Plan, tables: dict[str, pd.DataFrame]) -> Iterator[Finding]:
    """Timeline, round times and plan against closed forms."""
    problem, scenario = system.problem, system.scenario
    yield from compare_rows(
        "plan.csv", tables["plan.csv"], plan_rows(system, plan, 1), ["round", "device"], 0.0
    )
    rounds = tables["rounds.csv"]
    if not len(rounds) or list(rounds["round"]) != list(range(len(rounds))):
        yield Finding("rounds.csv", None, "rounds must be numbered from 0 without gaps")
        return
    expected = [Round(0, 0.0, 0.0, 0.0)]
    intervals: list[Interval] = []
    dispatched = np.zeros(problem.devices, dtype=np.int64)
    for number in range(1, len(rounds)):
        start_s = expected[-1].end_s
        cohort = draw_cohort(plan, problem.weight, scenario.seed, number)
        granted = grant(system, cohort, number, dispatched)
        dispatched[cohort.device] += 1
        rows = _round_by_formula(system, granted, number, start_s)
        intervals += rows
        expected.append(
            Round(
                number,
                start_s,
                rows[-1].end_s,
                rows[-1].end_s - start_s,
                plan.expected_round_s,
                system.broadcast_s + granted.finish_s + scenario.schedule.overhead_s,
                len(granted.jobs),
                len(granted.jobs),
            )
        )
    for number, row in enumerate(expected):
        yield from _round_row(number, rounds.iloc[number], row)
    yield from compare_rows(
        "timeline.csv",
        tables["timeline.csv"],
        intervals,
        ["round", "device", "phase"],
        expected[-1].end_s,
    )


def _round_row(number: int, found: pd.Series[Any], wanted: Round) -> Iterator[Finding]:
    """Times and counts of a round; a training loss exactly where somebody trained."""
    names = ("start_s", "end_s", "duration_s", "expected_s", "cohort_s", "sampled", "completed")
    for name in names:
        value = getattr(wanted, name)
        scale = wanted.end_s if name in ("start_s", "end_s", "duration_s") else 0.0
        if not close(found[name], value, scale):
            yield Finding(
                "rounds.csv",
                number + 2,
                f"round {number}: {name} is {found[name]}, expected {value}",
            )
    if pd.isna(found["train_loss"]) != (wanted.completed == 0):
        yield Finding(
            "rounds.csv",
            number + 2,
            f"round {number}: train_loss is {found['train_loss']}, {wanted.completed} trained",
        )


def _round_by_formula(
    system: System, granted: Granted, number: int, start_s: float
) -> list[Interval]:
    """A round's intervals: broadcast, compute, upload, aggregate, one after the other."""
    size = system.workload.cost.download_bits // 8
    band, rate = system.scenario.radio.downlink_bandwidth_hz, system.broadcast_bps
    heard_s = start_s + system.broadcast_s
    rows = [Interval(number, None, "downlink", start_s, heard_s, size, band, rate)]
    end_s = heard_s
    for job in granted.dispatches:
        ready_s = heard_s + job.compute_s
        upload_s = 8 * job.upload_bytes / job.rate_bps
        sent_s = ready_s + upload_s
        end_s = max(end_s, sent_s)
        energy = float(compute_energy_j(job.compute_power_w, job.compute_s))
        upload = float(uplink_energy_j(job.tx_power_dbm, upload_s))
        rows += [
            Interval(
                number, job.device, "downlink", start_s, heard_s, size, band, rate, energy_j=0.0
            ),
            Interval(number, job.device, "compute", heard_s, ready_s, energy_j=energy),
            Interval(
                number,
                job.device,
                "uplink",
                ready_s,
                sent_s,
                job.upload_bytes,
                job.bandwidth_hz,
                job.rate_bps,
                upload,
            ),
        ]
    overhead_s = system.scenario.schedule.overhead_s
    return [*rows, Interval(number, None, "aggregate", end_s, end_s + overhead_s)]


def _devices(system: System, timeline: pd.DataFrame, devices: pd.DataFrame) -> Iterator[Finding]:
    """Who each device is follows from the scenario, what it did from the timeline."""
    own = timeline[timeline["device"].notna()]
    seconds = (own["end_s"] - own["start_s"]).groupby(own["device"]).sum()
    energy = own.groupby("device")["energy_j"].sum()
    by_phase = own.groupby(["device", "phase"])["bytes"].agg(["sum", "size"])

    def of(n: int, phase: str, what: str) -> int:
        return int(by_phase[what].get((n, phase), 0))

    expected = [
        device_row(
            system,
            n,
            of(n, "downlink", "size"),
            of(n, "uplink", "size"),
            of(n, "uplink", "sum"),
            of(n, "downlink", "sum"),
            float(seconds.get(n, 0.0)),
            float(energy.get(n, 0.0)),
        )
        for n in range(len(system.fleet))
    ]
    yield from compare_rows("devices.csv", devices, expected, ["device"], 0.0)


def _evaluations(system: System, rounds: pd.DataFrame) -> Iterator[Finding]:
    """The model is evaluated when the scenario says, and loss and metric tell the same story."""
    scenario, held_out = system.scenario, system.workload.dataset.held_out
    last = len(rounds) - 1
    for number in range(len(rounds)):
        loss, metric = rounds["eval_loss"].iloc[number], rounds["eval_metric"].iloc[number]
        due = number in (0, last) or number % scenario.output.evaluate_every == 0
        if pd.isna(loss) == due or pd.isna(metric) == due:
            word = "missing" if due else "unexpected"
            yield Finding("rounds.csv", number + 2, f"round {number}: evaluation is {word}")
        elif due:
            wrong = _impossible(scenario.data.eval_metric, metric, loss, held_out)
            if wrong is not None:
                yield Finding(
                    "rounds.csv", number + 2, f"round {number}: eval_metric is {metric}, {wrong}"
                )


def _final_metrics(system: System, summary: Mapping[str, Any]) -> Iterator[Finding]:
    """All metrics of the last evaluation are there, and can be together with its loss."""
    data = system.scenario.data
    stated, loss = summary.get("eval_metrics_last"), summary.get("eval_loss_last")
    found = stated if isinstance(stated, dict) else {}
    if set(found) != set(METRICS[data.task]):
        yield Finding(
            "summary.json", None, f"eval_metrics_last must hold {', '.join(METRICS[data.task])}"
        )
        return
    if not isinstance(loss, int | float):
        return
    for name, value in found.items():
        wrong = (
            "expected a number"
            if not isinstance(value, int | float)
            else _impossible(name, value, loss, system.workload.dataset.held_out)
        )
        if wrong is not None:
            yield Finding("summary.json", None, f"eval_metrics_last.{name} is {value}, {wrong}")
    chosen = {"eval_metric_last": found[data.eval_metric]}
    yield from _stated("", summary, chosen, f"eval_metrics_last.{data.eval_metric}")


def _impossible(name: str, value: float, loss: float, held_out: Examples) -> str | None:
    """What a metric cannot be for, measured with this loss on these examples; None if it can."""
    tokens = int((held_out.length - held_out.prompt).sum())
    # The same nats per byte of text and per predicted token.
    of_loss = {
        "bits_per_byte": loss * tokens / int(held_out.predicted_bytes.sum()) / math.log(2),
        "perplexity": math.exp(min(loss, math.log(sys.float_info.max))),
    }
    if name in of_loss:
        wanted = of_loss[name]
        return None if close(value, wanted) else f"eval_loss {loss} gives {wanted}"
    count, least = len(held_out), -1.0 if name == "matthews" else 0.0
    if not least <= value <= 1.0:
        return f"expected {least:g} to 1"
    if name in ("accuracy", "exact_match") and not close(value * count, round(value * count), 1.0):
        return f"not a share of {count} examples"
    return None


def _summary(run: RunFiles, rounds: pd.DataFrame) -> Iterator[Finding]:
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
    yield from _stated("", run.summary, totals, "rounds.csv")
    choices = {
        "name": scenario.name,
        "seed": scenario.seed,
        "devices": scenario.fleet.devices,
        "metric": scenario.data.eval_metric,
    }
    yield from _stated("", run.summary, choices, "scenario.yaml")
    aims = dict.fromkeys(Target.model_fields) if target is None else target.model_dump()
    yield from _stated("target", run.summary.get("target"), aims, "scenario.yaml")
    cost = None if target is None else cost_to(run, target)
    when = {
        name: None if cost is None else getattr(cost, name)
        for name in ("round", "time_s", "interpolated_s")
    }
    yield from _stated("reached", run.summary.get("reached"), when, "rounds.csv")
    enough = stop.simulated_s is not None and end_s >= stop.simulated_s
    if not (totals["rounds"] == stop.rounds or enough or (stop.at_target and cost is not None)):
        yield Finding(
            "rounds.csv", None, f"ends after round {totals['rounds']} though nothing stops it there"
        )


def _stated(
    section: str, stated: object, wanted: Mapping[str, Any], source: str
) -> Iterator[Finding]:
    """Compare a section of `summary.json` (null counts as empty) with what a file gives."""
    found = stated if isinstance(stated, dict) else {}
    for name, value in wanted.items():
        if not close(found.get(name), value):
            key = f"{section}.{name}" if section else name
            yield Finding(
                "summary.json", None, f"{key} is {found.get(name)}, {source} gives {value}"
            )


def _traffic(run: RunFiles, timeline: pd.DataFrame, plan: pd.DataFrame) -> Iterator[Finding]:
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
    ranks = dict(zip(plan["device"], plan["rank"], strict=True))
    uplink = timeline[timeline["phase"] == "uplink"]
    for number, device, size in zip(uplink.index, uplink["device"], uplink["bytes"], strict=True):
        wanted = (int(ranks.get(device, 0)) * per_rank + fixed) * number_bytes
        if size != wanted:
            yield Finding(
                "timeline.csv",
                int(number) + 2,
                f"device {device:.0f} uploads {size:.0f} bytes, its rank and the adapter's shapes "
                f"give {wanted}",
            )
