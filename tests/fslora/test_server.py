"""Server optimizers: their formulas, and what they leave alone."""

from collections.abc import Callable

import pytest
import torch

from fslora.methods import Job
from fslora.server import ServerOptimizer
from fslora.trainer import Learner

Make = Callable[..., Learner]
COHORTS = [[Job(0, 6, 1), Job(1, 3, 2)], [Job(2, 2, 3)], [Job(3, 6, 4)]]
WEIGHTS = [[0.4, 1.5], [2.0], [0.7]]


def state(learner: Learner) -> dict[str, torch.Tensor]:
    parts = (("a", learner.adapter.a), ("b", learner.adapter.b), ("head", learner.adapter.head))
    return {f"{p}.{n}": value.clone() for p, values in parts for n, value in values.items()}


def pseudo_gradients(
    make_learner: Make, learner: Learner, round_index: int
) -> dict[str, torch.Tensor]:
    """The method's plain sum from the learner's present state."""
    plain = make_learner("classification")
    for mine, theirs in (
        (plain.adapter.a, learner.adapter.a),
        (plain.adapter.b, learner.adapter.b),
        (plain.adapter.head, learner.adapter.head),
    ):
        for name, value in theirs.items():
            mine[name].copy_(value)
    before = state(plain)
    plain.aggregate(plain.train(COHORTS[round_index]), WEIGHTS[round_index])
    return {name: value - before[name] for name, value in state(plain).items()}


@pytest.mark.parametrize("rule", ["plain", "momentum", "adam"])
def test_steps_follow_the_formula_on_full_cohorts(make_learner: Make, rule: str) -> None:
    optimizer = ServerOptimizer(rule, 0.5, 0.8, 0.9, 0.01, 0.1)  # type: ignore[arg-type]
    learner = make_learner("classification", server=optimizer)
    first = {name: torch.zeros_like(value) for name, value in state(learner).items()}
    second = {name: torch.zeros_like(value) for name, value in state(learner).items()}
    for round_index in (0, 2):  # both have a device of full rank
        change = pseudo_gradients(make_learner, learner, round_index)
        before = state(learner)
        learner.aggregate(learner.train(COHORTS[round_index]), WEIGHTS[round_index])
        for name, value in state(learner).items():
            step = change[name]
            if rule == "momentum":
                step = first[name] = 0.8 * first[name] + change[name]
            elif rule == "adam":
                first[name] = 0.8 * first[name] + 0.2 * change[name]
                second[name] = 0.9 * second[name] + 0.1 * change[name] ** 2
                step = first[name] / (second[name].sqrt() + 0.01)
            expected = before[name] * (1 - 0.5 * 0.1) + 0.5 * step
            torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("rule", ["plain", "momentum", "adam"])
def test_ranks_nobody_updated_keep_their_bits(make_learner: Make, rule: str) -> None:
    optimizer = ServerOptimizer(rule, 0.5, weight_decay=0.1)  # type: ignore[arg-type]
    learner = make_learner("classification", server=optimizer)
    learner.aggregate(learner.train(COHORTS[0]), WEIGHTS[0])  # fills every momentum
    before = state(learner)
    updates = learner.train(COHORTS[1])
    learner.aggregate(updates, WEIGHTS[1])
    after = state(learner)
    for layer, name in enumerate(learner.adapter.a):
        sent = set(updates[0].slice.indices[layer].tolist())
        for j in range(6):
            same_a = torch.equal(before[f"a.{name}"][j], after[f"a.{name}"][j])
            same_b = torch.equal(before[f"b.{name}"][:, j], after[f"b.{name}"][:, j])
            assert same_a == same_b == (j not in sent)


def test_plain_server_adds_the_sum(make_learner: Make) -> None:
    one, two = make_learner(), make_learner(server=ServerOptimizer("plain", 1.0))
    for learner in (one, two):
        learner.aggregate(learner.train(COHORTS[0]), WEIGHTS[0])
    for name, value in state(one).items():
        assert torch.equal(value, state(two)[name])


def test_empty_cohort_moves_nothing(make_learner: Make) -> None:
    learner = make_learner(server=ServerOptimizer("adam", weight_decay=0.1))
    learner.aggregate(learner.train(COHORTS[0]), WEIGHTS[0])
    before = state(learner)
    learner.aggregate([], [])
    assert all(torch.equal(value, before[name]) for name, value in state(learner).items())
