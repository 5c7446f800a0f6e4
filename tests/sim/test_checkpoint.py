"""A checkpoint comes back whole or is refused, and the last good one outlives every failure."""

import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml

import sim.checkpoint
from sim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sim.errors import InputError, RunError
from sim.memory import Memory, Told
from sim.scenario import Scenario, dump_scenario

DATA = "d" * 64
REPOSITORY = Path(__file__).parents[2]


def scenario_with(**changes: Any) -> Scenario:
    return Scenario.model_validate({"name": "trial", **changes})


SCENARIO = scenario_with()


def made(rounds: int, learner: dict[str, torch.Tensor] | None = None) -> Checkpoint:
    """A checkpoint after some rounds of one update each."""
    memory = Memory()
    for number in range(1, rounds + 1):
        memory.note_updates(number, [number % 5], [4], [Told(1.0 / number, 0.1 * number)])
    memory.note_evaluation(rounds, 1.0 / 3.0, {"accuracy": 0.7})
    return Checkpoint(rounds, memory, learner or {}, {"train": 1.5, "write": 0.1})


def file_of(out: Path) -> Path:
    return out / "checkpoint" / "state.safetensors"


def load(out: Path, scenario: Scenario = SCENARIO) -> Checkpoint | None:
    return load_checkpoint(out, scenario, DATA)


def refused(out: Path, reason: str, scenario: Scenario = SCENARIO, data: str | None = DATA) -> str:
    """The one line of the refusal."""
    with pytest.raises(InputError, match=reason) as error:
        load_checkpoint(out, scenario, data)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(file_of(out)))
    return text


def same(one: Checkpoint | None, other: Checkpoint) -> bool:
    """Equal in all that they hold."""
    assert one is not None
    mine, theirs = one.memory.arrays(), other.memory.arrays()
    return (
        (one.round, one.host_s, one.versions) == (other.round, other.host_s, other.versions)
        and mine.keys() == theirs.keys()
        and all(np.array_equal(mine[name], theirs[name]) for name in theirs)
        and one.learner.keys() == other.learner.keys()
        and all(torch.equal(one.learner[name], value) for name, value in other.learner.items())
    )


LEARNERS = {
    "timing": {},
    "training": {
        "adapter.a.x": torch.arange(6.0).view(2, 3),
        "adapter.b.x": torch.arange(6.0, dtype=torch.float64).view(3, 2).T,
        "version.3.a.x": torch.tensor([[-0.0, float("inf")]], dtype=torch.bfloat16),
    },
}


@pytest.mark.parametrize("kind", LEARNERS)
def test_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    assert load(tmp_path) is None
    for rounds in (3, 12):
        checkpoint = made(rounds, LEARNERS[kind])
        save_checkpoint(tmp_path, SCENARIO, DATA, checkpoint)
        loaded = load(tmp_path)
        assert same(loaded, checkpoint)
        assert loaded is not None
        assert loaded.memory.until == rounds
        assert loaded.memory.updates(3, [3], [4]) == [Told(1.0 / 3.0, 0.1 * 3)]
        assert loaded.memory.evaluation(rounds) == (1.0 / 3.0, {"accuracy": 0.7})
        assert loaded.changes == []
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == ["state.safetensors"]
    # An ordinary safetensors file, for whoever wants to look into it.
    if kind == "timing":
        tensors = safetensors.numpy.load_file(file_of(tmp_path))
        assert tensors["memory.updates.loss"].tolist() == [1.0 / n for n in range(1, 13)]


def test_a_memory_ahead_of_its_checkpoint_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="round 3 in a checkpoint of 2"):
        save_checkpoint(tmp_path, SCENARIO, DATA, dataclasses.replace(made(3), round=2))


@pytest.fixture
def read_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Let files hold other bytes, without writing each."""
    return lambda content: monkeypatch.setattr(Path, "read_bytes", lambda _: content)


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_flipped_byte_is_refused(
    tmp_path: Path, kind: str, read_as: Callable[[bytes], None]
) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2, LEARNERS[kind]))
    whole = file_of(tmp_path).read_bytes()
    for place in range(len(whole)):
        for flip in (0xFF, 1 << place % 8):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            read_as(bytes(damaged))
            refused(tmp_path, "damaged|format|truncated")
    read_as(whole)
    assert same(load(tmp_path), made(2, LEARNERS[kind]))


@pytest.mark.parametrize("kind", LEARNERS)
def test_every_truncation_is_refused(
    tmp_path: Path, kind: str, read_as: Callable[[bytes], None]
) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2, LEARNERS[kind]))
    whole = file_of(tmp_path).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in range(len(whole)):
        read_as(whole[:size])
        reason = f"truncated, {size} of {len(whole)} bytes"
        refused(tmp_path, reason if size >= header else f"{reason}|not a checkpoint")
    read_as(whole + b"\0")
    refused(tmp_path, "damaged")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",
        b"name: trial\n" * 10,
        safetensors.numpy.save({"a": np.ones(3)}),
        safetensors.numpy.save({"a": np.ones(3)}, {"checkpoint": "[]"}),
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(content)
    refused(tmp_path, "not a checkpoint, or damaged; remove the folder checkpoint")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    file_of(tmp_path).mkdir(parents=True)
    refused(tmp_path, "cannot be read")


def test_another_scenario_is_refused_by_its_first_keys(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2))
    changes = {"seed": 2, "stop": {"rounds": 7}, "lora": {"rank": 4}, "fleet": {"devices": 5}}
    text = refused(tmp_path, "of another scenario; resume", scenario_with(**changes))
    (tmp_path / "scenario.yaml").write_text(dump_scenario(SCENARIO), encoding="utf-8")
    text = refused(tmp_path, "of another scenario", scenario_with(**changes))
    assert "seed was 1 and is 2" in text
    assert f"lora.rank was {SCENARIO.lora.rank} and is 4" in text
    assert f"fleet.devices was {SCENARIO.fleet.devices} and is 5" in text
    assert "stop.rounds" not in text
    one = refused(tmp_path, "another scenario", scenario_with(stop={"rounds": 7}))
    assert f"(stop.rounds was {SCENARIO.stop.rounds} and is 7)" in one
    target = {"metric": "eval_loss", "value": 1.0}
    refused(tmp_path, "stop.target was null and is", scenario_with(stop={"target": target}))
    for spoilt in ("[1, 2]", "a: b: c", "output: 3"):
        (tmp_path / "scenario.yaml").write_text(spoilt, encoding="utf-8")
        refused(tmp_path, "of another scenario; resume", scenario_with(**changes))


def test_how_often_it_is_saved_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(**output: int) -> str:
        tree = SCENARIO.model_dump(mode="json")
        tree["output"] |= output
        with monkeypatch.context() as patch:
            patch.setattr(Scenario, "model_dump", lambda *_, **__: tree)
            return sim.checkpoint._digest_of(SCENARIO)

    assert digest(checkpoint_every=1) == digest(checkpoint_every=9) == digest()
    assert digest(evaluate_every=1) != digest(evaluate_every=9)


def test_other_data_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2))
    refused(tmp_path, "other data", data="e" * 64)
    refused(tmp_path, "other data", data=None)
    save_checkpoint(tmp_path, SCENARIO, None, made(2))
    assert load_checkpoint(tmp_path, SCENARIO, None) is not None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("_FORMAT", 3, "its format is 2, this program reads 3"),
        ("version", lambda _: "9.9", "written by version .*, this is 9.9"),
    ],
)
def test_other_programs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object, reason: str
) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2))
    monkeypatch.setattr(sim.checkpoint, name, value)
    refused(tmp_path, reason)


def test_other_libraries_are_told(tmp_path: Path) -> None:
    versions = {**made(1).versions, "numpy": "1.0"}
    save_checkpoint(tmp_path, SCENARIO, DATA, dataclasses.replace(made(1), versions=versions))
    loaded = load(tmp_path)
    assert loaded is not None
    assert loaded.changes == [f"numpy was 1.0 and is {np.__version__}"]


class Full:
    """Calls on a folder or on open files, of which the n-th finds no space."""

    def __init__(self, folder: Path, fails: int) -> None:
        self.folder, self.fails, self.calls = folder, fails, 0

    def guard(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(on: Any, *arguments: Any, **options: Any) -> Any:
            self.calls += isinstance(on, int) or Path(on).is_relative_to(self.folder)
            if self.calls == self.fails:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(on, *arguments, **options)

        return guarded


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fails", range(1, 11))
def test_a_write_that_fails_anywhere_leaves_a_good_file(
    tmp_path: Path, first: bool, fails: int
) -> None:
    before, after = made(2), made(3)
    if not first:
        save_checkpoint(tmp_path, SCENARIO, DATA, before)
    full = Full(tmp_path, fails)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "open"):
            patch.setattr(os, name, full.guard(getattr(os, name)))
        for name in ("mkdir", "open", "replace", "unlink"):
            patch.setattr(Path, name, full.guard(getattr(Path, name)))
        # Making the folder and syncing the one above are three calls, the rest is six.
        if fails > (9 if first else 6):
            save_checkpoint(tmp_path, SCENARIO, DATA, after)
        else:
            with pytest.raises(RunError, match="No space left on device"):
                save_checkpoint(tmp_path, SCENARIO, DATA, after)
    loaded = load(tmp_path)
    if loaded is None:
        assert first
    else:
        assert same(loaded, after) or (not first and same(loaded, before))
    save_checkpoint(tmp_path, SCENARIO, DATA, after)  # once there is room again
    assert same(load(tmp_path), after)
    assert [path.name for path in file_of(tmp_path).parent.iterdir()] == ["state.safetensors"]


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Limit the size of files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_grows_too_large_leaves_the_last_one(
    tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    before = made(2)
    save_checkpoint(tmp_path, SCENARIO, DATA, before)
    size = file_of(tmp_path).stat().st_size
    large = made(2, {"adapter.a.x": torch.zeros(1_000_000)})
    for limit in (0, 100, size, 4_000_000):
        file_limit(limit)
        with pytest.raises(RunError, match=r"after round 2 cannot be written \(File too large\)"):
            save_checkpoint(tmp_path, SCENARIO, DATA, large)
        assert [path.name for path in file_of(tmp_path).parent.iterdir()] == ["state.safetensors"]
        assert same(load(tmp_path), before)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="after round 2 cannot be written"):
        save_checkpoint(tmp_path / "gone", SCENARIO, DATA, made(2))


# Children that save again and again are killed, the first ones as they write, then later and later.
_KILLED = """
import os, signal, sys, time
from pathlib import Path
from sim.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sim.memory import Memory, Told
from sim.scenario import Scenario

out, scenario = Path(sys.argv[1]), Scenario.model_validate({"name": "trial"})

def save(rounds):
    memory = Memory()
    memory.note_updates(rounds, range(5000), [1] * 5000, [Told(float(rounds), 2.0)] * 5000)
    save_checkpoint(out, scenario, None, Checkpoint(rounds, memory, {}, {}))

began = time.perf_counter()
save(1)
one_s = time.perf_counter() - began
partial = out / "checkpoint" / "state.safetensors.part"
parent, reached = os.getpid(), 1
for attempt in range(20):
    child = os.fork()
    if not child:
        rounds = reached
        while os.getppid() == parent:
            rounds += 1
            save(rounds)
        os._exit(1)
    while not partial.exists():
        pass
    time.sleep(one_s * attempt / 10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load_checkpoint(out, scenario, None)
    assert found.round >= reached, (found.round, reached)
    assert found.memory.updates(found.round, range(5000), [1] * 5000)[-1][0] == found.round
    reached = found.round
assert "torch" not in sys.modules
print(reached)
"""


def test_killed_at_any_moment_and_without_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1  # some got through


def test_a_training_run_is_read_without_a_pickle(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, SCENARIO, DATA, made(2, LEARNERS["training"]))
    content = file_of(tmp_path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    described = json.loads(header.pop("__metadata__")["checkpoint"])
    assert described["round"] == 2
    assert described["host_s"] == {"train": 1.5, "write": 0.1}
    assert {name for name in header if name.startswith("learner.")} == {
        f"learner.{name}" for name in LEARNERS["training"]
    }
    # Wheels do not agree on whether the build belongs to the version.
    told = yaml.safe_load(json.dumps(described["versions"]))["torch"]
    assert told.split("+")[0] == torch.__version__.split("+")[0]
