"""The scenarios that come with the project, other models, and fleets at the edge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fslora.trainer import Learner
from sim.errors import Interrupted
from sim.load import load_scenario
from sim.planning import make_plan
from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.system import build_system
from sim.verify import verify
from tests.hub import save_model
from wireless.devices import DevicePreset

CONFIGS = Path(__file__).parents[2] / "configs"

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_that_comes_along_is_accepted(path: Path) -> None:
    assert load_scenario(path).name == path.stem


def test_quickstart_learns(tmp_path: Path) -> None:
    scenario = load_scenario(CONFIGS / "quickstart.yaml", ["training.device=cpu"])
    summary = run(scenario, tmp_path / "out")
    assert summary["eval_loss_first"] <= 1.30
    assert summary["eval_loss_last"] <= 1.22
    assert summary["eval_loss_last"] < summary["eval_loss_first"] - 0.02
    assert verify(open_run(tmp_path / "out")).findings == ()


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
def test_transformers_model_from_a_folder(
    kind: str, number_format: str, tmp_path: Path, tiny: Tiny, simulate: Simulate
) -> None:
    task = save_model(kind, tmp_path / "model")
    scenario = tiny(
        {
            "model": {"name": str(tmp_path / "model"), "dtype": number_format},
            "method.number_format": number_format,
            "data.task": task,
            "data.label_column": "place",
            "stop": {"rounds": 2},
        }
    )
    done = simulate(scenario)
    assert done.summary["eval_loss_last"] != done.summary["eval_loss_first"]
    assert verify(done.files).findings == ()


def test_one_device_alone(tiny: Tiny, simulate: Simulate) -> None:
    done = simulate(tiny({"fleet.devices": 1, "policy": {"name": "full"}, "stop": {"rounds": 2}}))
    uplink = done.files.table("timeline.csv").query("phase == 'uplink'")
    assert uplink["bandwidth_hz"].tolist() == pytest.approx([1e6, 1e6])
    assert verify(done.files).findings == ()


def test_ranks_stay_within_what_memory_holds(
    tiny: Tiny, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = tiny({"fleet.memory_sigma": 0.05, "policy": {"name": "full"}})
    cost = build_system(scenario).workload.cost
    memory = float(cost.frozen_bytes + cost.training_bytes(6))
    small = DevicePreset("small", 3e9, memory, 4.0, 23.0, "made up")
    monkeypatch.setattr("sim.physical.PRESETS", {"phone-snapdragon-778g": small})
    done = simulate(scenario)
    devices, plan = done.files.table("devices.csv"), done.files.table("plan.csv")
    assert plan["rank"].tolist() == devices["rank_cap"].tolist()
    assert len(set(plan["rank"])) > 1
    assert plan["rank"].between(1, 15).all()
    assert verify(done.files).findings == ()


def test_rank_caps_go_round_the_devices(tiny: Tiny, simulate: Simulate) -> None:
    done = simulate(tiny({"fleet.rank_caps": [1, 4, 16], "policy": {"name": "full"}}))
    assert done.files.table("devices.csv")["rank_cap"].tolist() == [1, 4, 16, 1]
    assert done.files.table("plan.csv")["rank"].tolist() == [1, 4, 16, 1]
    assert verify(done.files).findings == ()


@pytest.mark.parametrize("server", ["momentum", "adam"])
def test_every_training_choice_at_once(server: str, tiny: Tiny, simulate: Simulate) -> None:
    choices = {
        "training": {
            "epochs": 1,
            "batch": 7,
            "optimizer": "adamw",
            "learning_rate": 0.002,
            "betas": [0.8, 0.9],
            "weight_decay": 0.01,
            "proximal": 0.1,
            "decay": "linear",
            "warmup_rounds": 1,
            "gradient_checkpointing": True,
            "server": server,
            "device": "cpu",
            "threads": 1,
        },
        "lora.dropout": 0.1,
        "data.partition": "quantity",
        "stop": {"rounds": 3},
    }
    done = simulate(tiny(choices))
    assert done.summary["eval_loss_last"] < done.summary["eval_loss_first"]
    assert len(set(done.files.table("devices.csv")["samples"])) > 1
    assert verify(done.files).findings == ()


def test_fedit_keeps_full_rank_while_joint_chooses_probabilities(tiny: Tiny) -> None:
    plan = make_plan(build_system(tiny({"method": "fedit"})))
    assert (plan.rank == 16).all()
    assert len(np.unique(plan.probability)) > 1


def test_interrupted_run_leaves_its_files(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = Learner.train, []

    def interrupted(self: Learner, jobs: Any, versions: Any = None) -> Any:
        calls.append(jobs)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(self, jobs, versions)

    monkeypatch.setattr(Learner, "train", interrupted)
    scenario = tiny({"policy": {"name": "full"}})
    with pytest.raises(Interrupted, match="interrupted; files so far are in"):
        run(scenario, tmp_path / "out")
    rounds = (tmp_path / "out" / "rounds.csv").read_text(encoding="utf-8").splitlines()
    devices = (tmp_path / "out" / "devices.csv").read_text(encoding="utf-8").splitlines()
    assert (len(rounds), len(devices)) == (3, 5)
    assert (tmp_path / "out" / "run.log").read_text(encoding="utf-8").endswith("interrupted\n")
