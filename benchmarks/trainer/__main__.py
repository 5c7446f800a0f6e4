"""Time stacked training against other ways to do the same work, in one process and one run.

Four variants start from the same random base and global state, draw the same index sets and batches
from the learner and make the same H local SGD steps per device:

(a)       every device on a copy of the whole model, full-rank factors under a mask;
(b)       one device after another, its k-rank submatrices swapped into one base model;
(b-graph) on CUDA, the same with the step captured once as a graph and replayed;
(c)       `Learner.train`, all devices stacked;
(d)       the floor: one ordinary adapter of the widest rank on all devices' samples together.

(a), (b) and (d) run the encoders as they are written; (c) leaves out the positions of the last
block that the classifier does not read, so it can come out below the floor.

First each variant runs three times untimed: its peak memory is taken, and the changes that (a),
(b) and (c) return are compared per device, relative to the norm of the change that (c) returns. If
they differ by more than the tolerance stated, no ratio is printed and the exit status is 1. Then
the variants are timed in turn, repetition by repetition (a, b, c, d, a, b, ...); times are from the
drawing of the index sets to the last kernel, ratios are taken within a repetition. Captured graphs
serve all repetitions and their capture is not timed. On a CPU the processor time is given beside
the time by the clock: it is the better guide on a machine that others use too.

Peak memory is what these first runs take beyond what was there before, and the same plus the base.
How it is read on a CPU and on CUDA stands in `benchmarks.trainer.measure`. On CUDA it includes the
workspace that the matrix library takes for a captured graph.

The share of the machine's matrix rate counts, for (c), the products that (b) does for the same
cohort, at its true ranks and at every position, and for (d) its own, each over the median time: the
rate at which the work gets done, of which (c) itself may do less.

Where a workload says so, (a) is timed once more with every sample padded to a fixed length
(a-padded), and their ratio given.

    python -m benchmarks.trainer [--device auto|cpu|cuda] [--workload NAME ...] [--repeats N]
                                 [--threads N] [--skip VARIANT ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import transformers

from benchmarks.trainer.measure import (
    Spread,
    Timing,
    flops,
    machine,
    matrix_rate,
    model_bytes,
    peak_bytes,
    timing,
)
from benchmarks.trainer.rivals import RIVALS, Delta, Rival, Work
from benchmarks.trainer.workloads import WORKLOADS, Workload
from fslora.methods import Job, Update
from fslora.trainer import Learner

_RESULTS = Path(__file__).resolve().parent.parent / "results"

#: Largest difference between two variants' changes of a device, relative to the change's norm.
#: In bf16 each of the base's products is rounded to 8 bits, in an order that differs by variant.
TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
}

#: Runs before the timed ones; a step may be captured only when its shape comes again.
_WARM = 3

#: Variants in the order they take turns, and which of them return the devices' changes.
_ORDER = ("a", "b", "b-graph", "c", "d", "a-padded")
_COMPARED = ("a", "b", "b-graph")
_RATIOS = (("a", "c"), ("b", "c"), ("b-graph", "c"), ("c", "d"), ("a-padded", "a"))


@dataclass(slots=True)
class Report:
    """Figures of all workloads, printed as they come.

    Parameters
    ----------
    about
        What is the same for all: date, machine, versions.
    """

    about: dict[str, str]
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(
        self, workload: str, figure: str, of: str, unit: str, spread: Spread, note: str = ""
    ) -> None:
        """Keep and print one figure."""
        low, median, high = (f"{x:.6g}" for x in (spread.low, spread.median, spread.high))
        self.rows.append(
            {
                **self.about,
                "workload": workload,
                "figure": figure,
                "of": of,
                "unit": unit,
                "min": low,
                "median": median,
                "max": high,
                "repetitions": str(len(spread.values)),
                "values": " ".join(f"{x:.6g}" for x in spread.values),
                "note": note,
            }
        )
        range_ = f"{low} / {median} / {high}" if len(spread.values) > 1 else median
        print(f"{workload:<18} {figure:<22} {of:<12} {range_} {unit}".rstrip(), end="")
        print(f"   ({note})" if note else "", flush=True)

    def one(
        self, workload: str, figure: str, of: str, unit: str, value: float, note: str = ""
    ) -> None:
        """Keep and print a figure that was taken once."""
        self.add(workload, figure, of, unit, Spread((value,)), note)

    def write(self, path: Path) -> None:
        """Write every figure as a row of a table."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads asked for; 1 if variants disagree."""
    options = _parser().parse_args(arguments)
    cuda = torch.cuda.is_available() if options.device == "auto" else options.device == "cuda"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    torch.set_num_threads(options.threads)
    fitting = [name for name, work in WORKLOADS.items() if cuda or not work.cuda_only]
    chosen = options.workload or fitting
    if unfit := [name for name in chosen if name not in fitting]:
        print(f"{', '.join(unfit)}: too large for a CPU; use --device cuda", file=sys.stderr)
        return 2
    report = Report(_about(device, options.threads))
    for name, value in report.about.items():
        print(f"{name}: {value}")
    print("figures are min / median / max over the repetitions", flush=True)
    out = options.out or _RESULTS / f"{report.about['date']}-trainer-{device.type}.csv"
    rates: dict[torch.dtype, float] = {}
    agreed = True
    for name in chosen:
        workload = WORKLOADS[name]
        if workload.dtype not in rates:
            rates[workload.dtype] = matrix_rate(device, workload.dtype)
        agreed &= _compare(
            name, workload, device, options.repeats, options.skip, rates[workload.dtype], report
        )
        # After each workload, so that a run cut short leaves what it has measured.
        report.write(out)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    print(f"written to {out}")
    return 0 if agreed else 1


def _compare(
    name: str,
    workload: Workload,
    device: torch.device,
    repeats: int,
    skip: Sequence[str],
    rate: float,
    report: Report,
) -> bool:
    """Measure one workload; False if the variants disagree."""
    learner = workload.learner(workload.base(device))
    base_bytes = model_bytes(learner.model.model)
    runs = _variants(workload, learner, device, skip)
    peaks, results = _first_runs(name, runs, device)
    agreed = _agree(name, workload, results, report)
    del results
    factor = workload.devices / (workload.copied or workload.devices)
    notes = {}
    if workload.copied is not None:
        notes["a"] = f"{workload.copied} of {workload.devices} devices, scaled up"
    if "a-padded" in runs:
        notes["a-padded"] = f"every sample padded to {workload.pad_to} tokens"
    times: dict[str, list[Timing]] = {variant: [] for variant in runs}
    for _ in range(repeats):
        for variant, run in runs.items():
            times[variant].append(timing(run, device))
    wall, processor = {}, {}
    for variant, taken in times.items():
        scale = factor if variant.startswith("a") else 1.0
        wall[variant] = Spread(tuple(scale * each.wall for each in taken))
        processor[variant] = Spread(tuple(scale * each.processor for each in taken))
    # On CUDA the processor only waits for the last kernel.
    clocks = (
        {"time": wall} if device.type == "cuda" else {"time": wall, "processor time": processor}
    )
    for clock, spreads in clocks.items():
        for variant, spread in spreads.items():
            report.add(name, clock, variant, "ms", spread, notes.get(variant, ""))
    for variant, peak in peaks.items():
        report.one(name, "peak beyond base", variant, "MB", peak / 1e6)
        report.one(name, "peak with base", variant, "MB", (base_bytes + peak) / 1e6)
    if not agreed:
        return False
    for clock, spreads in clocks.items():
        for one, other in _RATIOS:
            if one in spreads and other in spreads:
                ratio = spreads[one].over(spreads[other])
                report.add(name, f"{clock} ratio", f"{one}/{other}", "", ratio)
    if "d" in peaks:
        report.one(name, "peak ratio beyond base", "c/d", "", peaks["c"] / peaks["d"])
        whole = (base_bytes + peaks["c"]) / (base_bytes + peaks["d"])
        report.one(name, "peak ratio with base", "c/d", "", whole)
    for variant, counted in (("c", "b"), ("d", "d")):
        if counted in runs:
            done = flops(runs[counted])
            share = done / (1e-3 * wall[variant].median) / rate
            note = f"{done / 1e9:.4g} GFLOP at {rate / 1e9:.4g} GFLOP/s in {workload.dtype}"
            report.one(name, "share of matrix rate", variant, "", share, note)
    return True


def _variants(
    workload: Workload, learner: Learner, device: torch.device, skip: Sequence[str]
) -> dict[str, Callable[[], Sequence[Delta | Update]]]:
    """What trains the cohort in each variant, in the order they take turns."""
    jobs = workload.jobs()
    copied = jobs[: workload.copied]
    runs: dict[str, Callable[[], Sequence[Delta | Update]]] = {"c": lambda: learner.train(jobs)}
    for variant, rival in RIVALS.items():
        if variant in skip or (variant == "b-graph" and device.type != "cuda"):
            continue
        # Every variant wraps a base of its own; all have the same weights.
        trained = rival(workload.base(device), tuple(learner.adapter.a))
        cohort = copied if variant == "a" else jobs
        runs[variant] = partial(_train, trained, learner, cohort, None)
        if variant == "a" and workload.pad_to is not None:
            runs["a-padded"] = partial(_train, trained, learner, cohort, workload.pad_to)
    return {variant: runs[variant] for variant in _ORDER if variant in runs}


def _train(rival: Rival, learner: Learner, jobs: Sequence[Job], width: int | None) -> list[Delta]:
    return rival.run(Work.of(learner, jobs, width))


def _first_runs(
    name: str, runs: dict[str, Callable[[], Sequence[Delta | Update]]], device: torch.device
) -> tuple[dict[str, int], dict[str, list[Delta]]]:
    """Peak memory and result of every variant; one whose step cannot be captured is dropped."""
    peaks: dict[str, int] = {}
    results: dict[str, list[Delta]] = {}
    for variant, run in list(runs.items()):
        if variant == "a-padded":
            continue
        kept: list[Delta | Update] = []
        try:
            peaks[variant] = peak_bytes(partial(_warm, run, kept), device)
        except RuntimeError as error:
            if variant != "b-graph":
                raise
            print(f"{name}: b-graph is left out: {str(error).splitlines()[0]}", file=sys.stderr)
            del runs[variant]
            continue
        results[variant] = [
            Delta.of(change) if isinstance(change, Update) else change for change in kept
        ]
    return peaks, results


def _warm(run: Callable[[], Sequence[Delta | Update]], into: list[Delta | Update]) -> None:
    for _ in range(_WARM):
        # A run's result is not to be held beside the next run.
        into.clear()
        into.extend(run())


def _agree(
    name: str, workload: Workload, results: Mapping[str, list[Delta]], report: Report
) -> bool:
    """Report how far the rivals' changes are from stacked training's, and whether that is close."""
    tolerance = TOLERANCE[workload.dtype]
    agreed = True
    for variant in _COMPARED:
        if variant not in results:
            continue
        # (a) may have trained the first devices only.
        pairs = zip(results[variant], results["c"], strict=False)
        largest = max(one.distance(other) for one, other in pairs)
        note = f"relative to the change's norm, at most {tolerance:g}"
        report.one(name, "largest difference", f"{variant}-c", "", largest, note)
        if not largest <= tolerance:
            print(f"{name}: ({variant}) and (c) differ, so no ratios are given", file=sys.stderr)
            agreed = False
    return agreed


def _about(device: torch.device, threads: int) -> dict[str, str]:
    return {
        "date": datetime.date.today().isoformat(),
        "device": device.type,
        "machine": machine(device),
        "threads": str(threads),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser("python -m benchmarks.trainer", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workload", nargs="+", choices=tuple(WORKLOADS), help="default: all")
    parser.add_argument("--repeats", type=_at_least_five, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--skip", nargs="+", choices=tuple(RIVALS), default=())
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/, named by date")
    return parser


def _at_least_five(text: str) -> int:
    if (count := int(text)) < 5:
        raise argparse.ArgumentTypeError("fewer than 5 repetitions say little; choose 5 or more")
    return count


if __name__ == "__main__":
    sys.exit(main())
