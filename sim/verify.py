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

import numpy as np
import pandas as pd

from sim.bands import bands_in_use, pieces_of, uploads
from sim.errors import InputError
from sim.evaluations import evaluations, final_metrics
from sim.findings import TOLERANCE, Finding, compare, compare_table, stated, where
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
    attempts_as_sent,
    attempts_of,
    others_unasked,
    parts_as_sent,
)
from sim.parts import Parts
from sim.planning import with_norms
from sim.plans_on_disk import BadPlan, PlansOnDisk
from sim.records import device_columns, label_rows, tables_of
from sim.replay import Recorded, replay
from sim.replayed import Mask, columns_of, ranks_kept, rounds_and_updates, served_as_asked
from sim.rounds_alone import activity_as_told, rounds_alone
from sim.rundir import RunFiles
from sim.sections.schedule import Asynchronous
from sim.sent import Sent
from sim.stated import stated_plan, summary_as_recorded
from sim.steering import Steering
from sim.system import System, build_system
from sim.timeline import LabelRow, UpdateRow
from sim.totals import Activity
from sim.traffic import traffic

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
        findings += rounds_alone(system, tables)
        did = activity_as_told(tables["devices.csv"])
        findings += _devices(system, tables["devices.csv"], did)
        if sound:
            findings += _plan_alone(run, system, tables["plan.csv"])
    findings += ranks_kept(system, tables["updates.csv"])
    findings += rounds_follow(tables["rounds.csv"])
    findings += _labels(system, tables)
    findings += evaluations(system, tables["rounds.csv"])
    findings += summary_as_recorded(run, tables["rounds.csv"], deserted)
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
    served: Mask,
    received: Mask,
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
    yield from stated_plan(run, plan)
    yield from rounds_and_updates(tables, told, oracle)
    yield from served_as_asked(system, timeline, served, received, parts, told)
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
        yield from traffic(run, system, timeline, sent, tries)


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


def _plan_alone(run: RunFiles, system: System, frame: pd.DataFrame) -> Iterator[Finding]:
    """The first plan keeps its bounds, and is what the summary says."""
    try:
        plan = PlansOnDisk(system, frame)(system.problem, 1)
    except BadPlan as error:
        yield from error.findings
    else:
        yield from stated_plan(run, plan)


def _lasted_as_foretold(rounds: pd.DataFrame) -> Iterator[Finding]:
    """Rounds last as long as the round-time formula says, where it tells all."""
    later = rounds.iloc[1:]
    wanted = {"duration_s": later["cohort_s"].to_numpy()}
    slack = {"duration_s": TOLERANCE * later["end_s"].to_numpy()}
    yield from compare("rounds.csv", later, wanted, ["round"], slack)


def _devices(system: System, devices: pd.DataFrame, activity: Activity) -> Iterator[Finding]:
    """Who each device is follows from the scenario, what it did from the timeline."""
    wanted = device_columns(system, np.arange(len(system.fleet)), activity)
    yield from compare_table("devices.csv", devices, wanted, ["device"])


def _labels(system: System, tables: Tables) -> Iterator[Finding]:
    """Which classes every device holds follows from the scenario."""
    if "labels.csv" in tables:
        wanted = columns_of(label_rows(system), LabelRow)
        yield from compare_table("labels.csv", tables["labels.csv"], wanted, ["device", "label"])
