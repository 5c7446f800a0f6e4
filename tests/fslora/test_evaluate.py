"""Evaluation counts every token and example once, and metrics are what their definitions say."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fslora.data import Examples
from fslora.evaluate import confusion_matrix, evaluate, macro_f1, matthews
from fslora.stacked import Stack
from fslora.tasks import METRICS
from fslora.trainer import Learner

Make = Callable[..., Learner]


def with_prompts(examples: Examples) -> Examples:
    """The first 1 to length - 1 tokens are given."""
    prompt = np.random.default_rng(8).integers(1, examples.length)
    return dataclasses.replace(examples, prompt=prompt, predicted_bytes=examples.length - prompt)


def one_by_one(learner: Learner, held_out: Examples) -> tuple[float, dict[str, float]]:
    """Loss and metrics by a loop over single, unpadded examples."""
    nats, count, right, pairs = 0.0, 0, 0, []
    with learner.model.using(Stack.whole(learner.adapter, learner.lora.scale)), torch.no_grad():
        for tokens, length, prompt, label in zip(
            held_out.tokens, held_out.length, held_out.prompt, held_out.label, strict=True
        ):
            row = torch.from_numpy(tokens[:length]).unsqueeze(0)
            logits = learner.model.logits(row, torch.tensor([length]))
            if learner.dataset.task == "classification":
                nats += cross_entropy(logits, torch.tensor([label])).item()
                count += 1
                pairs.append((int(label), int(logits.argmax())))
            else:
                answer, predicted = row[0, prompt:], logits[0, prompt - 1 : -1]
                nats += cross_entropy(predicted, answer, reduction="sum").item()
                count += len(answer)
                right += predicted.argmax(-1).tolist() == answer.tolist()
    if learner.dataset.task == "causal-lm":
        bits = nats / math.log(2) / int(held_out.predicted_bytes.sum())
        perplexity = math.exp(nats / count)
        return nats / count, dict(
            bits_per_byte=bits, perplexity=perplexity, exact_match=right / len(held_out)
        )
    return nats / count, {
        "accuracy": sum(t == g for t, g in pairs) / len(pairs),
        "macro_f1": f1_by_precision_and_recall(pairs),
        "matthews": correlation_of_indicators(pairs),
    }


def f1_by_precision_and_recall(pairs: list[tuple[int, int]]) -> float:
    """Mean over classes of the harmonic mean of precision and recall."""
    scores = []
    for name in {name for pair in pairs for name in pair}:
        guessed = [t == name for t, g in pairs if g == name]
        there = [g == name for t, g in pairs if t == name]
        precision, recall = (sum(each) / len(each) if each else 0.0 for each in (guessed, there))
        both = precision + recall
        scores.append(2 * precision * recall / both if both else 0.0)
    return sum(scores) / len(scores)


def correlation_of_indicators(pairs: list[tuple[int, int]]) -> float:
    """Pearson's correlation of the two (examples, classes) indicator matrices, columns centred."""
    classes = np.arange(1 + max(map(max, pairs)))
    truth, guess = (np.array(side)[:, None] == classes for side in zip(*pairs, strict=True))
    x, y = truth - truth.mean(0), guess - guess.mean(0)
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
@pytest.mark.parametrize("batch", [7, 64])
@pytest.mark.parametrize("prompts", [False, True])
def test_batches_do_not_matter(make_learner: Make, kind: str, batch: int, prompts: bool) -> None:
    learner = make_learner(kind, padded=True)
    stack = Stack.whole(learner.adapter, learner.lora.scale)
    held_out, task = learner.dataset.held_out, learner.dataset.task
    if prompts:
        held_out = with_prompts(held_out)
    found = evaluate(learner.model, stack, held_out, task, batch)
    loss, metrics = one_by_one(learner, held_out)
    # Logits are rounded to single precision before the loss.
    assert found.loss == pytest.approx(loss, rel=1e-6)
    assert found.metrics == pytest.approx(metrics, rel=1e-6)
    assert list(found.metrics) == list(METRICS[task])


@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
def test_padding_does_not_matter(make_learner: Make, kind: str) -> None:
    """Neither how much of it there is, nor which tokens it is made of."""
    learner = make_learner(kind, padded=True)
    stack = Stack.whole(learner.adapter, learner.lora.scale)
    held_out, task = with_prompts(learner.dataset.held_out), learner.dataset.task
    n, width = held_out.tokens.shape
    tokens = np.zeros((n, width + 9), dtype=np.int64)
    tokens[:, :width] = held_out.tokens
    if task == "causal-lm":
        padding = np.arange(width + 9) >= held_out.length[:, None]
        tokens[padding] = np.random.default_rng(2).integers(1, 50, padding.sum())
    wider = dataclasses.replace(held_out, tokens=tokens)
    one, other = (evaluate(learner.model, stack, each, task, 64) for each in (held_out, wider))
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
    assert one.metrics == pytest.approx(other.metrics, rel=1e-6)


def test_exact_match_is_what_greedy_decoding_reproduces(make_learner: Make) -> None:
    """Answers that the model itself decodes, every third spoilt in one random token."""
    learner = make_learner("causal-lm", padded=True)
    stack = Stack.whole(learner.adapter, learner.lora.scale)
    held_out = with_prompts(learner.dataset.held_out)
    tokens = held_out.tokens.copy()
    rng = np.random.default_rng(4)
    with learner.model.using(stack), torch.no_grad():
        for n, (row, prompt, length) in enumerate(
            zip(tokens, held_out.prompt, held_out.length, strict=True)
        ):
            for place in range(prompt, length):
                head = torch.from_numpy(row[:place]).unsqueeze(0)
                row[place] = int(learner.model.logits(head, torch.tensor([place]))[0, -1].argmax())
            if n % 3 == 0:
                place = rng.integers(prompt, length)
                row[place] = 1 + (row[place] + 1) % 49
    answered = dataclasses.replace(held_out, tokens=tokens)
    found = evaluate(learner.model, stack, answered, "causal-lm", 7)
    assert found.metrics["exact_match"] == 40 / 60


def test_perplexity_beyond_all_floats_is_the_largest(make_learner: Make) -> None:
    learner = make_learner("causal-lm")
    for factor in learner.adapter.b.values():
        factor.mul_(1e6)
    head = learner.model.model.get_submodule("lm_head")
    head.weight.mul_(1e5)  # type: ignore[operator, union-attr]
    found = learner.evaluate()
    assert 1e3 < found.loss < math.inf
    assert 1e300 < found.metrics["perplexity"] < math.inf


pairs_of_classes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60
)


def table_of(pairs: list[tuple[int, int]], classes: int = 5) -> np.ndarray:
    truth, guess = np.array(pairs).T
    return confusion_matrix(truth, guess, classes)


@settings(max_examples=200)
@given(pairs_of_classes)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs: list[tuple[int, int]]) -> None:
    assert macro_f1(table_of(pairs)) == pytest.approx(f1_by_precision_and_recall(pairs), abs=1e-12)


@settings(max_examples=200)
@given(pairs_of_classes)
def test_matthews_is_the_correlation_of_class_indicators(pairs: list[tuple[int, int]]) -> None:
    truth, guess = zip(*pairs, strict=True)
    found = matthews(table_of(pairs))
    if len(set(truth)) == 1 or len(set(guess)) == 1:
        assert found == 0.0
    else:
        assert found == pytest.approx(correlation_of_indicators(pairs), abs=1e-12)
        # Truth and guess are on an equal footing.
        assert found == matthews(table_of(pairs).T)


@settings(max_examples=200)
@given(*[st.integers(0, 1000)] * 4)
def test_matthews_of_two_classes(tp: int, tn: int, fp: int, fn: int) -> None:
    """Matthews 1975: (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))."""
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    assume(spread > 0)
    found = matthews(np.array([[tn, fp], [fn, tp]]))
    assert found == pytest.approx((tp * tn - fp * fn) / math.sqrt(spread), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_perfect_and_constant_predictions(classes: int) -> None:
    truth = np.arange(classes).repeat(np.arange(1, classes + 1) * 1_000_003)
    perfect = confusion_matrix(truth, truth, classes)
    assert (macro_f1(perfect), matthews(perfect)) == (1.0, 1.0)
    for guess in range(classes):
        constant = confusion_matrix(truth, np.full_like(truth, guess), classes)
        assert matthews(constant) == 0.0
        # Recall is 1 and precision the share of the one class; the other classes' F1 is 0.
        share = (guess + 1) / (classes * (classes + 1) / 2)
        assert macro_f1(constant) == pytest.approx(2 * share / (1 + share) / classes, rel=1e-12)


def test_two_classes_all_wrong_are_perfectly_anticorrelated() -> None:
    table = np.array([[0, 5], [9, 0]])
    assert (macro_f1(table), matthews(table)) == (0.0, -1.0)


def test_class_that_never_comes_up_does_not_count() -> None:
    table = np.array([[4, 1, 0], [2, 3, 0], [0, 0, 0]])
    assert macro_f1(table) == macro_f1(table[:2, :2]) == pytest.approx((8 / 11 + 6 / 9) / 2)
    assert matthews(table) == matthews(table[:2, :2])
