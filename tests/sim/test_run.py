"""Whole runs: what they write, repeat, stop at, and leave alone."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file

from fslora.models import load_model
from fslora.stacked import Stack
from sim.errors import RunError
from sim.host import make_learner
from sim.run import run
from sim.scenario import Scenario
from sim.system import build_system
from sim.verify import verify

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

#: Files and columns, as the design fixes them.
COLUMNS = {
    "timeline.csv": "round,device,phase,start_s,end_s,bytes,bandwidth_hz,rate_bps,energy_j,outcome",
    "spectrum.csv": "time_s,bandwidth_in_use_hz,active,cell",
    "rounds.csv": "round,start_s,end_s,duration_s,expected_s,cohort_s,sampled,completed,"
    "bytes_down,bytes_up,energy_j,train_loss,eval_loss,eval_metric,queue_s,progress",
    "devices.csv": "device,weight,compute_flops,distance_m,path_loss_db,snr_db,samples,rank_cap,"
    "rounds_sampled,rounds_completed,bytes_up,bytes_down,busy_s,energy_j,kind,x_m,y_m,cell,los,"
    "downlink_snr_db,step_overhead_s,tx_power_dbm,solo_rate_bps",
    "plan.csv": "round,device,rank,probability,compute_s,upload_bits,expected_bandwidth_hz",
    "updates.csv": "round,device,rank,weight,loss,update_norm,rank_kept",
    "host.csv": "round,part,host_s",
}

#: Who a device is, whatever the policy.
STATIC = ["weight", "compute_flops", "distance_m", "path_loss_db", "snr_db", "samples", "rank_cap"]

#: Nobody is ever drawn: four devices with probability 1e-9 each.
NOBODY = {
    "policy": {"name": "uniform", "probability": 1e-9, "min_probability": 1e-9, "min_cohort": 0.0}
}


def fresh_adapter(scenario: Scenario) -> dict[str, torch.Tensor]:
    """The global state before training, under the names that PEFT gives it."""
    adapter = make_learner(build_system(scenario)).adapter
    tensors = {f"base_model.model.{name}.lora_A.weight": x for name, x in adapter.a.items()}
    return tensors | {f"base_model.model.{name}.lora_B.weight": x for name, x in adapter.b.items()}


def saved_adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_files_and_columns(finished: Any) -> None:
    folder = finished.files.folder
    others = {"scenario.yaml", "summary.json", "run.log", "adapter"}
    assert {path.name for path in folder.iterdir()} == set(COLUMNS) | others
    for name, columns in COLUMNS.items():
        text = (folder / name).read_bytes().decode("utf-8")
        assert text.split("\r\n", 1)[0] == columns
        assert text.count("\n") == text.count("\r\n")  # RFC 4180
        with (folder / name).open(newline="", encoding="utf-8") as stream:
            assert {len(row) for row in csv.reader(stream)} == {columns.count(",") + 1}


def test_equal_runs_write_equal_files(finished: Any, tiny: Tiny, simulate: Simulate) -> None:
    again = simulate(tiny())
    one, other = finished.files.folder, again.files.folder
    for name in (*COLUMNS, "scenario.yaml", "run.log", "adapter/adapter_model.safetensors"):
        if name != "host.csv":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    summaries = [dict(each.summary) for each in (finished, again)]
    for summary in summaries:
        assert summary.pop("host_s").keys() == {
            "build",
            "plan",
            "evaluate",
            "train",
            "simulate",
            "write",
        }
    assert summaries[0] == summaries[1]


def test_resolved_scenario_reloads(finished: Any, tiny: Tiny) -> None:
    text = (finished.files.folder / "scenario.yaml").read_text(encoding="utf-8")
    assert Scenario.model_validate(yaml.safe_load(text)) == tiny()


def test_resolved_scenario_names_the_host_device(tiny: Tiny, simulate: Simulate) -> None:
    changes = {"training.device": "auto", "stop.rounds": 1}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert simulate(tiny(changes)).files.scenario.training.device == device


def test_summary_is_what_was_returned(finished: Any) -> None:
    text = (finished.files.folder / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text) == finished.summary


def test_round_zero_is_the_untrained_state(finished: Any) -> None:
    first = finished.files.table("rounds.csv").iloc[0]
    assert [first[name] for name in ("start_s", "end_s", "duration_s", "energy_j")] == [0.0] * 4
    assert [first[name] for name in ("sampled", "completed", "bytes_down", "bytes_up")] == [0] * 4
    assert first[["expected_s", "cohort_s", "train_loss"]].isna().all()
    assert first[["eval_loss", "eval_metric"]].notna().all()


def test_training_lowers_the_held_out_loss(finished: Any) -> None:
    loss = finished.files.table("rounds.csv")["eval_loss"]
    assert loss.iloc[-1] < loss.iloc[0] - 0.1


def test_broadcast_counts_once_and_reception_in_full(finished: Any) -> None:
    rounds, devices = finished.files.table("rounds.csv"), finished.files.table("devices.csv")
    size = rounds["bytes_down"].iloc[1]
    assert (rounds["bytes_down"].iloc[1:] == size).all()
    assert (devices["bytes_down"] == size * devices["rounds_sampled"]).all()
    assert devices["bytes_up"].sum() == rounds["bytes_up"].sum()
    assert devices["weight"].sum() == pytest.approx(1.0, rel=1e-12)


def test_adapter_opens_with_peft_and_gives_the_learners_logits(finished: Any) -> None:
    learner, scenario = finished.learner, finished.files.scenario
    base = load_model(
        scenario.model.name, "causal-lm", 0, 0, 0, getattr(torch, scenario.model.dtype)
    )
    examples = learner.dataset.held_out
    tokens, length = torch.from_numpy(examples.tokens), torch.from_numpy(examples.length)
    with torch.no_grad():
        untrained = base(input_ids=tokens).logits
        opened = PeftModel.from_pretrained(base, finished.files.folder / "adapter")
        theirs = opened(input_ids=tokens).logits
        with learner.model.using(Stack.whole(learner.adapter, learner.lora.scale)):
            ours = learner.model.logits(tokens, length)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert (ours - untrained).abs().max() > 0.1


def test_empty_cohort_costs_broadcast_and_overhead_and_changes_nothing(
    tiny: Tiny, simulate: Simulate
) -> None:
    scenario = tiny(NOBODY)
    system = build_system(scenario)
    result = simulate(scenario)
    rounds = result.files.table("rounds.csv")
    wanted = system.broadcast_s + scenario.schedule.overhead_s
    assert rounds["duration_s"].iloc[1:].tolist() == pytest.approx([wanted] * 3, rel=1e-12)
    assert rounds["cohort_s"].iloc[1:].tolist() == [wanted] * 3
    assert (rounds[["sampled", "completed", "bytes_up", "energy_j"]] == 0).all(axis=None)
    assert rounds["train_loss"].isna().all()
    assert rounds["eval_loss"].nunique() == 1
    saved = saved_adapter(result.files.folder)
    before = fresh_adapter(scenario)
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], before[name]) for name in saved)
    assert verify(result.files).findings == ()


def test_training_changes_the_adapter(finished: Any) -> None:
    saved = saved_adapter(finished.files.folder)
    before = fresh_adapter(finished.files.scenario)
    assert not any(torch.equal(saved[name], before[name]) for name in saved if "lora_B" in name)


def test_stops_after_the_rounds(tiny: Tiny, simulate: Simulate) -> None:
    result = simulate(tiny({"stop.rounds": 5, "output.evaluate_every": 2}))
    rounds = result.files.table("rounds.csv")
    assert rounds["round"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rounds["eval_loss"].notna().tolist() == [True, False, True, False, True, True]
    assert verify(result.files).findings == ()


def test_stops_at_the_simulated_time(finished: Any, tiny: Tiny, simulate: Simulate) -> None:
    """No round starts after it, and the round under way is finished."""
    ends = finished.files.table("rounds.csv")["end_s"]
    middle = float(ends.iloc[1:3].mean())
    result = simulate(tiny({"stop.simulated_s": middle}))
    assert result.files.table("rounds.csv")["end_s"].tolist() == ends.iloc[:3].tolist()
    assert result.summary["simulated_s"] == ends.iloc[2]
    assert verify(result.files).findings == ()


def test_stops_at_the_target(finished: Any, tiny: Tiny, simulate: Simulate) -> None:
    whole = finished.files.table("rounds.csv")
    value = float(whole["eval_loss"].iloc[1:3].mean())
    aim = {"metric": "eval_loss", "value": value}
    result = simulate(tiny({"stop": {"rounds": 3, "target": aim, "at_target": True}}))
    assert result.files.table("rounds.csv")["round"].tolist() == [0, 1, 2]
    reached = result.summary["reached"]
    assert (reached["round"], reached["time_s"]) == (2, whole["end_s"].iloc[2])
    # Half-way between two values the line is half-way between their times.
    assert reached["interpolated_s"] == pytest.approx(whole["end_s"].iloc[1:3].mean(), rel=1e-12)
    assert verify(result.files).findings == ()


def test_goes_on_past_the_target_unless_told_to_stop(
    finished: Any, tiny: Tiny, simulate: Simulate
) -> None:
    easy = {"metric": "eval_loss", "value": 50.0}
    result = simulate(tiny({"stop": {"rounds": 1, "target": easy}}))
    assert result.summary["rounds"] == 1
    assert result.summary["reached"] == {"round": 0, "time_s": 0.0, "interpolated_s": 0.0}
    assert finished.summary["rounds"] == 3


def test_target_met_before_training_needs_no_round(tiny: Tiny, simulate: Simulate) -> None:
    easy = {"metric": "eval_loss", "value": 50.0}
    result = simulate(tiny({"stop": {"rounds": 3, "target": easy, "at_target": True}}))
    assert (result.summary["rounds"], result.summary["simulated_s"]) == (0, 0.0)
    assert verify(result.files).findings == ()


def test_policies_on_one_seed_face_the_same_fleet(
    finished: Any, tiny: Tiny, simulate: Simulate
) -> None:
    fleet = finished.files.table("devices.csv")[STATIC]
    for policy in ("uniform", "full"):
        other = simulate(tiny({"policy": policy, "stop.rounds": 1})).files
        pd.testing.assert_frame_equal(other.table("devices.csv")[STATIC], fleet, check_exact=True)


def test_full_policy_takes_everybody(tiny: Tiny, simulate: Simulate) -> None:
    result = simulate(tiny({"policy": "full", "stop.rounds": 2}))
    assert result.files.table("rounds.csv")["completed"].tolist() == [0, 4, 4]
    plan = result.files.table("plan.csv")
    assert plan["probability"].tolist() == [1.0] * 4
    assert plan["rank"].tolist() == result.files.table("devices.csv")["rank_cap"].tolist()
    assert verify(result.files).findings == ()


def test_another_seed_gives_other_draws(finished: Any, tiny: Tiny, simulate: Simulate) -> None:
    other = simulate(tiny({"seed": 2, "stop.rounds": 1})).files.table("devices.csv")
    mine = finished.files.table("devices.csv")
    for name in ("compute_flops", "distance_m", "path_loss_db", "snr_db"):
        assert not np.isclose(other[name], mine[name], rtol=1e-6).any()


def test_classification_of_built_in_text(simulate: Simulate) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "classes",
            "data": {
                "task": "classification",
                "partition": "dirichlet",
                "length": 32,
                "held_out_per_group": 2,
            },
            "training": {"steps": 2, "batch": 2, "device": "cpu", "threads": 1},
            "fleet": {"devices": 4},
            "policy": "full",
            "stop": {"rounds": 2, "target": {"metric": "accuracy", "value": 0.99}},
            "output": {"evaluate_every": 1},
        }
    )
    result = simulate(scenario)
    accuracy = result.files.table("rounds.csv")["eval_metric"]
    assert accuracy.between(0.0, 1.0).all()
    # Ten packages with two held-out examples each.
    assert np.allclose(accuracy * 20, (accuracy * 20).round(), rtol=0, atol=1e-9)
    assert result.summary["metric"] == "accuracy"
    samples = result.files.table("devices.csv")["samples"]
    assert samples.max() > 1.2 * samples.min()
    assert "base_model.model.score.weight" in saved_adapter(result.files.folder)
    assert verify(result.files).findings == ()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_ends_the_run_with_one_message(
    scenario_file: Callable[..., Path], command: Callable[..., Any], tmp_path: Path
) -> None:
    file = scenario_file({"training.learning_rate": 1e30, "training.clip_norm": None})
    out = tmp_path / "out"
    answer = command("run", file, "--out", out)
    assert answer.code == 1
    assert answer.err.startswith("sim: ")
    assert answer.err.count("\n") == 1
    assert "not finite" in answer.err
    assert "training.learning_rate" in answer.err
    assert str(out) in answer.err
    for name, columns in COLUMNS.items():
        assert pd.read_csv(out / name).columns.tolist() == columns.split(",")
    assert len(pd.read_csv(out / "rounds.csv")) >= 1
    assert "stopped: " in (out / "run.log").read_text(encoding="utf-8")
    unfinished = command("compare", out)
    assert unfinished.code == 2
    assert "has no summary.json" in unfinished.err


def test_divergence_in_the_library_is_a_run_error(tiny: Tiny, tmp_path: Path) -> None:
    scenario = tiny({"training.learning_rate": 1e30, "training.clip_norm": None})
    with pytest.raises(RunError, match="files so far are in"):
        run(scenario, tmp_path / "out")


def test_lines_of_json_hold_what_a_table_holds(
    finished: Any, tiny: Tiny, tiny_tree: dict[str, Any], simulate: Simulate, tmp_path: Path
) -> None:
    """The same rows as JSONL give the same data and therefore the same run."""
    rows = pd.read_csv(tiny_tree["data"]["source"])
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps(row) + "\n" for row in rows.to_dict("records")), encoding="utf-8"
    )
    result = simulate(tiny({"data.source": str(file)}))
    assert result.summary["data_sha256"] == finished.summary["data_sha256"]
    for name in ("timeline.csv", "rounds.csv", "devices.csv", "plan.csv"):
        ours, theirs = result.files.folder / name, finished.files.folder / name
        assert ours.read_bytes() == theirs.read_bytes()


def test_held_out_file(tiny: Tiny, tiny_tree: dict[str, Any], simulate: Simulate) -> None:
    """With a held-out file every row of the first one is trained on."""
    source = tiny_tree["data"]["source"]
    result = simulate(tiny({"data.held_out": source, "stop.rounds": 1}))
    assert result.files.table("devices.csv")["samples"].sum() == 120


def test_cut_stack_gives_the_same_files(finished: Any, tiny: Tiny, simulate: Simulate) -> None:
    """Training one device at a time changes no simulated quantity, and losses by rounding alone."""
    result = simulate(tiny({"training.memory_gib": 1e-6}))
    assert result.learner.at_once == 1 < finished.learner.at_once
    for name in ("timeline.csv", "spectrum.csv", "devices.csv", "plan.csv"):
        ours, theirs = result.files.folder / name, finished.files.folder / name
        assert ours.read_bytes() == theirs.read_bytes()
    losses = [each.files.table("rounds.csv")["eval_loss"].tolist() for each in (result, finished)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
