"""The run directory: golden bytes, levels, Parquet, whole lines, and what a full disk does."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sim.errors import InputError, RunError
from sim.records import Records, plan_rows, tables_of
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.system import System, build_system
from sim.timeline import CsvTable, Interval, Piece, Round, Spectrum, UpdateRow
from tests.sim.recorded import DATA, known_rows, record

INTERVALS = known_rows("timeline.csv", Interval)
SPECTRUM = known_rows("spectrum.csv", Spectrum)
PIECES = [Piece(1, 2, 0.25, 0.5, 1e6 / 3, 2e6 / 7), Piece(1, 3, 0.25, 0.5, 1e5, 1e6)]

WithOutput = Callable[..., System]


@pytest.fixture(scope="module")
def system(tiny: Callable[..., Scenario]) -> System:
    return build_system(tiny())


@pytest.fixture
def with_output(system: System) -> WithOutput:
    """The system with other keys of `output`."""

    def change(**output: Any) -> System:
        tree = system.scenario.model_dump()
        tree["output"] |= output
        changed = Scenario.model_validate(tree)
        names = System.__dataclass_fields__
        values = {name: getattr(system, name) for name in names}
        return System(**(values | {"scenario": changed}))

    return change


@pytest.mark.parametrize("block", [1, 5, 4096])
def test_bytes_of_known_rows(
    block: int, system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("records", "timeline"):
        monkeypatch.setattr(f"sim.{module}.BLOCK", block)
    record(tmp_path, system, INTERVALS, SPECTRUM)
    for name in ("timeline.csv", "spectrum.csv"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_levels_write_what_they_say_and_the_same_totals(
    with_output: WithOutput, tmp_path: Path
) -> None:
    course = {"timeline.csv", "spectrum.csv", "pieces.csv"}
    for level, written in {
        "rounds": set(),
        "devices": {"timeline.csv", "spectrum.csv"},
        "full": course,
    }.items():
        system = with_output(timeline=level)
        run = record(tmp_path / level, system, INTERVALS, SPECTRUM)
        assert {path.name for path in (tmp_path / level).iterdir()} & course == written
        assert set(tables_of(system)) & course == written
        for name in course - written:
            with pytest.raises(InputError, match=f"has no {name}, as output.timeline is '{level}'"):
                run.table(name)
    for name in ("devices.csv", "rounds.csv"):
        (text,) = {
            (tmp_path / level / name).read_bytes() for level in ("rounds", "devices", "full")
        }
        assert text.count(b"\r\n") > 3


def test_pieces(with_output: WithOutput, tmp_path: Path) -> None:
    records = Records(tmp_path, with_output(timeline="full"))
    for piece in PIECES:
        records.piece(piece)
    records.summary({})
    records.close()
    table = open_run(tmp_path).table("pieces.csv")
    assert [Piece(*row) for row in table.itertuples(index=False)] == PIECES


def test_parquet_beside_csv_has_the_same_values(with_output: WithOutput, tmp_path: Path) -> None:
    """Also when a run fails, after which only `close` is called."""
    records = Records(tmp_path, with_output(timeline="full", parquet=True))
    for row in INTERVALS:
        records.interval(row)
    for change in SPECTRUM:
        records.spectrum(change)
    for piece in PIECES:
        records.piece(piece)
    records.close()
    for name in ("timeline", "spectrum", "pieces"):
        wanted = pd.read_csv(tmp_path / f"{name}.csv")
        found = pq.read_table(tmp_path / f"{name}.parquet").to_pandas()
        assert len(found)
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_exact=True)


def test_parquet_of_nothing_is_refused(
    scenario_file: Callable[..., Path], command: Callable[..., Any]
) -> None:
    file = scenario_file({"output.parquet": True})
    answer = command("run", file, "--timeline", "rounds")
    assert answer.code == 2
    assert "output.parquet = true: with timeline = 'rounds' there is nothing" in answer.err
    answer = command("run", file, "--timeline", "some")
    assert answer.code == 2
    assert "output.timeline = 'some'" in answer.err


def test_large_fleets_have_the_same_tables_in_parquet(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first plan, one that changes two devices, and one that changes nobody."""
    problem = system.problem
    rank, q = np.array([4, 8, 2, 16]), np.array([0.5, 1.0, 0.25, 1e-9])
    first: Any = SimpleNamespace(rank=rank, probability=q)
    rarer = np.array([0.5, 1.0, 0.125, 1e-9])
    second: Any = SimpleNamespace(rank=np.array([4, 7, 2, 16]), probability=rarer)
    frames = []
    for most, kept, other in ((4, ".csv", ".parquet"), (3, ".parquet", ".csv")):
        monkeypatch.setattr("sim.records.MOST_IN_CSV", most)
        folder = tmp_path / kept
        folder.mkdir()
        records = Records(folder, system)
        for row in INTERVALS:
            records.interval(row)
        records.plan(problem, first, 1)
        records.plan(problem, second, 3, first)
        records.plan(problem, second, 4, second)
        records.devices()
        records.summary({})
        records.close()
        for name in ("devices", "plan"):
            assert (folder / f"{name}{kept}").exists()
            assert not (folder / f"{name}{other}").exists()
        run = open_run(folder)
        frames.append((run.table("devices.csv"), run.table("plan.csv")))
    for csv, parquet in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(csv, parquet, check_exact=True)
    devices, plan = frames[0]
    assert plan["round"].tolist() == [1] * 4 + [3] * 2
    assert plan["device"].tolist() == [0, 1, 2, 3, 1, 2]
    assert plan["expected_bandwidth_hz"].isna().tolist() == [False] * 3 + [True] + [False] * 2
    row = plan_rows(system, problem, second, 3, first)[0]
    assert (row.round, row.device, row.rank) == (3, 1, 7)
    assert devices["kind"].tolist() == [system.world.kinds[kind] for kind in system.fleet.kind]
    assert devices["rounds_completed"].tolist() == [0, 1, 3, 3]


def test_a_round_leaves_everything_on_the_disk(system: System, tmp_path: Path) -> None:
    records = Records(tmp_path, system)
    for row in INTERVALS:
        records.interval(row)
    for change in SPECTRUM:
        records.spectrum(change)
    records.update(UpdateRow(1, 0, 4, None, 1.5, 2.5))
    assert (tmp_path / "timeline.csv").read_bytes().count(b"\r\n") == 1
    records.round(Round(1, 0.0, 1.0, 1.0))
    for name in ("timeline.csv", "spectrum.csv"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
    for name in ("rounds.csv", "updates.csv"):
        assert (tmp_path / name).read_bytes().count(b"\r\n") == 2
    records.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "timeline.csv"
    table = CsvTable(tmp_path, "timeline.csv")
    table.write_block(INTERVALS)
    whole = path.read_bytes()
    with (
        largest_file(len(whole) + 100),
        pytest.raises(RunError, match=rf"^{path}: cannot be written \(File too large\)$"),
    ):
        table.write_block(INTERVALS)
    assert path.read_bytes() == whole
    table.write_block(INTERVALS[:1])
    table.close()
    assert path.read_bytes() == whole + whole.split(b"\r\n")[1] + b"\r\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("name", ["timeline.csv", "rounds.csv", "run.log"])
def test_full_disk_is_told(name: str, system: System, tmp_path: Path) -> None:
    """A link to a device that is always full, in the place of a file."""
    (tmp_path / name).symlink_to("/dev/full")
    message = rf"^{tmp_path / name}: cannot be written \(No space left on device\)$"
    with pytest.raises(RunError, match=message):
        _write_a_little(tmp_path, system)


def _write_a_little(folder: Path, system: System) -> None:
    records = Records(folder, system)
    records.log("words")
    records.summary({})
