"""Wrong input: exit code 2, one message with key, value and remedy, and nothing written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Command = Callable[..., Any]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder with its contents."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command that must be refused and return its message."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> str:
        before = snapshot(tmp_path)
        answer = command(*arguments)
        assert answer.code == 2
        assert answer.out == ""
        assert answer.err.startswith("sim: ")
        assert answer.err.count("\n") == 1
        assert answer.err.endswith("\n")
        assert "Traceback" not in answer.err
        assert snapshot(tmp_path) == before
        return answer.err

    return call


#: Changes to a sound scenario, and what the message says: key, value, remedy.
SCENARIOS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown key": ({"fleat": 3}, ("fleat = 3: unknown key", "did you mean 'fleet'?")),
    "unknown key, nothing like it": (
        {"weather": "fine"},
        ("weather = 'fine': unknown key", "known here: name, seed, model"),
    ),
    "unknown nested key": (
        {"radio.bandwith_hz": 1e6},
        ("radio.bandwith_hz = 1000000.0: unknown key", "did you mean 'bandwidth_hz'?"),
    ),
    "key of another policy": (
        {"policy": {"name": "full", "rank": 8}},
        ("policy.rank = 8: unknown key",),
    ),
    "momentum of another optimizer": (
        {"training.optimizer": "adamw", "training.momentum": 0.9},
        ("training.momentum = 0.9", "belongs to optimizer sgd"),
    ),
    "weight decay of another optimizer": (
        {"training.weight_decay": 0.1},
        ("training.weight_decay = 0.1", "belongs to optimizer adamw"),
    ),
    "betas of another optimizer": (
        {"training.betas": [0.5, 0.9]},
        ("training.betas = [0.5, 0.9]", "belongs to optimizer adamw"),
    ),
    "biased steps": (
        {"training.optimizer": "adamw", "training.sketch_step": "common"},
        ("training.sketch_step = 'common'", "choose scaled"),
    ),
    "three betas": ({"training.betas": [0.9, 0.99, 0.999]}, ("training.betas", "at most 2")),
    "unknown server": (
        {"training.server": "adamax"},
        ("training.server", "'plain', 'momentum', 'adam'"),
    ),
    "key of another server": (
        {"training.server": {"name": "plain", "momentum": 0.9}},
        ("training.server.momentum = 0.9: unknown key", "known here: "),
    ),
    "no epoch": ({"training.epochs": 0}, ("training.epochs = 0: ", "greater than or equal to 1")),
    "cap above the global rank": (
        {"fleet.rank_caps": [2, 32]},
        ("fleet.rank_caps = [2, 32]", "lora.rank = 16"),
    ),
    "cap that the method cannot train": (
        {"fleet.rank_caps": [2, 4], "method": "fedit"},
        ("fleet.rank_caps = [2, 4]: method fedit", "choose method fslora"),
    ),
    "negative bandwidth": (
        {"radio.bandwidth_hz": -1e6},
        ("radio.bandwidth_hz = -1000000.0: ", "greater than or equal to 1"),
    ),
    "no devices": ({"fleet.devices": 0}, ("fleet.devices = 0: ", "greater than or equal to 1")),
    "text for a number": (
        {"radio.bandwidth_hz": "wide"},
        ("radio.bandwidth_hz = 'wide': ", "should be a valid number"),
    ),
    "bool for an integer": (
        {"fleet.devices": True},
        ("fleet.devices = True: ", "should be a valid integer"),
    ),
    "bool for a number": ({"lora.alpha": True}, ("lora.alpha = True: ", "a valid number")),
    "fraction for an integer": ({"lora.rank": 2.5}, ("lora.rank = 2.5: ", "a valid integer")),
    "list for text": (
        {"model.name": ["a", "b"]},
        ("model.name = ['a', 'b']: ", "should be a valid string"),
    ),
    "number for a section": ({"fleet": 4}, ("fleet = 4: ", "should be a valid dictionary")),
    "empty list": ({"lora.targets": []}, ("lora.targets = []: ", "at least 1 item")),
    "neither text nor list": (
        {"lora.targets": 3},
        ("lora.targets = 3: ", "all-linear, a list of layer names, or a regular expression"),
    ),
    "certain dropout": ({"lora.dropout": 1.0}, ("lora.dropout = 1.0: ", "less than 1")),
    "not a number": ({"lora.alpha": float("nan")}, ("lora.alpha = nan: ", "finite number")),
    "infinity": (
        {"training.learning_rate": float("inf")},
        ("training.learning_rate = inf: ", "finite number"),
    ),
    "rank above r": (
        {"policy": {"name": "uniform", "rank": 17}},
        ("policy.rank = 17: ", "cannot exceed lora.rank = 16"),
    ),
    "name with a slash": ({"name": "../x"}, ("name = '../x': ", "should match pattern")),
    "negative seed": ({"seed": -1}, ("seed = -1: ", "greater than or equal to 0")),
    "target of unknown metric": (
        {"stop.target": {"metric": "loss", "value": 1.0}},
        ("stop.target.metric = 'loss': ", "eval_loss and bits_per_byte"),
    ),
    "accuracy of a language model": (
        {"stop.target": {"metric": "accuracy", "value": 0.5}},
        ("stop.target.metric = 'accuracy': ", "eval_loss and bits_per_byte"),
    ),
    "stop at no target": (
        {"stop": {"at_target": True}},
        ("stop.at_target = true: ", "needs stop.target"),
    ),
    "unknown preset": (
        {"fleet.preset": "phone-snapdragon-778"},
        ("fleet.preset = 'phone-snapdragon-778': ", "did you mean 'phone-snapdragon-778g'?"),
    ),
    "unknown method": (
        {"method": "fsrola"},
        ("method.name = 'fsrola': ", "did you mean"),
    ),
    "unknown round model": (
        {"policy.rounds": "progres"},
        ("policy.rounds.model = 'progres': ", "'progress', 'sampling', 'rank-cost', 'smoothness'"),
    ),
    "constant of another round model": (
        {"policy.rounds": {"model": "sampling", "rank_exponent": 0.5}},
        ("policy.rounds.rank_exponent = 0.5: unknown key", "known here: model, base, sampling"),
    ),
    "rounds without a base": (
        {"policy.rounds": {"base": 0.0}},
        ("policy.rounds.base = 0.0: ", "greater than 0"),
    ),
    "tables without a file": ({"policy.rounds": "tables"}, ("policy.rounds.file: missing",)),
    "tables in no file": (
        {"policy.rounds": {"model": "tables", "file": "none.csv"}},
        ("policy.rounds.file = 'none.csv': cannot be read", "give its path"),
    ),
    "plans made anew for no reason": (
        {"policy.replan": {"cost_s": 1.0}},
        ("policy.replan.every: give every or drift",),
    ),
    "unknown key of planning anew": (
        {"policy.replan": {"evry": 3}},
        ("policy.replan.evry = 3: unknown key", "did you mean 'every'?"),
    ),
    "no round under a plan": (
        {"policy.replan": {"every": 0}},
        ("policy.replan.every = 0: ", "greater than or equal to 1"),
    ),
    "planning anew in negative time": (
        {"policy.replan": {"every": 1, "cost_s": -1.0}},
        ("policy.replan.cost_s = -1.0: ", "greater than or equal to 0"),
    ),
    "new plans of a policy that learns": (
        {"policy": {"name": "oort", "replan": {"every": 5}}},
        ("policy.replan: ", "would forget", "leave it out"),
    ),
    "larger cohort than the fleet": (
        {"policy": {"name": "oort", "cohort": 9}},
        ("policy.name = 'oort': cohort is 9: ", "4"),
    ),
    "estimates that no plan uses": (
        {"policy.knowledge": "estimated"},
        ("policy.knowledge = 'estimated': ", "give policy.replan"),
    ),
    "unknown knowledge": (
        {"policy.knowledge": "all"},
        ("policy.knowledge = 'all': ", "'statistics', 'estimated' or 'oracle'"),
    ),
    "deadline below what every round costs": (
        {"policy.deadline_s": 0.1},
        ("policy.deadline_s = 0.1: ", "give more"),
    ),
    "no energy": (
        {"policy.energy_limit_j": 0.0},
        ("policy.energy_limit_j = 0.0: ", "greater than 0"),
    ),
    "participation above one": (
        {"policy.min_participation": 1.5},
        ("policy.min_participation = 1.5: ", "less than or equal to 1"),
    ),
    "participation of devices that are away": (
        {
            "policy.min_participation": 0.9,
            "fleet.availability": {"name": "markov", "mean_on_s": 10.0, "mean_off_s": 10.0},
        },
        ("policy.min_participation = 0.9: device 0 is there", "0.5 of the rounds"),
    ),
    "unknown policy": ({"policy": "jont"}, ("policy.name = 'jont': ", "'joint', 'uniform'")),
    "unknown schedule": ({"schedule": "chaos"}, ("schedule.name = 'chaos': ", "'synchronous'")),
    "unknown built-in model": (
        {"model.name": "builtin:big"},
        ("model.name = 'builtin:big': ", "builtin:tiny-llama"),
    ),
    "cohort larger than the fleet": (
        {"policy.min_cohort": 5.0},
        ("policy.min_cohort = 5: ", "at most fleet.devices = 4"),
    ),
    "probability below the least cohort": (
        {"policy": {"name": "uniform", "probability": 0.1}},
        ("policy.probability = 0.1: ", "at least 0.25"),
    ),
    "no cell left": (
        {"radio.min_distance_m": 500.0},
        ("radio.min_distance_m must be below cell_radius_m = 500", "got 500"),
    ),
    "loss beyond physics": (
        {"radio.extra_loss_db": 5e3},
        ("radio.extra_loss_db = 5000.0: ", "equal to 100"),
    ),
    "power beyond physics": (
        {"radio.bs_power_dbm": 1e300},
        ("radio.bs_power_dbm = 1e+300", "equal to 100"),
    ),
    "more threads than any machine has": (
        {"training.threads": 100_000},
        ("training.threads = 100000: ", "less than or equal to 1024"),
    ),
    "missing data file": (
        {"data.source": "nowhere.csv"},
        ("data.source = 'nowhere.csv': ", "no such file"),
    ),
    "data file of unknown kind": (
        {"data.source": "rows.parquet"},
        ("data.source = 'rows.parquet': ", ".csv or .jsonl"),
    ),
    "missing held-out file": (
        {"data.held_out": "nowhere.jsonl"},
        ("data.held_out = 'nowhere.jsonl': ", "no such file"),
    ),
    "column for built-in text": (
        {"data.source": "builtin:stdlib", "data.group_column": "town"},
        ("data.group_column = 'town': ", "leave it out"),
    ),
    "classification without classes": (
        {"data.task": "classification", "stop": {"rounds": 1}},
        ("data.label_column = null: ", "needs its class column"),
    ),
    "text column missing in the file": (
        {"data.source": "rows.csv", "data.text_column": "body"},
        ("rows.csv", "no 'body'", "its columns: text, label, place"),
    ),
    "dirichlet without classes": (
        {"data.partition": "dirichlet"},
        ("data.partition = 'dirichlet': ", "set data.label_column"),
    ),
    "pathological without classes": (
        {"data.partition": "pathological"},
        ("data.partition = 'pathological': ", "set data.label_column"),
    ),
    "unknown partition": (
        {"data.partition": "quantitative"},
        ("data.partition = 'quantitative': ", "'quantity' or 'pathological'"),
    ),
    "more classes per device than there are": (
        {
            "data.label_column": "label",
            "data.partition": "pathological",
            "data.classes_per_device": 3,
        },
        ("data.classes_per_device = 3: ", "have 2 classes; take at most those"),
    ),
    "fewer places than classes": (
        {
            "data.label_column": "place",
            "data.partition": "pathological",
            "data.classes_per_device": 1,
        },
        ("data.classes_per_device = 1: ", "the 6 classes; take at least 2"),
    ),
    "no class per device": (
        {"data.classes_per_device": 0},
        ("data.classes_per_device = 0: ", "greater than or equal to 1"),
    ),
    "classes per device without pathological": (
        {"data.partition": "iid", "data.classes_per_device": 3},
        ("data.classes_per_device = 3: ", "'iid' does not read it", "or choose pathological"),
    ),
    "concentration of no distribution": (
        {"data.alpha": 0.1},
        ("data.alpha = 0.1: ", "leave it out, or choose dirichlet or quantity"),
    ),
    "metric of another task": (
        {"data.metric": "accuracy"},
        ("data.metric = 'accuracy': ", "measures bits_per_byte, perplexity, exact_match"),
    ),
    "target of a metric that is not followed": (
        {"stop.target": {"metric": "perplexity", "value": 3.0}},
        ("stop.target.metric = 'perplexity': ", "another data.metric"),
    ),
    "prompts of a classifier": (
        {
            "data.task": "classification",
            "data.label_column": "label",
            "data.prompt_column": "place",
            "stop": {"rounds": 1},
        },
        ("data.prompt_column = 'place': ", "leave it out, or set data.task = causal-lm"),
    ),
    "prompts of built-in text": (
        {"data": {"source": "builtin:stdlib", "prompt_column": "town"}},
        ("data.prompt_column = 'town': ", "leave it out"),
    ),
    "prompt column missing in the file": (
        {"data.source": "rows.csv", "data.prompt_column": "question"},
        ("rows.csv", "no 'question'", "its columns: text, label, place"),
    ),
    "prompts that leave no room": (
        {"data.source": "rows.csv", "data.prompt_column": "text", "data.text_column": "place"},
        ("data.length = 32: ", "the answer of no training example fits", "choose more"),
    ),
    "more devices than examples": (
        {"fleet.devices": 5000},
        ("fleet.devices = 5000: ", "take fewer devices or more data"),
    ),
    "no such layer": (
        {"lora.targets": ["q_prj"]},
        ("lora.targets = ['q_prj']: ", "this model has", "q_proj"),
    ),
    "targets that are no regular expression": (
        {"lora.targets": "(q_proj"},
        ("lora.targets = (q_proj: ", "not a regular expression", "all-linear"),
    ),
    "start without an adapter": (
        {"lora.start": "nowhere"},
        ("lora.start = 'nowhere': ", "adapter_config.json is missing", "save_pretrained"),
    ),
    "four bits for the model inside": (
        {"model.dtype": "nf4"},
        ("model.dtype = 'nf4': ", "too small to gain", "take float32"),
    ),
    "examples longer than the model takes": (
        {"data.length": 513},
        ("data.length = 513: ", "at most 512 tokens"),
    ),
    "examples longer than memory": (
        {"data.length": 10**15},
        ("data.length = 1000000000000000: ", "at most 512 tokens"),
    ),
    "method that cannot train the planned rank": (
        {"method": "fedit", "policy": {"name": "uniform", "rank": 8, "min_cohort": 1.0}},
        ("method.name = 'fedit': ", "cannot train policy.rank = 8 of 16", "choose method fslora"),
    ),
    "devices too small for the model": (
        {"fleet.memory_sigma": 10.0, "fleet.devices": 60},
        ("fleet.preset = 'phone-snapdragon-778g': ", "cannot hold the model", "larger preset"),
    ),
}


@pytest.mark.parametrize("case", SCENARIOS)
def test_scenario_is_refused(
    case: str,
    scenario_file: Callable[..., Path],
    sentences: Callable[[Path], Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    sentences(tmp_path / "rows.csv")
    changes, parts = SCENARIOS[case]
    message = refused("run", scenario_file(changes), "--out", "out")
    for part in parts:
        assert part in message


#: Files that are no scenario at all.
TEXTS = {
    "nothing": ("", ("expected keys and values", "sim init")),
    "a list": ("- fleet\n- radio\n", ("expected keys and values", "found list", "sim init")),
    "a word": ("fleet\n", ("expected keys and values", "found str", "sim init")),
    "not YAML": ("name: [1\nseed: }\n", ("not YAML", "line 2", "sim init")),
    "a key given twice": ("name: a\nname: b\n", ("line 2: 'name' is given twice", "keep one")),
    "a nested key given twice": (
        "name: a\nfleet:\n  devices: 3\n  devices: 4\n",
        ("line 4: 'devices' is given twice", "keep one"),
    ),
    "a number for a key": ("name: a\n1: 2\n", ("line 2: key 1 is not text", "quote it")),
    "no name": ("seed: 3\n", ("name: missing", "give it a value")),
    "a Python object": ("name: !!python/object/apply:os.getcwd []\n", ("not YAML", "sim init")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_is_refused(
    case: str, scenario_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    text, parts = TEXTS[case]
    message = refused("run", scenario_file(text=text), "--out", "out")
    assert message.startswith("sim: ")
    for part in ("scenario.yaml: ", *parts):
        assert part in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "scenario.yaml").write_bytes(b"name: \xff\xfe\n")
    assert "cannot be read as UTF-8 text" in refused("run", "scenario.yaml")


#: Options of `sim run`, and what the message says.
OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "assignment without a value": (
        ("--set", "radio.bandwidth_hz"),
        ("--set radio.bandwidth_hz: ", "expected KEY=VALUE"),
    ),
    "assignment without a key": (("--set", "=3"), ("--set =3: ", "expected KEY=VALUE")),
    "assignment of broken YAML": (
        ("--set", "fleet.devices=[1"),
        ("--set fleet.devices=[1: ", "not a YAML value"),
    ),
    "assignment of a doubled key": (
        ("--set", "fleet={devices: 3, devices: 4}"),
        ("--set fleet=", "'devices' is given twice"),
    ),
    "assignment to an unknown key": (
        ("--set", "radio.bandwdth_hz=3"),
        ("radio.bandwdth_hz = 3: unknown key", "did you mean 'bandwidth_hz'?"),
    ),
    "assignment into a number": (
        ("--set", "fleet.devices.x=3"),
        ("--set fleet.devices.x=3: ", "'devices' is a value"),
    ),
    "assignment into text": (
        ("--set", "name.x=3"),
        ("--set name.x=3: ", "'name' is a value"),
    ),
    "negative seed": (("--seed", "-1"), ("seed = -1: ", "greater than or equal to 0")),
    "unknown device": (
        ("--device", "tpu"),
        ("training.device = 'tpu': ", "'auto', 'cpu' or 'cuda'"),
    ),
    "occupied folder": (("--out", "taken"), ("--out taken: ", "not an empty folder", "another")),
    "file for a folder": (("--out", "taken/a"), ("--out taken/a: ", "not an empty folder")),
    "folder below a file": (("--out", "taken/a/b"), ("--out taken/a/b: ", "cannot be made")),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_option_is_refused(
    case: str,
    scenario_file: Callable[..., Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a").write_text("here first", encoding="utf-8")
    options, parts = OPTIONS[case]
    message = refused("run", scenario_file(), *options)
    for part in parts:
        assert part in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_gpu_is_refused(
    scenario_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    message = refused("run", scenario_file(), "--device", "cuda")
    assert "training.device = cuda: " in message
    assert "use cpu or auto" in message


#: Other commands; RUN stands for a finished run's folder.
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "run of no file": (("run", "none.yaml"), ("none.yaml: no such file", "sim init")),
    "run of a folder": (("run", "empty"), ("empty: cannot be read",)),
    "validation of no file": (("validate", "none.yaml"), ("none.yaml: no such file", "sim init")),
    "plan of no file": (("optimize", "none.yaml"), ("none.yaml: no such file", "sim init")),
    "comparison of no run": (("compare", "none"), ("none: no such run directory", "sim run")),
    "picture of no run": (("plot", "none"), ("none: no such run directory", "sim run")),
    "check of no run": (("verify", "none"), ("none: no such run directory", "sim run")),
    "check of an empty folder": (
        ("verify", "empty"),
        ("empty: has no scenario.yaml", "not the directory of a finished run"),
    ),
    "target without a value": (
        ("compare", "RUN", "--target", "eval_loss"),
        ("--target eval_loss: ", "expected metric=value"),
    ),
    "target that is not a number": (
        ("compare", "RUN", "--target", "eval_loss=nan"),
        ("--target eval_loss=nan: ", "expected metric=value"),
    ),
    "target that the run does not measure": (
        ("compare", "RUN", "--target", "accuracy=0.5"),
        ("--target accuracy=0.5: ", "measures eval_loss and bits_per_byte"),
    ),
    "run given twice": (("compare", "RUN", "RUN"), ("given twice",)),
    "table in no folder": (
        ("compare", "RUN", "--csv", "none/table.csv"),
        ("--csv none/table.csv: ", "cannot be written"),
    ),
    "unknown kind": (("plot", "RUN", "--kind", "pie"), ("--kind pie: ", "known: convergence")),
    "picture of unknown ending": (
        ("plot", "RUN", "-o", "picture.gif"),
        ("-o picture.gif: ", "ending in .png, .svg, .pdf"),
    ),
    "picture in no folder": (
        ("plot", "RUN", "-o", "none/picture.png"),
        ("-o none/picture.png: ", "cannot be written"),
    ),
    "catalogue of unknown things": (("list", "foods"), ("foods: ", "known: methods, policies")),
    "scenario over a file": (("init", "kept.yaml"), ("kept.yaml: exists already", "another")),
    "scenario in no folder": (
        ("init", "none/new.yaml"),
        ("none/new.yaml: cannot be written",),
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_command_is_refused(
    case: str, finished: Any, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "kept.yaml").write_text("name: kept\n", encoding="utf-8")
    arguments, parts = COMMANDS[case]
    run = str(finished.files.folder)
    message = refused(*(run if each == "RUN" else each for each in arguments))
    for part in parts:
        assert part in message


def test_plan_in_no_folder_is_refused(
    scenario_file: Callable[..., Path], refused: Callable[..., str]
) -> None:
    message = refused("optimize", scenario_file(), "--out", "none/plan.csv")
    assert "--out none/plan.csv: cannot be written" in message


def test_every_problem_is_named_at_once(
    scenario_file: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    """Two mistakes in one scenario: both are told, so that one correction is enough."""
    file = scenario_file({"fleet.devices": 0, "radio.bandwith_hz": 1.0})
    answer = command("run", file, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "fleet.devices = 0" in answer.err
    assert "radio.bandwith_hz = 1.0" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [("run",), ("launch",), ("run", "a.yaml", "--fast"), ("run", "a", "--seed", "x")]
)
def test_usage_errors(arguments: tuple[str, ...], command: Command) -> None:
    answer = command(*arguments)
    assert answer.code == 2
    assert answer.err.startswith("Usage: sim ")
    assert answer.err.count("Error: ") == 1
