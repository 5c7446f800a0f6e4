"""Loss and metric on the held-out examples, by exact counts over the whole set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fslora.data.dataset import Examples
from fslora.losses import token_losses
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out quality.

    Parameters
    ----------
    loss
        Nats per predicted token or per example.
    metric
        Bits per byte of text (causal language model) or accuracy (classification).
    """

    loss: float
    metric: float


@torch.no_grad()
def evaluate(
    model: StackedModel, stack: Stack, examples: Examples, task: Task, batch: int
) -> Evaluation:
    """Evaluate one global state on every example, `batch` at a time, longest first."""
    nats, count, right = 0.0, 0, 0
    by_length = np.argsort(-examples.length, kind="stable")
    with model.using(stack):
        for start in range(0, len(examples), batch):
            rows = by_length[start : start + batch]
            length = torch.from_numpy(examples.length[rows])
            prompt = torch.from_numpy(examples.prompt[rows])
            width = int(length.max())
            tokens = torch.from_numpy(examples.tokens[rows, :width]).to(model.model.device)
            logits = model.logits(tokens, length).float()
            if task == "classification":
                label = torch.from_numpy(examples.label[rows]).to(logits.device)
                nats += cross_entropy(logits, label, reduction="sum").double().item()
                right += int((logits.argmax(-1) == label).sum())
                count += len(rows)
            else:
                loss, predicted = token_losses(logits, tokens, length, prompt)
                nats += loss.double().sum().item()
                count += int(predicted.sum())
    if task == "classification":
        return Evaluation(nats / count, right / count)
    return Evaluation(nats / count, nats / math.log(2) / int(examples.predicted_bytes.sum()))
