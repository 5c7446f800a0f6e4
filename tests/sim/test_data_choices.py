"""What the data section changes in a run: who holds what, what is predicted, what is measured."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fslora.data.stdlib import PACKAGES
from fslora.tasks import METRICS, Task
from sim.compare import cost_to
from sim.scenario import Scenario
from sim.sections.course import Target
from sim.system import build_system
from sim.verify import verify
from tests.hub import save_model

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

LABELLED = {"data.label_column": "label", "stop": {"rounds": 1}}


def test_labels_say_who_holds_what(tiny: Tiny, simulate: Simulate) -> None:
    """Two classes of 53 and 52 training examples, one class to each of four devices."""
    changes = {"data.partition": "pathological", "data.classes_per_device": 1}
    done = simulate(tiny(LABELLED | changes))
    labels = done.files.table("labels.csv")
    assert labels["device"].tolist() == [0, 1, 2, 3]
    assert sorted(labels["label"]) == ["even", "even", "odd", "odd"]
    devices = done.files.table("devices.csv")
    assert labels["samples"].tolist() == devices["samples"].tolist()
    assert done.files.summary["metric"] == "bits_per_byte"
    assert verify(done.files).findings == ()


@pytest.mark.parametrize("partition", ["natural", "iid", "dirichlet", "quantity", "pathological"])
def test_every_partition_runs_and_its_labels_add_up(
    partition: str, tiny: Tiny, simulate: Simulate
) -> None:
    done = simulate(tiny(LABELLED | {"data.partition": partition}))
    labels, devices = done.files.table("labels.csv"), done.files.table("devices.csv")
    assert labels.groupby("device")["samples"].sum().tolist() == devices["samples"].tolist()
    assert (labels["samples"] > 0).all()
    assert not labels.duplicated(["device", "label"]).any()
    assert verify(done.files).findings == ()


def test_data_without_classes_have_no_table_of_them(finished: Any) -> None:
    assert not (finished.files.folder / "labels.csv").exists()


def test_built_in_packages_are_classes() -> None:
    scenario = Scenario.model_validate(
        {"name": "a", "data": {"partition": "pathological"}, "fleet": {"devices": 20}}
    )
    workload = build_system(scenario).workload
    assert workload.dataset.label_names == PACKAGES
    held = [set(workload.dataset.train.label[shard].tolist()) for shard in workload.shards]
    assert [len(each) for each in held] == [2] * 20
    assert set().union(*held) == set(range(10))


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(samples=frame["samples"] + (frame.index == 1)),
        lambda frame: frame.assign(device=frame["device"].replace(0, 5)),
        lambda frame: frame.assign(label=frame["label"].replace("odd", "strange")),
        lambda frame: frame.iloc[1:],
        lambda frame: pd.concat([frame, frame.iloc[:1]]),
    ],
    ids=["samples", "device", "label", "row missing", "row doubled"],
)
def test_changed_labels_are_found(
    change: Callable[[pd.DataFrame], pd.DataFrame], tiny: Tiny, simulate: Simulate
) -> None:
    files = simulate(tiny(LABELLED)).files
    change(files.table("labels.csv")).to_csv(files.folder / "labels.csv", index=False)
    found = verify(files).findings
    assert {each.file for each in found} == {"labels.csv"}


CHOICES = [(task, metric) for task, metrics in METRICS.items() for metric in metrics]


@pytest.mark.parametrize(("task", "metric"), CHOICES)
def test_chosen_metric_is_followed(task: Task, metric: str, tiny: Tiny, simulate: Simulate) -> None:
    rises = METRICS[task][metric]
    # Whatever the model, one is met before training and the other never.
    easy, impossible = (-1.0, 1.5) if rises else (1e6, -1.0)
    target = {"metric": metric, "value": easy}
    changes = {"data.task": task, "data.metric": metric, "stop": {"rounds": 2, "target": target}}
    # Few sentences, and a step that they can bear.
    done = simulate(tiny(LABELLED | changes | {"training.learning_rate": 0.01}))
    summary = done.summary
    assert summary["metric"] == metric
    assert list(summary["eval_metrics_last"]) == list(METRICS[task])
    last = done.files.table("rounds.csv")["eval_metric"].iloc[-1]
    assert summary["eval_metrics_last"][metric] == summary["eval_metric_last"] == last
    assert summary["reached"]["round"] == 0
    assert cost_to(done.files, Target(metric=metric, value=impossible)) is None
    assert verify(done.files).findings == ()


def test_unchosen_metrics_are_measured_too(finished: Any) -> None:
    """One evaluation, three views: nats per token, per byte of text, and their exponential."""
    summary = finished.summary
    found, loss = summary["eval_metrics_last"], summary["eval_loss_last"]
    # One token per byte and none behind the text.
    assert found["bits_per_byte"] == pytest.approx(loss / math.log(2), rel=1e-12)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-12)
    assert found["exact_match"] == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"exact_match": 0.03},
        {"exact_match": -1.0},
        {"exact_match": None},
        {"exact_match": math.nan},
        {"perplexity": 1.0},
        {"bits_per_byte": "few"},
        {"accuracy": 0.5},
    ],
    ids=str,
)
def test_impossible_metrics_are_found(change: dict[str, Any], finished: Any) -> None:
    """Twelve held-out examples, so that 3 % is no share of them."""
    summary = json.loads(json.dumps(finished.files.summary))
    summary["eval_metrics_last"] |= change
    files = type(finished.files)(finished.files.folder, finished.files.scenario, summary)
    found = verify(files).findings
    assert {each.file for each in found} == {"summary.json"}
    assert all("eval_metrics_last" in each.message for each in found)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Sixty questions with one answer."""
    lines = [f"is {2 * n} even? ,y,{n % 3}" for n in range(60)]
    file = tmp_path / "questions.csv"
    file.write_text("\n".join(["question,text,place", *lines]), encoding="utf-8")
    return file


def test_answers_are_learnt(questions: Path, tiny: Tiny, simulate: Simulate) -> None:
    done = simulate(
        tiny(
            {
                "data.source": str(questions),
                "data.prompt_column": "question",
                "data.metric": "exact_match",
                "training.steps": 5,
                "policy": "full",
                "stop": {"rounds": 3},
            }
        )
    )
    data = done.learner.dataset
    assert (data.train.length - data.train.prompt == 1).all()
    assert data.held_out.predicted_bytes.tolist() == [1] * len(data.held_out)
    assert done.summary["eval_metric_first"] == 0.0
    assert done.summary["eval_metric_last"] == 1.0
    # One byte per answer: what is right for sure costs next to nothing.
    assert done.summary["eval_loss_first"] > 2.0
    assert done.summary["eval_loss_last"] < math.log(2)
    assert done.summary["eval_metrics_last"]["bits_per_byte"] == pytest.approx(
        done.summary["eval_loss_last"] / math.log(2), rel=1e-12
    )
    assert verify(done.files).findings == ()


def test_questions_to_a_model_from_a_folder(
    questions: Path, tmp_path: Path, tiny: Tiny, simulate: Simulate
) -> None:
    save_model("llama", tmp_path / "model")
    done = simulate(
        tiny(
            {
                "model.name": str(tmp_path / "model"),
                "data.source": str(questions),
                "data.prompt_column": "question",
                "stop": {"rounds": 1},
            }
        )
    )
    assert done.summary["eval_loss_last"] != done.summary["eval_loss_first"]
    assert verify(done.files).findings == ()
