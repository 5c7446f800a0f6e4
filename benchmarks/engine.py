"""How fast the event engine is: rows per second of timing-only runs, and how cost grows.

    python -m benchmarks.engine [--quick]

Ratios are against bare SimPy timeouts in the same process: as many of them as the run has rows, in
as many processes at once as its cohort has devices, each waiting for one after the other. A run's
rows are those of `timeline.csv` and `spectrum.csv`; its seconds are all but those of building the
fleet and of planning, and include the closing of the files.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simpy

from optimizer import Certificate, Plan, draw_cohort
from sim.run import run
from sim.scenario import Scenario

#: Links that are linear over the whole band, so that virtual time applies: nearby devices whose
#: power is in proportion to the band, and no fading.
_LINEAR = {
    "power_control": {"p0_dbm": -100.0, "alpha": 0.6},
    "fading": {"name": "none"},
    "cell_radius_m": 150.0,
}


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Parameters
    ----------
    rows
        Rows of the timeline and of the spectrum.
    timeline
        Rows of the timeline alone.
    seconds
        Real seconds, without building and planning.
    parts
        Real seconds by part of the program.
    total
        Real seconds of all.
    """

    rows: int
    timeline: int
    seconds: float
    parts: dict[str, float]
    total: float


def scenario(devices: int, cohort: int, rounds: int, level: str, allocation: str) -> Scenario:
    """Uniform sampling of a fleet without text, rounds of a broadcast, training and an upload."""
    return Scenario.model_validate(
        {
            "name": "engine",
            "data": {"source": "builtin:synthetic", "samples_sigma": 0.5},
            "training": {"timing_only": True},
            "fleet": {"devices": devices},
            "radio": {
                "allocation": allocation,
                "bandwidth_hz": 1e6 * cohort / 10,
                "downlink_bandwidth_hz": 5e6,
                **({} if allocation in ("equal-finish", "time-division") else _LINEAR),
            },
            "policy": {
                "name": "uniform",
                "probability": cohort / devices,
                "min_probability": min(cohort / devices, 0.05),
                "max_noise": None,
                "rank": 4,
            },
            "stop": {"rounds": rounds},
            "output": {"timeline": level, "checkpoint_every": None},
        }
    )


def measured(choice: Scenario) -> Measured:
    """Run a scenario into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        summary = run(choice, out)
        total = time.perf_counter() - began
        parts = summary["host_s"]
        levels = {name: _lines(out / name) for name in ("timeline.csv", "spectrum.csv")}
        return Measured(
            sum(levels.values()),
            levels["timeline.csv"],
            total - parts["build"] - parts["plan"],
            parts,
            total,
        )


def _lines(path: Path) -> int:
    """Rows of a table; none if it was not written."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1


def bare_s(count: int, processes: int) -> float:
    """Real seconds of so many SimPy timeouts."""
    delays = np.random.default_rng(1).random(1000).tolist()
    env = simpy.Environment()

    def wait(number: int, times: int) -> object:
        for k in range(times):
            yield env.timeout(delays[(7 * number + k) % 1000])

    for number in range(processes):
        env.process(wait(number, count // processes))
    began = time.perf_counter()
    env.run()
    return time.perf_counter() - began


def ratio(cohort: int, allocation: str, repeats: int) -> dict[str, float]:
    """Rows per second of a run over timeouts per second, with the CSV on disk and without."""
    found: dict[str, list[float]] = {"with CSV": [], "without CSV": [], "timeline alone": []}
    for _ in range(repeats):
        whole = measured(scenario(10 * cohort, cohort, 200, "devices", allocation))
        lean = measured(scenario(10 * cohort, cohort, 200, "rounds", allocation))
        bare = bare_s(whole.rows, cohort) / whole.rows
        found["with CSV"].append(bare / (whole.seconds / whole.rows))
        found["without CSV"].append(bare / (lean.seconds / whole.rows))
        found["timeline alone"].append(bare / (whole.seconds / whole.timeline))
    return {name: statistics.median(values) for name, values in found.items()}


def draw_s(devices: int, cohort: int, rounds: int) -> float:
    """Real seconds of drawing a cohort, which looks at every device."""
    probability = np.full(devices, cohort / devices)
    weight = np.full(devices, 1 / devices)
    unknown = Certificate(np.nan, 0, np.nan, np.nan)
    rank = np.full(devices, 4)
    plan = Plan("uniform", rank, probability, np.nan, np.nan, np.nan, unknown)
    began = time.perf_counter()
    for number in range(rounds):
        draw_cohort(plan, weight, 1, number + 1)
    return (time.perf_counter() - began) / rounds


def main(arguments: Sequence[str] | None = None) -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the ratios, once")
    quick = parser.parse_args(arguments).quick
    repeats = 1 if quick else 5
    for allocation in ("equal-finish", "time-division", "equal-split", "work-conserving"):
        row = ratio(100, allocation, repeats)
        print(f"ratio, {allocation}, cohort of 100:", json.dumps(row), flush=True)
    if quick:
        return
    for devices, cohort, rounds in ((100_000, 100, 1000), (1_000_000, 1000, 100)):
        took = measured(scenario(devices, cohort, rounds, "devices", "equal-finish"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{devices} devices, {rounds} rounds of {cohort}: {took.total:.1f} s in all, "
            f"{took.seconds:.1f} s without building and planning, {took.timeline} timeline rows, "
            f"peak {peak:.2f} GiB, parts {json.dumps(took.parts)}",
            flush=True,
        )
    for devices in (1000, 10_000, 100_000, 1_000_000):
        # What a run costs once, such as the table of its devices, is in both.
        some, more = (
            measured(scenario(devices, 100, rounds, "devices", "time-division")).seconds
            for rounds in (100, 400)
        )
        round_ms, draw_ms = 1e3 * (more - some) / 300, 1e3 * draw_s(devices, 100, 20)
        print(
            f"{devices} devices, rounds of 100: {round_ms:.2f} ms per round, of which the draw of "
            f"the cohort is {draw_ms:.2f} ms",
            flush=True,
        )
    for allocation in ("equal-finish", "time-division", "equal-split", "proportional"):
        for cohort in (1000, 3000, 10_000):
            took = measured(scenario(2 * cohort, cohort, 3, "devices", allocation))
            print(
                f"one uplink, {allocation}, cohort of {cohort}: "
                f"{1e6 * took.seconds / took.rows:.2f} us per row",
                flush=True,
            )


if __name__ == "__main__":
    main()
