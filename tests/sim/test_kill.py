"""Runs that are killed, stopped, out of space, or led astray, and what comes of them."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sim import workload
from sim.checkpoint import FILE, FOLDER
from sim.errors import Interrupted, RunError
from sim.progress import Step
from sim.run import run
from sim.scenario import Scenario
from tests.kill import Trials, differing, start

REPOSITORY = Path(__file__).parents[2]

Tiny = Callable[..., Scenario]

#: Six rounds of sizes alone, saved after every second one.
TIMING = {
    "training.timing_only": True,
    "data": {"source": "builtin:synthetic", "samples": 8, "length": 32},
    "policy": {"name": "uniform", "probability": 0.6},
    "stop.rounds": 6,
    "output.checkpoint_every": 2,
}


@pytest.fixture(scope="module", autouse=True)
def cards_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the model's costs counted once, by another process, as where torch is not imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(workload, "_apart", lambda scenario: scenario.training.timing_only)
        yield


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Rounds with every failure there is, run whole once."""
    return Trials.begin(tmp_path_factory.mktemp("kill"), "failures", imported=True)


def test_killed_runs_come_out_the_same(trials: Trials, tmp_path: Path) -> None:
    moments = iter([share * trials.seconds for share in (0.7, 0.8)])
    trials.run(tmp_path / "out", moments)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_tells_how_to_go_on(
    trials: Trials, number: signal.Signals, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", tmp_path / "told"
    process = start(["run", trials.file, "--out", out], told, imported=True)
    while process.is_alive() and not _lines(out / "rounds.csv") >= 3:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130
    last = told.read_text(encoding="utf-8").splitlines()[-1]
    assert last.startswith(f"sim: stopped by {number.name} after round ")
    assert "`sim run --resume`" in last
    assert str(out) in last
    assert (out / FOLDER / FILE).exists()
    assert trials.run(out, iter(())) == []  # compares


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


# A child dies when it opens, renames or removes its n-th file, for every n, and another resumes.
_CRASHING = """
import os, sys
from pathlib import Path
from sim.run import run
from sim.scenario import Scenario
from tests.kill import differing

folder, scenario = Path(sys.argv[1]), Scenario.model_validate_json(sys.argv[2])
assert "torch" not in sys.modules
whole, count = folder / "whole", 0

def step(event, arguments, out, last):
    global count
    named = event in ("open", "os.mkdir", "os.rename", "os.remove")
    if named and str(arguments[0]).startswith(str(out)):
        count += 1
        if count == last:
            os._exit(9)

def child(out, last, resume):
    number = os.fork()
    if not number:
        sys.addaudithook(lambda event, arguments: step(event, arguments, out, last))
        run(scenario, out, resume=resume)
        os._exit(0 if count < last else 1)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

run(scenario, whole)
last = 0
while True:
    last += 1
    out = folder / str(last)
    if child(out, last, False) == 0:
        break
    # The same step of what resumes it, now and then.
    if last % 3 == 0:
        child(out, last, True)
    assert child(out, 10**9, True) == 0, last
    assert not differing(whole, out), (last, differing(whole, out))
print(last)
"""


def test_killed_at_any_step_between_files(tiny: Tiny, tmp_path: Path) -> None:
    short = tiny({**TIMING, "stop.rounds": 3, "output.timeline": "rounds"})
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING, str(tmp_path), short.model_dump_json()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six rounds, run whole."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(tiny(TIMING), out)
    return out


@pytest.fixture
def broken_off(tiny: Tiny, tmp_path: Path) -> Path:
    """The six rounds, broken off after the fifth."""
    out = tmp_path / "broken-off"

    def interrupt(step: Step) -> None:
        if step.round == 5:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"interrupted; .*`sim run --resume`"):
        run(tiny(TIMING), out, interrupt)
    assert not (out / "summary.json").exists()
    return out


def test_finished_run_is_left_as_it_is(
    whole: Path, scenario_file: Callable[..., Path], command: Callable[..., Any]
) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in whole.glob("*.*")}
    answer = command("run", scenario_file(TIMING), "--out", whole, "--resume")
    assert (answer.code, answer.err) == (0, "")
    assert f"{whole}: has finished before" in answer.out
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}


def test_what_cannot_be_resumed_is_refused(
    broken_off: Path,
    whole: Path,
    scenario_file: Callable[..., Path],
    command: Callable[..., Any],
    tmp_path: Path,
) -> None:
    file, state = scenario_file(TIMING), broken_off / FOLDER / FILE
    other = command("run", file, "--out", broken_off, "--resume", "--set", "stop.rounds=9")
    assert other.code == 2
    assert f"--out {broken_off}: was begun with another scenario" in other.err
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-anna.txt").touch()
    none = command("run", file, "--out", tmp_path / "letters", "--resume")
    assert none.code == 2
    assert f"--out {tmp_path / 'letters'}: holds no run that could be resumed" in none.err
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = command("run", file, "--out", broken_off, "--resume")
    assert damaged.code == 2
    assert f"{state}: damaged" in damaged.err
    state.write_bytes(content)
    assert command("run", file, "--out", broken_off, "--resume", "--quiet").code == 0
    assert differing(whole, broken_off) == []


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limit the size of files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size < 0 else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_out_of_space_it_can_be_resumed_later(
    tiny: Tiny, whole: Path, tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    """Whichever file it is that does not fit."""
    sizes = {path.stat().st_size for path in whole.iterdir() if path.is_file()}
    failed = 0
    for size in sorted(sizes - {0})[1::3]:
        out = tmp_path / str(size)
        file_limit(size - 1)
        try:
            run(tiny(TIMING), out)
            told = (out / "run.log").read_text(encoding="utf-8")
        except RunError as error:
            failed += 1
            told = str(error)
        finally:
            file_limit(-1)
        assert "cannot be written (File too large)" in told
        assert str(out) in told
        for table in out.glob("*.csv"):
            assert table.read_bytes().endswith(b"\r\n")
        run(tiny(TIMING), out, resume=True)
        assert set(differing(whole, out)) <= {"run.log"}  # tells of checkpoints without space
    assert failed


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("clip_norm", [2.0, None])
def test_training_that_runs_away_ends_with_whole_files(
    scenario_file: Callable[..., Path],
    command: Callable[..., Any],
    tmp_path: Path,
    clip_norm: float | None,
) -> None:
    out = tmp_path / "out"
    changes = {
        "training.learning_rate": 1e6,
        "training.clip_norm": clip_norm,
        "policy": {"name": "uniform", "probability": 0.6},
        "stop.rounds": 6,
        "output.checkpoint_every": 1,
    }
    file = scenario_file(changes)
    answer = command("run", file, "--out", out)
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "training.learning_rate" in answer.err
    assert f"files so far are in {out}" in answer.err
    rounds = pd.read_csv(out / "rounds.csv")
    assert rounds["eval_loss"].notna().all()
    assert len(pd.read_csv(out / "devices.csv")) == 4
    assert not (out / "summary.json").exists()
    # It goes astray again, at the same place.
    again = command("run", file, "--out", out, "--resume")
    assert (again.code, again.err) == (1, answer.err)
    assert json.loads(rounds.to_json()) == json.loads(pd.read_csv(out / "rounds.csv").to_json())
