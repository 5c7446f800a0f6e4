"""Runs of every schedule and failure verify, and nothing in them can be changed unnoticed."""

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim.plans_on_disk
import sim.records
import sim.verify
from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.verify import verify
from tests.sim.tampering import findings_of, read, write

BASE: dict[str, Any] = {
    "name": "small",
    "seed": 1,
    "data": {"source": "builtin:synthetic"},
    "training": {"timing_only": True},
    "fleet": {"devices": 8, "jitter_sigma": 0.2},
    "policy": {"name": "uniform", "probability": 0.5},
    "stop": {"rounds": 8},
    "output": {"timeline": "full"},
}
COME_AND_GO = {"name": "markov", "mean_on_s": 40.0, "mean_off_s": 8.0}
LOSSES = {"probability": 0.3, "retries": 2}
EVERYTHING = {
    "departures": True,
    "crashes": {"mean_s": 40.0},
    "losses": LOSSES,
    "restarts": {"mean_s": 20.0, "down_s": 3.0},
}
CASES: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "synchronous, losses and crashes": {
        "failures": {"losses": LOSSES, "crashes": {"mean_s": 20.0}},
        "radio": {"allocation": "work-conserving", "modulation": "shannon"},
    },
    "deadline, departures": {
        "schedule": {"name": "deadline", "deadline_s": 4.0},
        "failures": {"departures": True},
        "fleet": {"availability": COME_AND_GO, "devices": 8},
        "radio": {"downlink": "unicast", "allocation": "equal-split"},
    },
    "deadline, the late go on": {
        "schedule": {"name": "deadline", "deadline_s": 2.0, "late": "discard"},
        "radio": {"allocation": "time-division"},
    },
    "over-selection, outage": {
        "schedule": {"name": "over-selection", "share": 0.6},
        "fleet": {"mobility": "random-waypoint", "devices": 8},
        "radio": {"fading": {"name": "per-round", "outage_snr_db": 5.0}},
    },
    "fedbuff, everything fails": {
        "schedule": {"name": "fedbuff", "buffer": 3, "concurrency": 5},
        "stop": {"rounds": 4},
        "failures": EVERYTHING,
        "fleet": {"availability": COME_AND_GO, "devices": 8},
        "radio": {"downlink": "unicast", "allocation": "equal-split"},
    },
    "fedasync, power control": {
        "schedule": {"name": "fedasync", "concurrency": 4},
        "radio": {
            "downlink": "unicast",
            "allocation": "proportional",
            "power_control": {"p0_dbm": -90.0},
        },
    },
    "fedasync, block fading": {
        "schedule": {"name": "fedasync", "concurrency": 4},
        "failures": {"losses": LOSSES},
        "radio": {
            "downlink": "unicast",
            "allocation": "equal-split",
            "fading": {"name": "block", "block_s": 0.5},
        },
    },
}
TABLES = ("timeline.csv", "spectrum.csv", "pieces.csv", "rounds.csv", "devices.csv", "plan.csv")
WORDS = {
    "phase": ("downlink", "compute", "uplink", "aggregate", "wait", "plan"),
    "outcome": ("done", "dropped", "late", "cancelled", "lost", "well"),
    "kind": ("laptop", "toaster"),
}


@dataclass(frozen=True)
class Tampered:
    """A finished run, a copy to tamper with, and what of its verification never changes."""

    folder: Path
    copy: Path
    known: dict[tuple[str, Any], Any]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    """One run of every case."""
    folder = tmp_path_factory.mktemp("run") / "out"
    run(Scenario.model_validate(BASE | CASES[request.param]), folder)
    copy = Path(shutil.copytree(folder, folder.parent / "copy"))
    return Tampered(folder, copy, {})


@pytest.fixture
def quick(case: Tampered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the system and judge each plan once, so that many verifications are quick."""

    def once(module: Any, name: str, key: Callable[..., Any]) -> None:
        original = getattr(module, name)

        def remembered(*given: Any, **named: Any) -> Any:
            place = (name, key(*given))
            if place not in case.known:
                case.known[place] = original(*given, **named)
            return case.known[place]

        monkeypatch.setattr(module, name, remembered)

    def plan(rank: Any, probability: Any) -> bytes:
        return np.asarray([rank, probability], dtype=np.float64).tobytes()

    once(sim.verify, "build_system", lambda scenario: scenario.model_dump_json())
    once(sim.plans_on_disk, "judge", lambda _, name, rank, q, *__: (name, plan(rank, q)))
    once(sim.records, "expected_bandwidth", lambda _, rank, q, __: plan(rank, q))


def edits(column: str, cell: str) -> Iterator[str]:
    """Other values that a cell could hold."""
    if column in WORDS:
        yield from (word for word in WORDS[column] if word != cell)
    elif cell == "":
        yield "1"
    elif re.fullmatch(r"-?\d+", cell):
        yield from (str(int(cell) + 1), str(int(cell) - 1), "")
    else:
        value = float(cell)
        yield from (repr(value * 1.001 or 1.0), repr(value * 0.999 or 2.0), repr(-value or -1.0))


@pytest.mark.usefixtures("quick")
def test_sound_run_passes(case: Tampered) -> None:
    verdict = verify(open_run(case.folder))
    assert verdict.findings == ()
    assert verdict.unchecked == ""
    lines = [len(read(case.folder / name)) - 1 for name in TABLES]
    assert verdict.rows == sum(lines) > 60


@pytest.mark.usefixtures("quick")
def test_changed_cells_are_found(case: Tampered, request: pytest.FixtureRequest) -> None:
    rng, unnoticed = random.Random(request.node.name), []
    for name in (*TABLES, *["timeline.csv"] * 8, *["spectrum.csv"] * 2):
        rows = read(case.folder / name)
        number, place = rng.randrange(1, len(rows)), rng.randrange(len(rows[0]))
        column, before = rows[0][place], rows[number][place]
        value = rng.choice(list(edits(column, before)))
        rows[number][place] = value
        write(case.copy / name, rows)
        if not findings_of(case.copy):
            unnoticed.append((name, number + 1, column, before, value))
        shutil.copy(case.folder / name, case.copy / name)
    assert unnoticed == []


@pytest.mark.usefixtures("quick")
def test_missing_doubled_and_swapped_rows_are_found(
    case: Tampered, request: pytest.FixtureRequest
) -> None:
    rng, unnoticed = random.Random(request.node.name), []
    for name in (*TABLES, *["timeline.csv"] * 4):
        rows = read(case.folder / name)
        ends = rows[0].index("end_s") if "end_s" in rows[0] else 0
        one, other = sorted(rng.sample(range(1, len(rows)), 2))
        changes = {
            "missing": rows[:one] + rows[one + 1 :],
            "doubled": rows[: one + 1] + rows[one:],
            "doubled far away": [*rows[: other + 1], rows[one], *rows[other + 1 :]],
        }
        # Of what ends at one moment nobody can tell the order.
        if rows[one][ends] != rows[other][ends] or ends == 0:
            changes["swapped"] = list(rows)
            changes["swapped"][one], changes["swapped"][other] = rows[other], rows[one]
        what = rng.choice(list(changes))
        write(case.copy / name, changes[what])
        if not findings_of(case.copy):
            unnoticed.append((name, one + 1, other + 1, what))
        shutil.copy(case.folder / name, case.copy / name)
    assert unnoticed == []


@pytest.mark.usefixtures("quick")
def test_files_that_cannot_be_followed_end_in_findings(case: Tampered) -> None:
    rows = read(case.folder / "timeline.csv")
    for share in (0.0, 0.5):
        write(case.copy / "timeline.csv", rows[: 1 + int(share * (len(rows) - 1))])
        assert findings_of(case.copy)
    backwards = [rows[0], *reversed(rows[1:])]
    write(case.copy / "timeline.csv", backwards)
    assert findings_of(case.copy)
    place = rows[0].index("device")
    one = [[*row[:place], "0" if row[place] else "", *row[place + 1 :]] for row in rows[1:]]
    write(case.copy / "timeline.csv", [rows[0], *one])
    assert findings_of(case.copy)
    write(case.copy / "timeline.csv", rows)


def test_a_run_without_a_timeline_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run(Scenario.model_validate(BASE | {"output": {"timeline": "rounds"}}), folder)
    verdict = verify(open_run(folder))
    assert verdict.findings == ()
    assert "without a timeline" in verdict.unchecked
    for name, column in (
        ("rounds.csv", "bytes_up"),
        ("devices.csv", "snr_db"),
    ):
        rows = read(folder / name)
        changed = [list(row) for row in rows]
        place = rows[0].index(column)
        changed[2][place] = (
            str(float(rows[2][place]) + 1)
            if "." in rows[2][place]
            else str(int(rows[2][place]) + 1)
        )
        write(folder / name, changed)
        assert findings_of(folder), (name, column)
        write(folder / name, rows)
