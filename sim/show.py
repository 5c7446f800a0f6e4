"""What commands print: tables and a progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sim.compare import Comparison, Interval
from sim.optimize import Candidate
from sim.progress import Step
from sim.scenario import Scenario

if TYPE_CHECKING:
    from sim.calibrate import Calibration  # which imports torch

#: Columns where no terminal limits them: wider than any table.
_PIPE_WIDTH = 1000


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """A bar on standard error while a run goes on; nothing if quiet or not on a terminal."""
    with _bar(quiet, "building") as tell:
        yield lambda step: tell(step.done, _told(step))


def _told(step: Step) -> str:
    """Where a run is."""
    text = f"round {step.round}, {step.time_s:.0f} s simulated"
    return text if step.eval_loss is None else f"{text}, loss {step.eval_loss:.4f}"


@contextmanager
def measuring(quiet: bool) -> Iterator[Callable[[float], None]]:
    """The same while step times are measured, told the share that is done."""
    with _bar(quiet, "measuring") as tell:
        yield lambda done: tell(done, "measuring")


@contextmanager
def several(quiet: bool, count: int) -> Iterator[Callable[[int, str], None]]:
    """The same while so many runs go on, told how many have ended and how the latest did."""
    with _bar(quiet, f"0 of {count}") as tell:
        yield lambda done, text: tell(done / count, f"{done} of {count}, {text}")


@contextmanager
def _bar(quiet: bool, start: str) -> Iterator[Callable[[float, str], None]]:
    """A bar that is told the share done and what to say of it."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda *_: None
        return
    bar = Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(start, total=1)
        yield lambda done, text: bar.update(task, completed=done, description=text)


def run_table(summary: dict[str, Any], folder: Path) -> None:
    """The end of a run in a few lines."""
    table = blank_table(f"{summary['name']}, seed {summary['seed']}")
    reached, target = summary["reached"], summary["target"]
    estimated = summary["estimated"]
    trained = summary["eval_loss_last"] is not None
    rows = [
        ("rounds", f"{summary['rounds']}"),
        ("simulated time", f"{summary['simulated_s']:.1f} s"),
    ]
    if trained:
        rows += [
            (
                "held-out loss",
                f"{summary['eval_loss_first']:.4f} to {summary['eval_loss_last']:.4f}",
            ),
            (
                "held-out metric",
                f"{summary['eval_metric_first']:.4f} to {summary['eval_metric_last']:.4f} "
                f"{summary['metric']}",
            ),
        ]
    rows += [
        ("uploaded", f"{summary['bytes_up'] / 1e6:.2f} MB"),
        ("downloaded", f"{summary['bytes_down'] / 1e6:.2f} MB"),
        ("device energy", f"{summary['energy_j']:.1f} J"),
    ]
    if not trained:
        # By the round model, whatever value the target has.
        when = "not reached" if estimated is None else f"{estimated['interpolated_s']:.1f} s"
        rows.append(("estimated time to target", when))
    elif target is not None:
        when = "not reached" if reached is None else f"{reached['interpolated_s']:.1f} s"
        rows.append((f"time to {target['metric']} {target['value']:g}", when))
    rows.append(("host time", f"{sum(summary['host_s'].values()):.1f} s"))
    rows.append(("files", str(folder)))
    for row in rows:
        table.add_row(*row)
    print_table(table)


def plan_table(scenario: Scenario, candidates: Sequence[Candidate]) -> None:
    """The scenario's plan and its baselines, by the round model, and how good any could be."""
    table = blank_table(
        f"{scenario.name}: predicted time to target = rounds x mean round time",
        "policy",
        "time (s)",
        "to best",
        "rounds",
        "round (s)",
        "cohort",
        "P(empty)",
        "rank",
        "noise",
        "KKT",
        "planning (s)",
        "note",
    )
    table.columns[-1].justify = "left"
    made = [each.plan.objective_s for each in candidates if each.plan is not None]
    best = min((value for value in made if math.isfinite(value)), default=math.nan)
    for candidate in candidates:
        plan, took = candidate.plan, f"{candidate.host_s:.2f}"
        if plan is None:
            table.add_row(candidate.label, *["-"] * 9, took, candidate.note)
            continue
        known = plan.certificate
        table.add_row(
            candidate.label,
            _or_dash(plan.objective_s, ".1f"),
            _or_dash(plan.objective_s / best, ".3f"),
            _or_dash(plan.rounds, ".1f"),
            f"{plan.expected_round_s:.2f} ± {known.half_width_s:.2f}",
            f"{known.expected_cohort:.2f}",
            _or_dash(known.probability_empty, ".2g"),
            f"{plan.rank.mean():.2f}",
            _or_dash(known.noise, ".2f"),
            _or_dash(known.kkt_residual, ".1e"),
            took,
            candidate.note,
        )
    print_table(table)
    own = candidates[0].plan
    if own is None:
        return
    note = own.certificate.bound_note
    if math.isnan(own.certificate.bound_s):
        print(f"no lower bound on the optimum{note and ': ' + note}")
        return
    print(
        f"lower bound on the optimum: {own.certificate.bound_s:.1f} s{note and f' ({note})'}; "
        f"{own.policy} is at most {own.gap:.2%} above the optimum"
    )


def _or_dash(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def comparison_table(result: Comparison) -> None:
    """Groups of runs against a target."""
    target = result.target
    table = blank_table(
        f"to {target.metric} {target.value:g} (95 % intervals over seeds)",
        "scenario",
        "reached",
        "time (s)",
        "uploaded (MB)",
        "energy (J)",
        "speed-up",
        "at the end",
    )
    for row in result.rows:
        speedup = row.speedup
        table.add_row(
            row.name,
            f"{row.reached} of {row.runs}",
            _pm(row.time_s, 1.0, 1) + (" *" if row.estimated else ""),
            _pm(row.bytes_up, 1e-6, 1),
            _pm(row.energy_j, 1.0, 0),
            ""
            if speedup is None
            else f"{speedup[0]:.2f}"
            if math.isnan(speedup[1])
            else f"{speedup[0]:.2f} [{speedup[1]:.2f}, {speedup[2]:.2f}]",
            _pm(row.last, 1.0, 4),
        )
    if any(row.estimated for row in result.rows):
        table.caption = "* estimated by the round model, without training"
        table.caption_justify = "left"
    print_table(table)


def calibration_table(result: Calibration, file: Path) -> None:
    """Measured and fitted step times, and the device they make."""
    measured, fit, device = result.measurement, result.fit, result.device
    table = blank_table(
        "step time, median of repeats",
        "rank",
        "batch",
        "length",
        "GFLOP",
        "measured (ms)",
        "fitted (ms)",
        "error (%)",
    )
    table.columns[0].justify = "right"
    for point, flops, found_s, fitted_s, error in zip(
        measured.grid,
        measured.flops,
        measured.median_s,
        fit.fitted_s,
        fit.relative_error,
        strict=True,
    ):
        table.add_row(
            *map(str, point),
            f"{flops / 1e9:.4g}",
            f"{found_s * 1e3:.3f}",
            f"{fitted_s * 1e3:.3f}",
            f"{error * 100:+.1f}",
        )
    print_table(table)
    table = blank_table(device.name)
    for row in (
        ("effective speed", f"{fit.flops / 1e9:.4g} GFLOP/s"),
        ("overhead per step", f"{fit.step_overhead_s * 1e3:.4g} ms"),
        ("relative error", f"{fit.rms_error:.1%} rms, {fit.worst_error:.1%} at worst"),
        ("memory", f"{device.memory_bytes / 1e9:.2f} GB"),
        ("power", f"{device.compute_power_w:g} W training, {device.tx_power_dbm:g} dBm sending"),
        ("file", str(file)),
    ):
        table.add_row(*row)
    print_table(table)


def catalogue_table(
    title: str, rows: Sequence[tuple[str, ...]], columns: Sequence[str] = ()
) -> None:
    """Names and what they are, under the names of the columns if there are any."""
    table = Table(title=title, title_justify="left", show_header=bool(columns))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    print_table(table)


def blank_table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose others, if named, are numbers."""
    table = Table(title=title, title_justify="left", show_header=bool(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def print_table(table: Table) -> None:
    """Print a table, wrapped to the terminal's width; a pipe gets whole lines."""
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)


def _pm(interval: Interval | None, factor: float, digits: int) -> str:
    if interval is None:
        return "-"
    mean = f"{interval.mean * factor:.{digits}f}"
    if math.isnan(interval.half_width):
        return mean
    return f"{mean} ± {interval.half_width * factor:.{digits}f}"
