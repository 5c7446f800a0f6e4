"""Methods for devices of unlike ranks: zero padding, replication, and corrected factors."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from fslora.methods import GlobalState, Job
from fslora.methods.fair import LoRAFAIR
from fslora.methods.hetlora import HetLoRA
from fslora.trainer import Learner

Make = Callable[..., Learner]
RANK = 6
JOBS = [Job(0, 6, 7), Job(1, 2, 8), Job(2, 4, 9)]
WEIGHT = [0.5, 0.3, 0.4]


def state_of(learner: Learner) -> GlobalState:
    return GlobalState(learner.adapter, learner.base, learner.lora.scale)


@pytest.mark.parametrize("name", ["hetlora", "replication", "fslora"])
def test_full_ranks_give_fedit(make_learner: Make, name: str) -> None:
    """With everybody at full rank nothing is padded, copied or left out."""
    method = HetLoRA("data") if name == "hetlora" else name
    learner, plain = make_learner(method=method), make_learner(method="fedit")
    jobs = [Job(n, RANK, 7 + n) for n in range(3)]
    for each in (learner, plain):
        each.aggregate(each.train(jobs), WEIGHT)
    for layer, value in plain.adapter.a.items():
        torch.testing.assert_close(learner.adapter.a[layer], value, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            learner.adapter.b[layer], plain.adapter.b[layer], rtol=0, atol=1e-12
        )


def test_hetlora_weighs_by_norms_and_keeps_the_sum(make_learner: Make) -> None:
    learner = make_learner(method="hetlora")
    updates = learner.train(JOBS)
    state = state_of(learner)
    share = HetLoRA().shares(state, updates, WEIGHT)
    assert sum(share) == pytest.approx(sum(WEIGHT), rel=1e-12)
    norm = []
    for update in updates:
        square = 0.0
        for layer, name in enumerate(learner.adapter.a):
            ranks = update.slice.indices[layer]
            b = learner.adapter.b[name][:, ranks] + update.delta_b[name]
            a = learner.adapter.a[name][ranks] + update.delta_a[name]
            square += float((b @ a).square().sum())
        norm.append(math.sqrt(square))
    for n in range(3):
        assert share[n] / share[0] == pytest.approx(
            WEIGHT[n] * norm[n] / (WEIGHT[0] * norm[0]), rel=1e-9
        )


def test_hetlora_of_equal_norms_is_fedit(make_learner: Make) -> None:
    """Devices that do the same have the same norm."""
    learner, plain = make_learner(method="hetlora"), make_learner(method="fedit")
    for each in (learner, plain):
        (update,) = each.train([Job(0, RANK, 7)])
        each.aggregate([update, update, update], WEIGHT)
    for layer, value in plain.adapter.a.items():
        torch.testing.assert_close(learner.adapter.a[layer], value, rtol=0, atol=1e-12)
        other = plain.adapter.b[layer]
        torch.testing.assert_close(learner.adapter.b[layer], other, rtol=0, atol=1e-12)


def test_hetlora_pads_with_zeros(make_learner: Make) -> None:
    learner = make_learner(method=HetLoRA("data"))
    updates, before = learner.train(JOBS), learner.state()
    weight = [0.5, 0.2, 0.3]
    learner.aggregate(updates, weight)
    for name, a in learner.adapter.a.items():
        start = before[f"adapter.a.{name}"]
        for j in range(RANK):
            wanted = sum(
                v * (start[j] + update.delta_a[name][j])
                for job, update, v in zip(JOBS, updates, weight, strict=True)
                if j < job.rank
            )
            torch.testing.assert_close(a[j], wanted, rtol=0, atol=1e-12)


def test_replication_counts_only_those_who_hold_a_rank(make_learner: Make) -> None:
    learner = make_learner(method="replication")
    updates, before = learner.train(JOBS), learner.state()
    learner.aggregate(updates, WEIGHT)
    for name, b in learner.adapter.b.items():
        start = before[f"adapter.b.{name}"]
        for j in range(RANK):
            held = [n for n, job in enumerate(JOBS) if j < job.rank]
            mean = sum(WEIGHT[n] * updates[n].delta_b[name][:, j] for n in held)
            mean = mean / sum(WEIGHT[n] for n in held)
            wanted = start[:, j] + sum(WEIGHT) * mean
            torch.testing.assert_close(b[:, j], wanted, rtol=0, atol=1e-12)


def test_replication_leaves_ranks_without_holders(make_learner: Make) -> None:
    learner = make_learner(method="replication")
    before = learner.state()
    learner.aggregate(learner.train(JOBS[1:]), WEIGHT[1:])
    for name, a in learner.adapter.a.items():
        assert torch.equal(a[4:], before[f"adapter.a.{name}"][4:])
        assert not torch.equal(a[:4], before[f"adapter.a.{name}"][:4])


def _distances(make_learner: Make, weight: float) -> tuple[list[float], list[torch.Tensor]]:
    """Distances of the merged products from the mean of the products, and what is left of it."""
    learner = make_learner(method=LoRAFAIR(weight))
    updates = learner.train([Job(n, RANK, 7 + n) for n in range(3)])
    target = {}
    for name, a in learner.adapter.a.items():
        b = learner.adapter.b[name]
        moved = sum(
            v * ((b + u.delta_b[name]) @ (a + u.delta_a[name]) - b @ a)
            for u, v in zip(updates, WEIGHT, strict=True)
        )
        target[name] = b @ a + moved
    learner.aggregate(updates, WEIGHT)
    left = {n: target[n] - learner.adapter.b[n] @ a for n, a in learner.adapter.a.items()}
    across = [left[n] @ a.T for n, a in learner.adapter.a.items()]
    return [float(value.norm()) for value in left.values()], across


def test_fair_without_penalty_is_the_nearest_product_of_its_rows(make_learner: Make) -> None:
    """What is left is orthogonal to the rows of A'."""
    distance, across = _distances(make_learner, 0.0)
    assert all(value.abs().max() < 1e-9 for value in across)
    apart, _ = _distances(make_learner, 1e12)
    assert all(near < far for near, far in zip(distance, apart, strict=True))


def test_fair_moves_less_the_more_it_costs(make_learner: Make) -> None:
    distances = [_distances(make_learner, weight)[0] for weight in (0.0, 0.01, 1.0, 100.0)]
    for near, far in itertools.pairwise(distances):
        assert all(one <= other * (1 + 1e-12) for one, other in zip(near, far, strict=True))
    plain = make_learner(method="fedit")
    costly = make_learner(method=LoRAFAIR(1e15))
    for each in (plain, costly):
        each.aggregate(each.train([Job(n, RANK, 7 + n) for n in range(3)]), WEIGHT)
    for name, value in plain.adapter.b.items():
        torch.testing.assert_close(costly.adapter.b[name], value, rtol=0, atol=1e-9)
