"""Loss and metrics on the held-out examples, by exact counts over the whole set."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from fslora.data.dataset import Examples
from fslora.losses import next_tokens, token_losses
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Evaluation, Task

#: Beyond this exponent no finite float is left.
_LARGEST_EXPONENT = math.log(sys.float_info.max)


@torch.no_grad()
def evaluate(
    model: StackedModel, stack: Stack, examples: Examples, task: Task, batch: int
) -> Evaluation:
    """Evaluate one global state on every example, `batch` at a time, longest first.

    Causal language models: `bits_per_byte` of the predicted text, `perplexity`, the exponential of
    the nats per predicted token, and `exact_match`, the share of examples of which every predicted
    token is the likeliest one given those before it. That is the share that greedy decoding of the
    answer, end token included, reproduces: as long as it has erred nowhere, it stands behind the
    same tokens. For multiple choice the letter or word of the choice is the answer.

    Classification: `accuracy`, `macro_f1` and `matthews`, all from one confusion matrix.
    """
    measure = _classification if task == "classification" else _causal
    with model.using(stack):
        return measure(model, examples, batch)


def mean_evaluation(each: Sequence[Evaluation], weight: Sequence[float]) -> Evaluation:
    """Weighted mean of evaluations of several models; perplexity is that of the mean loss."""
    share = np.asarray(weight, dtype=np.float64) / sum(weight)
    loss = float(share @ np.array([one.loss for one in each]))
    metrics = {
        name: float(share @ np.array([one.metrics[name] for one in each]))
        for name in each[0].metrics
    }
    if "perplexity" in metrics:
        metrics["perplexity"] = _perplexity(loss)
    return Evaluation(loss, metrics)


def _causal(model: StackedModel, examples: Examples, batch: int) -> Evaluation:
    nats, count, exact = 0.0, 0, 0
    for rows, tokens, logits in _forward(model, examples, batch):
        length = torch.from_numpy(examples.length[rows])
        prompt = torch.from_numpy(examples.prompt[rows])
        loss, predicted = token_losses(logits, tokens, length, prompt)
        target, _ = next_tokens(tokens, length, prompt)
        nats += loss.double().sum().item()
        count += int(predicted.sum())
        exact += int(((logits.argmax(-1) == target) | ~predicted).all(1).sum())
    mean = nats / count
    return Evaluation(
        mean,
        {
            "bits_per_byte": nats / math.log(2) / int(examples.predicted_bytes.sum()),
            "perplexity": _perplexity(mean),
            "exact_match": exact / len(examples),
        },
    )


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, _LARGEST_EXPONENT))


def _classification(model: StackedModel, examples: Examples, batch: int) -> Evaluation:
    nats = 0.0
    truth, guess = np.zeros((2, len(examples)), dtype=np.int64)
    classes = 0
    for rows, _, logits in _forward(model, examples, batch):
        label = torch.from_numpy(examples.label[rows]).to(logits.device)
        nats += cross_entropy(logits, label, reduction="sum").double().item()
        truth[rows], guess[rows] = examples.label[rows], logits.argmax(-1).cpu().numpy()
        classes = logits.shape[-1]
    table = confusion_matrix(truth, guess, classes)
    return Evaluation(
        nats / len(examples),
        {
            "accuracy": int(np.trace(table)) / len(examples),
            "macro_f1": macro_f1(table),
            "matthews": matthews(table),
        },
    )


def _forward(
    model: StackedModel, examples: Examples, batch: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
    """Example numbers, tokens and logits in single precision, batch by batch."""
    by_length = np.argsort(-examples.length, kind="stable")
    for start in range(0, len(examples), batch):
        rows = by_length[start : start + batch]
        length = torch.from_numpy(examples.length[rows])
        width = int(length.max())
        tokens = torch.from_numpy(examples.tokens[rows, :width]).to(model.model.device)
        yield rows, tokens, model.logits(tokens, length).float()


def confusion_matrix(
    truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Confusion matrix (C, C): how many examples of class i, by row, are taken for class j."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (truth, guess), 1)
    return table


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    confusion
        (C, C), true classes by row. A class that neither occurs nor is predicted has no F1 and
        does not count.
    """
    either = confusion.sum(0) + confusion.sum(1)
    there = either > 0
    return float((2 * np.diagonal(confusion)[there] / either[there]).mean())


def matthews(confusion: NDArray[np.int64]) -> float:
    """Matthews correlation of any number of classes, Gorodkin's R_K.

    Parameters
    ----------
    confusion
        (C, C), true classes by row.

    Returns
    -------
    float
        1 if all is right, 0 on average for guesses independent of the truth, and 0 by convention
        where all examples are, or are taken to be, of one class. Source: Gorodkin, Comparing two
        K-category assignments by a K-category correlation coefficient, 2004.
    """
    # Python's integers do not overflow.
    truth, guess = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    total, right = sum(truth), int(np.trace(confusion))
    covariance = right * total - sum(t * g for t, g in zip(truth, guess, strict=True))
    spread = math.prod(total**2 - sum(n**2 for n in counts) for counts in (truth, guess))
    return covariance / math.sqrt(spread) if spread else 0.0
