"""Re-checking a finished run from its files alone.

Three ways, none by checksum. The run is played back: its own schedule runs again, on the plans on
disk and with the ends of uploads as the timeline has them, and every row must be one that this asks
for. The uploads, which nothing in that simulates, are checked by physics: bits, rates, energies,
and the bands in use, that they add up to. And where nothing can come between, they are computed
again by the closed form of their rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from optimizer import Plan
from sim.bands import bands_in_use, pieces_of, uploads
from sim.compare import cost_to
from sim.errors import InputError
from sim.evaluations import evaluations, final_metrics
from sim.findings import TOLERANCE, Finding, close, compare, compare_table, stated, where
from sim.foretold import as_foretold, foretells
from sim.invariants import (
    activity_of,
    merged_after_arrival,
    never_more_out,
    one_thing_at_a_time,
    round_totals,
    rounds_follow,
    sound_rows,
    whole_parts,
)
from sim.load import check_names
from sim.part_rows import (
    Attempts,
    attempts_as_sent,
    attempts_of,
    others_unasked,
    parts_as_sent,
)
from sim.parts import DONE, Parts
from sim.planning import with_norms
from sim.plans_on_disk import BadPlan, PlansOnDisk
from sim.records import device_columns, label_rows, plan_summary, tables_of
from sim.replay import Recorded, Replay, replay
from sim.rundir import RunFiles
from sim.sections.base import NUMBER_BITS
from sim.sections.course import Target
from sim.sections.schedule import Asynchronous
from sim.sent import Sent
from sim.steering import Steering
from sim.system import System, build_system
from sim.target import Reached, interpolate
from sim.timeline import COURSE, LabelRow, Round, UpdateRow, columns
from sim.totals import Activity

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a verification.

    Parameters
    ----------
    rows
        Rows checked.
    findings
        What does not hold, empty for a sound run.
    unchecked
        What the files are not enough to check; empty if they are.
    """

    rows: int
    findings: tuple[Finding, ...]
    unchecked: str = ""


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
    if system.workload.data_sha256 != run.summary.get("data_sha256"):
        raise InputError(
            f"{run.folder}: was made with other data (data_sha256 differs); verify it where "
            f"{run.scenario.data.source} reads as it did then"
        )
    # What the host took differs from run to run.
    tables = {name: run.table(name) for name in tables_of(system) if name != "host.csv"}
    findings, oracle = _oracle(system, tables["updates.csv"])
    findings += [*_first_plan(system, tables["plan.csv"]), *_numbered(tables["rounds.csv"])]
    sound, unchecked = not findings, ""
    system = with_norms(system, oracle) if oracle and sound else system
    deserted: list[int] = []
    if "timeline.csv" in tables:
        findings += _timeline(run, system, tables, oracle, deserted, sound)
    else:
        unchecked = (
            "without a timeline (output.timeline is 'rounds') times, plans after the first, and "
            "who did what could not be recomputed"
        )
        findings += _rounds_alone(run, system, tables, sound)
    findings += rounds_follow(tables["rounds.csv"])
    findings += _labels(system, tables)
    findings += evaluations(system, tables["rounds.csv"])
    findings += _summary(run, tables["rounds.csv"], deserted)
    findings += final_metrics(system, run.summary)
    return Verdict(sum(map(len, tables.values())), tuple(findings), unchecked)


def _timeline(
    run: RunFiles,
    system: System,
    tables: Tables,
    oracle: list[UpdateRow],
    deserted: list[int],
    sound: bool,
) -> Iterator[Finding]:
    """All that a timeline allows to check; `deserted` takes the rounds that left nobody."""
    timeline, rounds = tables["timeline.csv"], tables["rounds.csv"]
    devices = len(system.fleet)
    known = sound_rows(timeline, devices)
    yield from where(
        "timeline.csv", timeline, ~known, "{phase} of device {device}, {outcome}: no such thing"
    )
    server = timeline["device"].isna().to_numpy()
    received = known & ~server & (timeline["phase"] == "downlink").to_numpy()
    received &= system.scenario.radio.downlink == "broadcast"
    parts = Parts.of(timeline, known & ~server & ~received)
    if sound:
        yield from _played(run, system, tables, oracle, deserted, parts, known & server, received)
    yield from whole_parts(timeline, parts)
    yield from one_thing_at_a_time(timeline)
    choice = system.scenario.schedule
    if isinstance(choice, Asynchronous) and choice.concurrency is not None:
        yield from never_more_out(parts, timeline, choice.concurrency)
    yield from round_totals(timeline, rounds, system.scenario.radio.downlink == "unicast")
    if not system.scenario.training.timing_only:
        yield from merged_after_arrival(timeline, rounds, tables["updates.csv"])
    activity = activity_of(timeline, parts, devices)
    yield from _devices(system, tables["devices.csv"], activity)


def _played(
    run: RunFiles,
    system: System,
    tables: Tables,
    oracle: list[UpdateRow],
    deserted: list[int],
    parts: Parts,
    served: np.ndarray[Any, np.dtype[np.bool_]],
    received: np.ndarray[Any, np.dtype[np.bool_]],
) -> Iterator[Finding]:
    """What comes out when the schedule is played back on the timeline."""
    timeline, rounds = tables["timeline.csv"], tables["rounds.csv"]
    plans = PlansOnDisk(system, tables["plan.csv"])
    last_s = max(timeline["end_s"].max() if len(timeline) else 0.0, rounds["end_s"].iloc[-1])
    try:
        plan = plans(system.problem, 1)
        steering = Steering(system, plan, plans)
        recorded = Recorded(rounds, tables["updates.csv"])
        told = replay(system, steering, recorded, parts, timeline[served], float(last_s))
    except BadPlan as error:
        yield from error.findings
        return
    deserted += told.deserted
    sent = Sent.of(system, told.playback)
    tries = attempts_of(timeline, parts, sent)
    followed_s = math.inf if told.trouble is None else told.playback.clock.now
    if told.trouble is None:
        yield from plans.findings()
        yield from stated("", run.summary, {"plans": steering.plans}, "plan.csv")
    else:
        yield told.trouble
    yield from _stated_plan(run, plan)
    yield from _rounds_and_updates(tables, told, oracle)
    yield from _served(system, timeline, served, received, parts, told)
    yield from parts_as_sent(system, timeline, parts, sent, followed_s)
    yield from attempts_as_sent(system, timeline, sent, tries, followed_s)
    yield from uploads(system, timeline, sent, tries)
    if told.trouble is None:
        asked = np.array([*told.playback.part, *(part for *_, part in told.playback.dropped)])
        yield from others_unasked(timeline, parts, asked[asked >= 0].astype(np.int64))
        spectrum = tables["spectrum.csv"]
        yield from bands_in_use(system, timeline, spectrum, sent, tries)
        if "pieces.csv" in tables:
            pieces = tables["pieces.csv"]
            yield from pieces_of(system, pieces, timeline, spectrum, sent, tries)
        yield from as_foretold(system, timeline, sent, tries, told.rounds)
        if foretells(system) and system.world.band is None:
            yield from _lasted_as_foretold(rounds)
        yield from _traffic(run, timeline, sent, tries)


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
    if not len(rounds) or (rounds["round"].to_numpy() != np.arange(len(rounds))).any():
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


def _first_plan(system: System, frame: pd.DataFrame) -> Iterator[Finding]:
    """The first plan is whole, and later ones come in the order of their rounds."""
    devices = system.problem.devices
    number, device = frame["round"].to_numpy(), frame["device"].to_numpy()
    first = int(np.count_nonzero(number <= 1))
    whole = np.array_equal(device[:first], np.arange(devices)) and (number[:first] == 1).all()
    if not whole:
        yield Finding("plan.csv", None, f"expected devices 0 to {devices - 1} from round 1")
        return
    after = (np.diff(number) > 0) | ((np.diff(number) == 0) & (np.diff(device) > 0))
    if not after.all():
        line = int(np.flatnonzero(~after)[0]) + 3
        yield Finding("plan.csv", line, "is not after the row before, by round and device")
    known = (device >= 0) & (device < devices)
    if not known.all():
        line = int(np.flatnonzero(~known)[0]) + 2
        yield Finding("plan.csv", line, f"expected devices 0 to {devices - 1}")


def _columns_of(rows: list[Any], row: type[Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Columns of rows; what is None is nan."""
    names = columns(row)
    values = list(zip(*map(attrgetter(*names), rows), strict=True)) or [()] * len(names)
    return {
        name: np.array([math.nan if each is None else each for each in column])
        if None in column or not column
        else np.array(column)
        for name, column in zip(names, values, strict=True)
    }


def _rounds_and_updates(tables: Tables, told: Replay, oracle: list[UpdateRow]) -> Iterator[Finding]:
    """Times, counts, losses and queues of the rounds, and what the server learnt."""
    wanted = _columns_of(told.rounds, Round)
    names = ("start_s", "end_s", "duration_s", "expected_s", "cohort_s", "sampled", "completed")
    chosen = {name: wanted[name] for name in (*names, "train_loss", "queue_s", "progress")}
    slack = {"duration_s": TOLERANCE * wanted["end_s"], "cohort_s": TOLERANCE * wanted["end_s"]}
    followed = tables["rounds.csv"].iloc[: len(told.rounds)]
    yield from compare("rounds.csv", followed, chosen, ["round"], slack)
    updates = tables["updates.csv"]
    if told.trouble is not None:
        updates = updates[updates["round"] < len(told.rounds)]
    rows = _columns_of([*oracle, *told.updates], UpdateRow)
    yield from compare_table("updates.csv", updates, rows, ["round", "device"])


def _served(
    system: System,
    timeline: pd.DataFrame,
    served: np.ndarray[Any, np.dtype[np.bool_]],
    received: np.ndarray[Any, np.dtype[np.bool_]],
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

    def spread(place: int) -> np.ndarray[Any, Any]:
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


def _lasted_as_foretold(rounds: pd.DataFrame) -> Iterator[Finding]:
    """Rounds last as long as the round-time formula says, where it tells all."""
    later = rounds.iloc[1:]
    wanted = {"duration_s": later["cohort_s"].to_numpy()}
    slack = {"duration_s": TOLERANCE * later["end_s"].to_numpy()}
    yield from compare("rounds.csv", later, wanted, ["round"], slack)


def _rounds_alone(run: RunFiles, system: System, tables: Tables, sound: bool) -> Iterator[Finding]:
    """What can be checked of a run without a timeline."""
    rounds, updates, devices = (tables[f"{name}.csv"] for name in ("rounds", "updates", "devices"))
    if sound:
        try:
            plan = PlansOnDisk(system, tables["plan.csv"])(system.problem, 1)
        except BadPlan as error:
            yield from error.findings
        else:
            yield from _stated_plan(run, plan)
    yield from where(
        "rounds.csv",
        rounds,
        (rounds["completed"] < 0).to_numpy(),
        "round {round}: completed below 0",
    )
    if not system.scenario.training.timing_only:
        trained = updates[updates["round"] > 0]
        count = np.bincount(trained["round"].clip(lower=0), minlength=len(rounds))[: len(rounds)]
        yield from compare("rounds.csv", rounds, {"completed": count}, ["round"])
        mass = np.bincount(trained["round"], trained["weight"], len(rounds))[: len(rounds)]
        product = trained["weight"] * trained["loss"]
        total = np.bincount(trained["round"], product, len(rounds))[: len(rounds)]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(count > 0, total / mass, np.nan)
        yield from compare("rounds.csv", rounds, {"train_loss": mean}, ["round"])
    did = Activity(
        *(devices[name].to_numpy() for name in ("rounds_sampled", "rounds_completed")),
        *(devices[name].to_numpy() for name in ("bytes_up", "bytes_down", "busy_s", "energy_j")),
    )
    yield from _devices(system, devices, did)
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


def _devices(system: System, devices: pd.DataFrame, activity: Activity) -> Iterator[Finding]:
    """Who each device is follows from the scenario, what it did from the timeline."""
    wanted = device_columns(system, np.arange(len(system.fleet)), activity)
    yield from compare_table("devices.csv", devices, wanted, ["device"])


def _labels(system: System, tables: Tables) -> Iterator[Finding]:
    """Which classes every device holds follows from the scenario."""
    if "labels.csv" in tables:
        wanted = _columns_of(label_rows(system), LabelRow)
        yield from compare_table("labels.csv", tables["labels.csv"], wanted, ["device", "label"])


def _summary(run: RunFiles, rounds: pd.DataFrame, deserted: list[int]) -> Iterator[Finding]:
    """What the run was, its totals, and why it ended follow from scenario and `rounds.csv`."""
    if not len(rounds):
        return
    scenario, stop = run.scenario, run.scenario.stop
    seen = rounds[rounds["eval_loss"].notna()]
    first, last = (seen.iloc[place] if len(seen) else None for place in (0, -1))
    end_s, target = float(rounds["end_s"].iloc[-1]), stop.target
    totals = {
        "rounds": int(rounds["round"].iloc[-1]),
        "simulated_s": end_s,
        "bytes_down": int(rounds["bytes_down"].sum()),
        "bytes_up": int(rounds["bytes_up"].sum()),
        "energy_j": float(rounds["energy_j"].sum()),
        "eval_loss_first": None if first is None else float(first["eval_loss"]),
        "eval_loss_last": None if last is None else float(last["eval_loss"]),
        "eval_metric_first": None if first is None else float(first["eval_metric"]),
        "eval_metric_last": None if last is None else float(last["eval_metric"]),
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
    reached = None if target is None or first is None else cost_to(run, target)
    estimated = _estimated(rounds)
    for name, when in (("reached", reached), ("estimated", estimated)):
        names = ("round", "time_s", "interpolated_s")
        wanted = {each: None if when is None else getattr(when, each) for each in names}
        yield from stated(name, run.summary.get(name), wanted, "rounds.csv")
    yield from _stops(run, rounds, deserted, [each for each in (reached, estimated) if each])


def _estimated(rounds: pd.DataFrame) -> Reached | None:
    """Where estimated progress passes the target; None if it is not estimated, or never does."""
    progress, end_s = rounds["progress"].to_numpy(), rounds["end_s"].to_numpy()
    past = np.flatnonzero(progress >= 1)
    if not len(past) or past[0] == 0:
        return None
    here = int(past[0])
    before, after = ((float(end_s[n]), float(progress[n])) for n in (here - 1, here))
    return Reached(here, after[0], interpolate(before, after, 1.0))


def _stops(
    run: RunFiles, rounds: pd.DataFrame, deserted: list[int], reached: list[Reached]
) -> Iterator[Finding]:
    """The run ends at the first round that the stop rule asks it to, and at no other."""
    stop, end_s = run.scenario.stop, rounds["end_s"].to_numpy()
    last = len(rounds) - 1
    ends = [stop.rounds, *deserted]
    if stop.simulated_s is not None:
        # Round 0 is before the start.
        ends += (np.flatnonzero(end_s[1:] >= stop.simulated_s)[:1] + 1).tolist()
    if stop.at_target:
        ends += [each.round for each in reached]
    if min(ends) > last and ("timeline.csv" in COURSE[run.scenario.output.timeline] or last == 0):
        yield Finding("rounds.csv", None, f"ends after round {last} though nothing stops it there")
    if min(ends) < last:
        yield Finding("rounds.csv", None, f"goes on after round {min(ends)}, where it had to stop")


def _traffic(
    run: RunFiles, timeline: pd.DataFrame, sent: Sent, tries: Attempts
) -> Iterator[Finding]:
    """Uploads are rank x shapes x number size, with the shapes of the adapter on disk."""
    if run.scenario.training.timing_only:
        return
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
    size = (sent.rank[tries.sent] * per_rank + fixed) * number_bytes
    wrong = (tries.outcome == DONE) & (tries.bytes != size)
    yield from where(
        "timeline.csv",
        timeline.iloc[tries.row],
        wrong,
        "device {device} uploads {bytes} bytes, not what its rank and the adapter's shapes give",
    )
