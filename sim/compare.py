"""Time, bytes and energy to a target, run by run and over seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from sim.errors import InputError
from sim.rundir import RunFiles, group_labels
from sim.sections.course import Target
from sim.target import Reached, TargetWatch

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Cost(Reached):
    """When a run met the target, and what it had spent by then.

    Parameters
    ----------
    round, time_s, interpolated_s
        As in `Reached`.
    bytes_up, energy_j
        Uploaded bytes and device energy up to that round.
    """

    bytes_up: int
    energy_j: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the half-width of its 95 % Student interval (NaN for a single value)."""

    mean: float
    half_width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One group of runs that differ in the seed alone.

    Parameters
    ----------
    name
        Name of the scenario, with what sets it apart from others of that name.
    runs, reached
        How many runs, and how many of them met the target.
    time_s, bytes_up, energy_j
        Over the runs that met it; None if none did. Times are interpolated.
    estimated
        Whether the runs trained nothing, so that the round model says when they are there.
    last
        The target's metric at the end of the runs; None without training.
    speedup
        First group's time over this one's, geometric mean over common seeds with its interval's
        ends; None for the first group, and where a run of a common seed missed the target.
    """

    name: str
    runs: int
    reached: int
    time_s: Interval | None
    bytes_up: Interval | None
    energy_j: Interval | None
    estimated: bool
    speedup: tuple[float, float, float] | None
    last: Interval | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups of runs against one target, in the order given."""

    target: Target
    rows: tuple[Row, ...]


def parse_target(text: str) -> Target:
    """Read `metric=value`.

    Raises
    ------
    InputError
        If it has another form.
    """
    metric, _, value = text.partition("=")
    try:
        return Target(metric=metric, value=float(value))
    except ValueError:
        raise InputError(f"--target {text}: expected metric=value, such as eval_loss=1.2") from None


def compare(runs: Sequence[RunFiles], target: Target | None) -> Comparison:
    """Compare groups of runs.

    Parameters
    ----------
    runs
        Finished runs.
    target
        What to reach; by default the one that all scenarios name.

    Raises
    ------
    InputError
        If no common target is given, a run does not measure it, or a run is given twice.
    """
    target = target or _common_target(runs)
    groups: dict[str, dict[int, Cost | None]] = {}
    last: dict[str, list[float]] = {}
    estimated: dict[str, bool] = {}
    for run in runs:
        estimated[run.group] = run.scenario.training.timing_only
        costs = groups.setdefault(run.group, {})
        if run.scenario.seed in costs:
            raise InputError(f"{run.folder}: this scenario and seed is given twice")
        costs[run.scenario.seed] = cost_to(run, target)
        column = "eval_loss" if target.metric == "eval_loss" else "eval_metric"
        seen = run.table("rounds.csv")[column].dropna()
        last.setdefault(run.group, []).extend(seen.tail(1).tolist())
    labels = group_labels(runs)
    first = next(iter(groups.values()))
    rows = []
    for group, costs in groups.items():
        met = [cost for cost in costs.values() if cost is not None]
        rows.append(
            Row(
                labels[group],
                len(costs),
                len(met),
                _interval([cost.interpolated_s for cost in met]),
                _interval([cost.bytes_up for cost in met]),
                _interval([cost.energy_j for cost in met]),
                estimated[group],
                None if costs is first else _speedup(first, costs),
                _interval(last[group]),
            )
        )
    return Comparison(target, tuple(rows))


def cost_to(run: RunFiles, target: Target) -> Cost | None:
    """What a run spent to meet the target, by estimate if it trained nothing; None if it never did.

    Raises
    ------
    InputError
        If the run does not measure the metric, or estimates the time to another target.
    """
    known = ("eval_loss", run.scenario.data.eval_metric)
    if target.metric not in known:
        raise InputError(
            f"--target {target.metric}={target.value:g}: {run.folder} measures "
            f"{' and '.join(known)}"
        )
    rounds = run.table("rounds.csv")
    if run.scenario.training.timing_only:
        reached = _estimated(run, target)
    else:
        reached = _measured(run, rounds, target)
    if reached is None:
        return None
    spent = rounds[rounds["round"] <= reached.round]
    return Cost(
        reached.round,
        reached.time_s,
        reached.interpolated_s,
        int(spent["bytes_up"].sum()),
        float(spent["energy_j"].sum()),
    )


def _measured(run: RunFiles, rounds: pd.DataFrame, target: Target) -> Reached | None:
    """When an evaluation met the target."""
    watch = TargetWatch(target, run.scenario.data.task)
    seen = rounds[rounds["eval_loss"].notna()]
    names = ("round", "end_s", "eval_loss", "eval_metric")
    for number, time_s, loss, metric in zip(*(seen[name].tolist() for name in names), strict=True):
        watch.see(number, time_s, loss, metric)
    return watch.reached


def _estimated(run: RunFiles, target: Target) -> Reached | None:
    """When the round model, which knows one target alone, takes the run to be there."""
    own = run.scenario.stop.target
    if own is not None and own != target:
        raise InputError(
            f"--target {target.metric}={target.value:g}: {run.folder} was run without training, "
            f"and its estimate is of {own.metric}={own.value:g}; name that, or train"
        )
    found = run.summary.get("estimated")
    return None if found is None else Reached(**found)


def _common_target(runs: Sequence[RunFiles]) -> Target:
    targets = {
        run.scenario.stop.target.model_dump_json(): run.scenario.stop.target
        for run in runs
        if run.scenario.stop.target is not None
    }
    if len(targets) != 1 or any(run.scenario.stop.target is None for run in runs):
        raise InputError("the runs name no common stop.target; give --target metric=value")
    return next(iter(targets.values()))


def _interval(values: Sequence[float]) -> Interval | None:
    if not values:
        return None
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) == 1:
        return Interval(float(sample[0]), math.nan)
    spread = sample.std(ddof=1) / math.sqrt(len(sample))
    reach = student.ppf((1 + _CONFIDENCE) / 2, len(sample) - 1)
    return Interval(float(sample.mean()), float(reach * spread))


def _speedup(
    first: dict[int, Cost | None], other: dict[int, Cost | None]
) -> tuple[float, float, float] | None:
    """Paired by seed: both groups then face the same fleet and draws."""
    logs = []
    for seed in sorted(first.keys() & other.keys()):
        ours, theirs = first[seed], other[seed]
        if ours is None or theirs is None:
            return None
        if min(ours.interpolated_s, theirs.interpolated_s) <= 0:
            return None
        logs.append(math.log(ours.interpolated_s / theirs.interpolated_s))
    ratio = _interval(logs)
    if ratio is None:
        return None
    return (
        math.exp(ratio.mean),
        math.exp(ratio.mean - ratio.half_width),
        math.exp(ratio.mean + ratio.half_width),
    )


def write_csv(result: Comparison, path: Path) -> None:
    """Write the comparison, one line per group.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    names = ("time_s", "bytes_up", "energy_j", "last")
    head = ["scenario", "runs", "reached"]
    head += [f"{name}{end}" for name in names for end in ("", "_half_width")]
    head += ["speedup", "speedup_low", "speedup_high", "estimated"]
    try:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(head)
            for row in result.rows:
                cells: list[str | int | float | None] = [row.name, row.runs, row.reached]
                for name in names:
                    interval: Interval | None = getattr(row, name)
                    cells += (
                        [None, None]
                        if interval is None
                        else [
                            interval.mean,
                            None if math.isnan(interval.half_width) else interval.half_width,
                        ]
                    )
                speedup = row.speedup or (None, None, None)
                cells += [None if x is None or math.isnan(x) else x for x in speedup]
                cells.append("true" if row.estimated else "false")
                writer.writerow(cells)
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written ({error.strerror})") from None
