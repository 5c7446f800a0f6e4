"""No value of a finished run can be changed unnoticed."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim.records
import sim.verify
from sim.errors import InputError
from sim.rundir import RunFiles, open_run
from sim.verify import verify
from tests.sim.tampering import findings_of, read, write

PHASES = ("downlink", "compute", "uplink", "aggregate")
TABLES = ("timeline.csv", "spectrum.csv", "rounds.csv", "devices.csv", "plan.csv", "updates.csv")

#: Only training again could tell what it should be.
UNKNOWABLE = {("updates.csv", "update_norm"), ("summary.json", "exact_match")}


@pytest.fixture
def copied(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run to tamper with."""
    return Path(shutil.copytree(finished.files.folder, tmp_path / "copy"))


@pytest.fixture
def quick(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the system once, and estimate the bandwidth of each plan once."""
    system = sim.verify.build_system(finished.files.scenario)
    monkeypatch.setattr(sim.verify, "build_system", lambda _: system)
    known: dict[bytes, Any] = {}
    estimate = sim.records.expected_bandwidth

    def remembered(problem: Any, rank: Any, probability: Any, seed: int) -> Any:
        key = np.asarray([rank, probability], dtype=np.float64).tobytes()
        if key not in known:
            known[key] = estimate(problem, rank, probability, seed)
        return known[key]

    monkeypatch.setattr(sim.records, "expected_bandwidth", remembered)


def edits(column: str, cell: str) -> Iterator[str]:
    """Other values that a cell could hold: a little more, another word, nothing."""
    if column == "phase":
        yield from (phase for phase in PHASES if phase != cell)
    elif column == "outcome":
        yield "late"
    elif column == "kind":
        yield "laptop"
    elif cell == "":
        yield "1"
    elif "." in cell:
        yield repr(float(cell) * 1.001 if float(cell) else 1.0)
        yield repr(-float(cell) if float(cell) else -1.0)
    else:
        yield str(int(cell) + 1)
        yield str(int(cell) - 1)
    if cell != "":
        yield ""


@pytest.mark.usefixtures("quick")
def test_sound_run_passes(finished: Any) -> None:
    verdict = verify(finished.files)
    assert verdict.findings == ()
    lines = [read(finished.files.folder / name) for name in TABLES]
    assert verdict.rows == sum(len(rows) - 1 for rows in lines) > 40


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", TABLES)
def test_every_changed_cell_is_found(name: str, copied: Path) -> None:
    rows = read(copied / name)
    unnoticed, unnamed, tried = [], [], 0
    for number, row in enumerate(rows[1:], start=1):
        for place, column in enumerate(rows[0]):
            if (name, column) in UNKNOWABLE:
                continue
            # A little more in some cells of each column; other changes in the first rows.
            values = list(edits(column, row[place]))
            if number > 6 and (number + place) % 4:
                continue
            for value in values if number <= 3 or column == "phase" else values[:1]:
                changed = [list(each) for each in rows]
                changed[number][place] = value
                write(copied / name, changed)
                found = findings_of(copied)
                tried += 1
                what = (number + 1, column, row[place], value)
                if not found:
                    unnoticed.append(what)
                elif (name, number + 1) not in {(each.file, each.line) for each in found}:
                    unnamed.append(what)
    assert tried >= 40
    assert unnoticed == []
    if name == "timeline.csv":
        assert unnamed == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", TABLES)
def test_every_missing_or_doubled_row_is_found(name: str, copied: Path) -> None:
    rows = read(copied / name)
    for number in range(1, len(rows)):
        write(copied / name, rows[:number] + rows[number + 1 :])
        assert findings_of(copied), f"line {number + 1} was taken out"
        write(copied / name, [*rows[: number + 1], *rows[number:]])
        found = findings_of(copied)
        assert found, f"line {number + 1} was doubled"
        if name == "timeline.csv":
            assert (name, number + 2) in {(each.file, each.line) for each in found}


@pytest.mark.usefixtures("quick")
def test_timeline_out_of_order_is_found(copied: Path) -> None:
    rows = read(copied / "timeline.csv")
    write(copied / "timeline.csv", [rows[0], *rows[2:], rows[1]])
    found = [(each.file, each.line) for each in findings_of(copied) if each.file == "timeline.csv"]
    assert set(found) == {("timeline.csv", len(rows))}


def numbers_in(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from numbers_in(value)
        elif isinstance(value, int | float):
            yield tree, key


@pytest.mark.usefixtures("quick")
def test_every_changed_number_of_the_summary_is_found(copied: Path) -> None:
    file = copied / "summary.json"
    original = file.read_text(encoding="utf-8")
    count = sum(1 for _ in numbers_in(json.loads(original) | {"host_s": {}}))
    assert count >= 22
    unnoticed = []
    for number in range(count):
        for change in (lambda x: x * 1.001 if x else 1.0, lambda x: x + 1, lambda _: None):
            tree = json.loads(original)
            place, key = list(numbers_in(tree))[number]
            place[key] = change(place[key])
            file.write_text(json.dumps(tree), encoding="utf-8")
            found = findings_of(copied)
            unknowable = ("summary.json", key) in UNKNOWABLE and place[key] is not None
            if "summary.json" not in {each.file for each in found} and not unknowable:
                unnoticed.append(key)
    assert unnoticed == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "key", ["name", "metric", "plan", "target", "reached", "eval_metrics_last"]
)
def test_summary_without_a_key_is_found(key: str, copied: Path) -> None:
    file = copied / "summary.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({k: v for k, v in tree.items() if k != key}), encoding="utf-8")
    assert {each.file for each in findings_of(copied)} == {"summary.json"}


@pytest.mark.usefixtures("quick")
def test_other_data_is_refused(copied: Path) -> None:
    file = copied / "summary.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(tree | {"data_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(InputError, match="data_sha256 differs"):
        verify(open_run(copied))


@pytest.mark.usefixtures("quick")
def test_damaged_adapter_is_found(copied: Path) -> None:
    file = copied / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert [f.file for f in findings_of(copied)] == ["adapter/adapter_model.safetensors"]


@pytest.mark.usefixtures("quick")
def test_words_among_numbers_are_refused(copied: Path) -> None:
    rows = read(copied / "timeline.csv")
    rows[1][3] = "soon"
    write(copied / "timeline.csv", rows)
    with pytest.raises(InputError, match="line 2: start_s is 'soon', expected a number"):
        verify(open_run(copied))


@pytest.mark.usefixtures("quick")
def test_run_that_ends_without_a_reason_is_found(finished: Any) -> None:
    scenario = finished.files.scenario
    longer = scenario.model_copy(
        update={"stop": scenario.stop.model_copy(update={"rounds": scenario.stop.rounds + 1})}
    )
    verdict = verify(RunFiles(finished.files.folder, longer, finished.files.summary))
    assert [f.message for f in verdict.findings] == [
        "ends after round 3 though nothing stops it there"
    ]


def test_other_seed_fails(finished: Any) -> None:
    scenario = finished.files.scenario.model_copy(update={"seed": 2})
    found = verify(RunFiles(finished.files.folder, scenario, finished.files.summary)).findings
    assert {"devices.csv", "timeline.csv", "plan.csv"} & {each.file for each in found}


def test_command_names_what_it_found(copied: Path, command: Callable[..., Any]) -> None:
    answer = command("verify", copied)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("rows, all invariants hold\n")
    rows = read(copied / "timeline.csv")
    rows[3][4] = repr(float(rows[3][4]) * 1.5)
    write(copied / "timeline.csv", rows)
    answer = command("verify", copied)
    assert answer.code == 1
    assert "timeline.csv line 4: " in answer.err
