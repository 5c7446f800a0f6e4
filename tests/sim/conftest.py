"""A scenario that runs in a second, finished runs of it, and the command line in-process."""

import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fslora.trainer import Learner
from sim import cli, run, workload
from sim.rundir import RunFiles, open_run
from sim.scenario import Scenario

WORDS = ("radio", "device", "uplink", "adapter", "matrix", "rank", "round", "server", "phone")


def write_rows(file: Path, count: int = 120) -> Path:
    """A CSV file of sentences in six groups and two classes, each longer than 32 bytes."""
    rng = np.random.default_rng(3)
    lines = ["text,label,place"]
    for i in range(count):
        words = " ".join(rng.choice(WORDS, 8))
        lines.append(f"{words},{'even' if i % 2 == 0 else 'odd'},town {i % 6}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def sentences() -> Callable[..., Path]:
    """Write the file of sentences."""
    return write_rows


@pytest.fixture(scope="session", autouse=True)
def _counted_once() -> Iterator[None]:
    """What a step costs is counted once for each model and choice, which takes most of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "make_card", functools.cache(workload.make_card))
        yield


def merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a scenario tree with dotted keys set."""
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four devices, a few sentences, two steps of two examples."""
    rows = write_rows(tmp_path_factory.mktemp("data") / "rows.csv")
    return {
        "name": "tiny",
        "seed": 1,
        "data": {
            "source": str(rows),
            "group_column": "place",
            "length": 32,
            "held_out_per_group": 2,
        },
        "training": {"steps": 2, "batch": 2, "device": "cpu", "threads": 1},
        "fleet": {"devices": 4},
        # Limits of noise and cohort that both bind take ten times as long to plan with.
        "policy": {"name": "joint", "min_cohort": 2.0, "max_noise": None},
        "stop": {"rounds": 3, "target": {"metric": "eval_loss", "value": 2.0}},
        "output": {"evaluate_every": 1},
    }


@pytest.fixture(scope="session")
def tiny(tiny_tree: dict[str, Any]) -> Callable[..., Scenario]:
    """Make the tiny scenario with dotted keys changed."""

    def make(changes: Mapping[str, Any] | None = None) -> Scenario:
        return Scenario.model_validate(merged(tiny_tree, changes or {}))

    return make


@dataclass(frozen=True)
class Simulated:
    """A finished run and the learner that it left behind."""

    files: RunFiles
    learner: Learner
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scenario], Simulated]:
    """Run a scenario into a folder of its own."""

    def simulated(scenario: Scenario) -> Simulated:
        folder = tmp_path_factory.mktemp("run") / "out"
        learners: list[Learner] = []
        make_learner = run.make_learner
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                run,
                "make_learner",
                lambda system: learners.append(make_learner(system)) or learners[0],
            )
            summary = run.run(scenario, folder)
        return Simulated(open_run(folder), learners[0], summary)

    return simulated


@pytest.fixture(scope="session")
def finished(tiny: Callable[..., Scenario], simulate: Callable[[Scenario], Simulated]) -> Simulated:
    """The tiny scenario, run once."""
    return simulate(tiny())


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `sim ...` in this process."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["sim", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return Answer(int(ended.value.code or 0), shown.out, shown.err)

    return call


@pytest.fixture
def scenario_file(tiny_tree: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny scenario, changed, as `scenario.yaml` and return its path."""

    def write(changes: Mapping[str, Any] | None = None, text: str | None = None) -> Path:
        file = tmp_path / "scenario.yaml"
        file.write_text(
            text if text is not None else yaml.safe_dump(merged(tiny_tree, changes or {})),
            encoding="utf-8",
        )
        return file

    return write
