"""Methods for devices of unlike ranks: zero padding, replication, and corrected factors."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from fslora.methods import GlobalState, Job, Update
from fslora.methods.fair import LoRAFAIR
from fslora.methods.hetlora import HetLoRA
from fslora.reference import train_alone
from fslora.stacked import Stack
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


PRUNING = HetLoRA(pruning_weight=0.3, pruning_factor=0.6)


def tails(learner: Learner, update: Update | None, rank: int) -> float:
    """Norms of all ranks but the first floor(0.6 k), when training began or as an update ends."""
    first, total = max(1, math.floor(0.6 * rank)), 0.0
    for name in learner.adapter.a:
        a, b = learner.adapter.a[name][:rank], learner.adapter.b[name][:, :rank]
        if update is not None:
            a, b = a + update.delta_a[name], b + update.delta_b[name]
        total += math.sqrt(a[first:].square().sum() * b[:, first:].square().sum())
    return total


@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
def test_hetlora_that_prunes_trains_with_its_penalty(make_learner: Make, kind: str) -> None:
    """In company of other ranks as alone, with the penalty written out."""
    learner = make_learner(kind, PRUNING)
    for job, update in zip(JOBS, learner.train(JOBS), strict=True):
        alone = train_alone(learner, job)
        assert update.rank_kept == alone.rank_kept
        for name, value in alone.delta_a.items():
            torch.testing.assert_close(update.delta_a[name], value, rtol=0, atol=1e-12)
            other = alone.delta_b[name]
            torch.testing.assert_close(update.delta_b[name], other, rtol=0, atol=1e-12)


def test_hetlora_penalty_is_that_of_the_tails(make_learner: Make) -> None:
    learner = make_learner(method=PRUNING)
    wanted = sum(0.3 * tails(learner, None, job.rank) for job in JOBS)
    factors = Stack.whole(learner.adapter, 1.0)
    stack = Stack(
        {name: torch.zeros(3, RANK, a.shape[2]).double() for name, a in factors.a.items()},
        {name: torch.zeros(3, b.shape[1], RANK).double() for name, b in factors.b.items()},
        {},
        torch.zeros(3, len(factors.a), RANK),
    )
    stack.fill(learner.adapter, learner.slices(JOBS))
    for row, job in enumerate(JOBS):
        stack.scale[row, :, : job.rank] = 0.5
    found = PRUNING.penalty(stack)
    assert found is not None
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_hetlora_devices_prune_when_their_last_ranks_have_shrunk(make_learner: Make) -> None:
    """A strong penalty shrinks them; without any, data alone let some grow and others not."""
    kept = []
    for weight in (1.0, 1e-9):
        learner = make_learner(method=HetLoRA(pruning_weight=weight, pruning_factor=0.6))
        for job, update in zip(JOBS, learner.train(JOBS), strict=True):
            shrunk = tails(learner, update, job.rank) < tails(learner, None, job.rank)
            assert update.rank_kept == (job.rank * 3 // 5 if shrunk else job.rank)
            kept.append(update.rank_kept)
    assert kept[:3] == [3, 1, 2]
    assert kept[3:] != kept[:3]


def test_hetlora_without_pruning_says_nothing_of_ranks(make_learner: Make) -> None:
    learner = make_learner(method="hetlora")
    assert all(update.rank_kept is None for update in learner.train(JOBS))


def test_first_factors_have_no_gradient_of_a_penalty(make_learner: Make) -> None:
    """At B = 0 the norm has no slope, and what comes out is a number."""
    learner = make_learner(method=PRUNING)
    for value in learner.adapter.b.values():
        value.zero_()
    updates = learner.train(JOBS)
    assert all(math.isfinite(update.loss) for update in updates)
    assert [update.rank_kept for update in updates] == [job.rank for job in JOBS]
