"""Evaluation counts every token and example once."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from fslora.evaluate import evaluate
from fslora.stacked import Stack
from fslora.trainer import Learner

Make = Callable[..., Learner]


def one_by_one(learner: Learner) -> tuple[float, float]:
    """Loss and metric by a loop over single, unpadded examples."""
    held_out = learner.dataset.held_out
    nats, count, right = 0.0, 0, 0
    with learner.model.using(Stack.whole(learner.adapter, learner.lora.scale)), torch.no_grad():
        for tokens, length, label in zip(
            held_out.tokens, held_out.length, held_out.label, strict=True
        ):
            row = torch.from_numpy(tokens[:length]).unsqueeze(0)
            logits = learner.model.logits(row, torch.tensor([length]))
            if learner.dataset.task == "classification":
                nats += cross_entropy(logits, torch.tensor([label])).item()
                right += int(logits.argmax() == label)
                count += 1
            else:
                nats += cross_entropy(logits[0, :-1], row[0, 1:], reduction="sum").item()
                count += int(length) - 1
    if learner.dataset.task == "classification":
        return nats / count, right / count
    return nats / count, nats / math.log(2) / int(held_out.predicted_bytes.sum())


@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
@pytest.mark.parametrize("batch", [7, 64])
def test_batches_do_not_matter(make_learner: Make, kind: str, batch: int) -> None:
    learner = make_learner(kind, padded=True)
    stack = Stack.whole(learner.adapter, learner.lora.scale)
    dataset = learner.dataset
    found = evaluate(learner.model, stack, dataset.held_out, dataset.task, batch)
    loss, metric = one_by_one(learner)
    # Logits are rounded to single precision before the loss.
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.metric == pytest.approx(metric, rel=1e-6)
