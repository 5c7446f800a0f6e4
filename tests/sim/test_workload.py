"""What is to be done, with and without text, with and without torch."""

import functools
import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import gamma, kstest

from fslora import apart
from fslora.methods import Job
from fslora.order import job_rows
from sim import workload
from sim.errors import InputError
from sim.load import load_scenario
from sim.scenario import Scenario
from sim.workload import Workload, build_workload
from tests.hub import save_model
from tests.sim.conftest import merged

Tiny = Callable[..., Scenario]

TIMING = {"training.timing_only": True}
JOBS = [(0, 1), (3, 2**40), (1, 2**62), (0, 7)]


def synthetic(**data: Any) -> dict[str, Any]:
    """Changes to a scenario: examples without text."""
    return {**TIMING, "data": {"source": "builtin:synthetic", "length": 32, **data}}


def facts(made: Workload) -> dict[str, Any]:
    """All that a run's times follow from, as JSON values."""
    device, key = np.array(JOBS).T
    return {
        "weight": made.weight.tolist(),
        "steps": made.steps.tolist(),
        "samples": made.samples.tolist(),
        "expected": made.expected_flops(5).tolist(),
        "flops": made.flops_of(device, key, np.array([1, 4, 16, 9])).tolist(),
        "cost": repr(made.cost),
        "layout": repr(made.layout),
        "labels": made.label_counts().tolist(),
        "names": list(made.label_names),
        "sha256": made.data_sha256,
        "pad": made.pad_token,
    }


@pytest.fixture(scope="module", autouse=True)
def _counted_once() -> Iterator[None]:
    """The same question twice is counted once, by whoever asks."""
    with pytest.MonkeyPatch.context() as patch:
        make_card = functools.cache(workload.make_card)
        patch.setattr(workload, "make_card", make_card)
        patch.setattr(apart, "make_card", make_card)
        yield


@pytest.fixture(scope="module")
def kinds(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    """A scenario of every kind of workload."""
    folder = tmp_path_factory.mktemp("models")
    save_model("llama", folder / "llama")
    file = folder / "questions.csv"
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    lines = [f"{' '.join(words[: 1 + n % 8])},yes,{n % 3}" for n in range(60)]
    file.write_text("\n".join(["question,text,place", *lines]), encoding="utf-8")
    return {
        "stdlib": tiny({"data": {"partition": "quantity"}}),
        "file": tiny({"data.task": "classification", "data.label_column": "label"}),
        "folder": tiny(
            {
                "model.name": str(folder / "llama"),
                "data.source": str(file),
                "data.prompt_column": "question",
                "training.epochs": 2,
                "training.batch": 5,
            }
        ),
        "synthetic": tiny(synthetic(samples_sigma=1.0)),
    }


#: Builds workloads in a process of its own that may start no other; `facts` is put before it.
SCRIPT = """
import json, subprocess, sys
import numpy as np
from sim.scenario import Scenario
from sim.workload import build_workload
subprocess.run = None
trees = json.load(sys.stdin)
found = {name: facts(build_workload(Scenario.model_validate(tree))) for name, tree in trees.items()}
print(json.dumps([found, "torch" in sys.modules, "transformers" in sys.modules]))
"""


def test_times_follow_from_the_same_facts_without_torch(
    kinds: dict[str, Scenario], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    timing = {name: merged(each.model_dump(mode="json"), TIMING) for name, each in kinds.items()}
    # As if torch were not here, with answers from this process in the place of another.
    with monkeypatch.context() as patch:
        patch.setattr(workload, "_apart", lambda scenario: scenario.training.timing_only)
        patch.setattr(apart, "_from_another_process", _answer)
        for tree in timing.values():
            build_workload(Scenario.model_validate(tree))
    head = f"from __future__ import annotations\nJOBS = {JOBS}\n{inspect.getsource(facts)}"
    done = subprocess.run(
        [sys.executable, "-c", head + SCRIPT],
        input=json.dumps(timing),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found, torch, transformers = json.loads(done.stdout)
    assert not torch
    assert not transformers
    for name, scenario in kinds.items():
        assert found[name] == facts(build_workload(scenario)), name


def _answer(_: str, asked: str) -> Any:
    what, values = json.loads(asked)
    return apart._ANSWERS[what](values)


@pytest.mark.parametrize("kind", ["stdlib", "file", "folder", "synthetic"])
def test_flops_are_those_of_the_examples_drawn(kind: str, kinds: dict[str, Scenario]) -> None:
    made = build_workload(kinds[kind])
    assert made.weight.sum() == pytest.approx(1.0, abs=1e-12)
    if kind == "synthetic":
        length = np.full(made.samples.sum(), 32)
        shards = tuple(np.split(np.arange(len(length)), np.cumsum(made.samples)[:-1]))
    else:
        length, shards = made.dataset.train.length, made.shards
    device, key = np.array(JOBS * 5).T
    rank = np.arange(1, 21) % 16 + 1
    found = made.flops_of(device, key, rank)
    for n, s, k, flops in zip(device, key, rank, found, strict=True):
        rows = job_rows(shards, length, made.local, Job(int(n), int(k), int(s)))
        assert made.cost.example_flops(k, length[rows]).sum() == flops
    one = made.flops_of(device, key, 4)
    assert one.tolist() == made.flops_of(device, key, np.full(20, 4)).tolist()


def test_rounds_of_whole_passes_cost_what_is_expected(kinds: dict[str, Scenario]) -> None:
    # Each example twice, one by one.
    tree = merged(kinds["folder"].model_dump(mode="json"), {"training.batch": 1})
    made = build_workload(Scenario.model_validate(tree))
    device = np.arange(len(made.samples))
    assert (made.steps == 2 * made.samples).all()
    expected = made.expected_flops(3)
    assert made.flops_of(device, device, 3) == pytest.approx(expected, rel=1e-12)


def test_expected_flops_are_the_mean_over_draws(kinds: dict[str, Scenario]) -> None:
    made = build_workload(kinds["folder"])
    keys = np.arange(4000)
    flops = made.flops_of(np.zeros_like(keys), keys, 3)
    error = flops.std() / np.sqrt(len(keys))
    assert error > 0
    assert abs(flops.mean() - made.expected_flops(3)[0]) < 4 * error


def sizes(tiny: Tiny, devices: int, **data: Any) -> np.ndarray:
    """Examples per device of data without text."""
    fleet = {"fleet.devices": devices, "policy": {"name": "uniform"}}
    made = build_workload(tiny({**synthetic(**data), **fleet}))
    assert made.text is None
    assert (made.samples >= 1).all()
    return made.samples


def test_sizes_are_log_normal_about_their_median(tiny: Tiny) -> None:
    found = sizes(tiny, 4000, samples=50_000, samples_sigma=0.7)
    assert kstest(np.log(found / 50_000), "norm", args=(0, 0.7)).pvalue > 0.01
    assert set(sizes(tiny, 9, samples=7)) == {7}
    assert set(sizes(tiny, 9)) == {100}


def test_sizes_by_quantity_are_gamma_about_their_mean(tiny: Tiny) -> None:
    found = sizes(tiny, 4000, samples=50_000, partition="quantity", alpha=2.0)
    law = gamma(2.0, scale=25_000)
    assert law.mean() == 50_000
    assert kstest(found, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("data", [{"samples_sigma": 1.0}, {"partition": "quantity"}], ids=str)
def test_a_device_has_its_data_whoever_else_is_there(data: dict[str, Any], tiny: Tiny) -> None:
    few, many = sizes(tiny, 5, **data), sizes(tiny, 500, **data)
    assert few.tolist() == many[:5].tolist()
    assert len(set(many.tolist())) > 50


def test_sizes_without_text_have_neither_examples_nor_classes(tiny: Tiny) -> None:
    one, other = (build_workload(tiny(synthetic(samples=n))) for n in (3, 4))
    assert one.label_names == ()
    assert one.label_counts().shape == (4, 0)
    assert len(one.data_sha256) == 64
    assert one.data_sha256 != other.data_sha256
    assert one.data_sha256 == build_workload(tiny(synthetic(samples=3))).data_sha256
    for name in ("dataset", "shards"):
        with pytest.raises(ValueError, match="has no examples"):
            getattr(one, name)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "training": (
        {"training.timing_only": False},
        r"data.source = 'builtin:synthetic': .* set training.timing_only: true",
    ),
    "another inside the package": (
        {"data.source": "builtin:synthetik"},
        r"data.source = 'builtin:synthetik': did you mean 'builtin:synthetic'\?",
    ),
    "task": ({"data.task": "classification"}, r"data.task = 'classification': .* no classes"),
    "label": ({"data.label_column": "a"}, r"data.label_column = 'a': .* no text"),
    "group": ({"data.group_column": "a"}, r"data.group_column = 'a': .* no text"),
    "prompt": ({"data.prompt_column": "a"}, r"data.prompt_column = 'a': .* no text"),
    "text": ({"data.text_column": "a"}, r"data.text_column = 'a': .* leave it out"),
    "held out": ({"data.held_out": "a.csv"}, r"data.held_out = 'a.csv': .* no text"),
    "held out per group": (
        {"data.held_out_per_group": 2},
        r"data.held_out_per_group = 2: .* no text",
    ),
    "partition": (
        {"data.partition": "dirichlet"},
        r"data.partition = 'dirichlet': .* choose natural or quantity",
    ),
    "spread twice": (
        {"data.partition": "quantity", "data.samples_sigma": 0.5},
        r"data.samples_sigma = 0.5: .* data.alpha",
    ),
    "alpha": ({"data.alpha": 2.0}, r"data.alpha = 2: .* does not read it"),
    "little alpha": (
        {"data.partition": "quantity", "data.alpha": 1e-9},
        r"data.alpha = 1e-09: .* at least 0.001",
    ),
    "no samples": ({"data.samples": 0}, r"data.samples = 0: .*greater than or equal to 1"),
    "wide spread": ({"data.samples_sigma": 4.0}, r"data.samples_sigma = 4.0: .*less than"),
    "samples of text": (
        {"data.source": "builtin:stdlib", "data.samples": 5},
        r"data.samples = 5: only data.source = builtin:synthetic reads it",
    ),
    "spread of text": (
        {"data.source": "builtin:stdlib", "data.samples_sigma": 0.5},
        r"data.samples_sigma = 0.5: only data.source = builtin:synthetic reads it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(merged(tiny_tree, {**synthetic(), **changes})), encoding="utf-8")
    with pytest.raises(InputError, match=message) as refused:
        load_scenario(file)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("timing_only", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "/nowhere"}, r"model.name: model '/nowhere' cannot be loaded"),
        ({"data.length": 600}, r"data.length = 600: builtin:tiny-llama takes at most 512 tokens"),
        ({"lora.targets": ["query"]}, r"lora.targets = \['query'\]: no linear layer is named"),
        ({"fleet.devices": 999}, r"fleet.devices = 999: .* has only 108 training examples"),
    ],
)
def test_model_and_data_are_refused_alike_without_torch(
    timing_only: bool,
    changes: dict[str, Any],
    message: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(_: Any, **options: Any) -> Any:
        out = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(options["input"]))
            patch.setattr(sys, "stdout", out)
            apart.main()
        return subprocess.CompletedProcess([], 0, out.getvalue(), "")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(workload, "_apart", lambda scenario: scenario.training.timing_only)
    monkeypatch.setattr(subprocess, "run", run)
    scenario = tiny({**changes, "training.timing_only": timing_only})
    with pytest.raises(InputError, match=message):
        build_workload(scenario)
