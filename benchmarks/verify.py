"""Seconds to read and to verify runs of a million timeline rows.

    python -m benchmarks.verify [--rows 1000000] [--csv FILE]

Timing-only runs, so that all the time is the simulation's own. Prints per schedule: rows, seconds
to run, to read the tables, and to verify (reading included), and findings, of which there are none.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.verify import verify

#: Rows that a device's part has: its download, its training, and its upload.
_ROWS_PER_PART = 3

_DEVICES, _COHORT = 2000, 200
_LOSSES = {"crashes": {"mean_s": 500.0}, "losses": {"probability": 0.05}}

#: Schedules with the links and failures that they run on.
CASES: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "over-selection": {"schedule": {"name": "over-selection", "share": 0.8}, "failures": _LOSSES},
    "fedbuff": {
        "schedule": {"name": "fedbuff", "buffer": 50, "concurrency": _COHORT},
        "radio": {"downlink": "unicast", "allocation": "time-division"},
        "failures": _LOSSES,
    },
}


def scenario(name: str, rows: int) -> Scenario:
    """A run of about so many timeline rows."""
    parts = rows // _ROWS_PER_PART
    merges = parts // (50 if name == "fedbuff" else _COHORT)
    tree: dict[str, Any] = {
        "name": f"verify-{name}",
        "seed": 1,
        "data": {"source": "builtin:synthetic"},
        "training": {"timing_only": True},
        "fleet": {"devices": _DEVICES, "jitter_sigma": 0.1},
        "policy": {"name": "uniform", "probability": _COHORT / _DEVICES},
        "stop": {"rounds": max(merges, 1)},
    }
    return Scenario.model_validate(tree | CASES[name])


def measure(name: str, rows: int, folder: Path) -> dict[str, Any]:
    """Run a case, read it, verify it."""
    began = time.perf_counter()
    run(scenario(name, rows), folder)
    ran = time.perf_counter()
    files = open_run(folder)
    for table in ("timeline.csv", "spectrum.csv", "rounds.csv", "updates.csv"):
        files.table(table)
    read = time.perf_counter()
    verdict = verify(files)
    done = time.perf_counter()
    return {
        "schedule": name,
        "rows": len(files.table("timeline.csv")),
        "run_s": round(ran - began, 1),
        "read_s": round(read - ran, 2),
        "verify_s": round(done - read, 2),
        "findings": len(verdict.findings),
    }


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000, help="timeline rows, about")
    parser.add_argument("--csv", type=Path, help="file to write the figures to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = []
        for name in CASES:
            rows.append(measure(name, given.rows, Path(place) / name))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    if given.csv is not None:
        with given.csv.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
