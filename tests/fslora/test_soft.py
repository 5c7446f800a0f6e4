"""SOFT: near-orthogonal factors, of which the best ranks are sent."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from fslora.local import LocalTraining
from fslora.lora import Adapter
from fslora.methods import Job, Update
from fslora.methods.base import first_ranks
from fslora.methods.soft import SOFT
from fslora.stacked import Stack
from fslora.trainer import Learner

Make = Callable[..., Learner]
RANK = 6
JOBS = [Job(0, 6, 7), Job(1, 2, 8), Job(2, 4, 9)]
WEIGHT = [0.5, 0.3, 0.4]


def normal(*shape: int, seed: int = 1) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


def orthogonal_rows(rank: int, d: int, seed: int = 1) -> Tensor:
    """Rows of unlike lengths that are orthogonal."""
    length = torch.linspace(0.5, 2.0, rank, dtype=torch.float64)[torch.arange(rank) * 5 % rank]
    return length.unsqueeze(1) * torch.linalg.qr(normal(d, rank, seed=seed)).Q.T


def stack(a: Tensor, b: Tensor) -> Stack:
    """A stack of one layer, (M, r, d_in) and (M, d_out, r)."""
    return Stack({"x": a}, {"x": b}, {}, torch.ones(len(a), 1, a.shape[1]))


def unmoved(a: Tensor, b: Tensor) -> tuple[Update, Adapter]:
    """A device of one layer that has ended where it began, at rank r."""
    zeros = ({"x": torch.zeros_like(a)}, {"x": torch.zeros_like(b)})
    return Update(0, first_ranks(1, len(a)), *zeros, {}, 1.0), Adapter({"x": a}, {"x": b}, {})


@pytest.mark.parametrize("part", ["a", "b"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_no_other_ranks_lie_nearer_if_one_factor_is_orthogonal(part: str, k: int) -> None:
    """|B A - B_I A_I|^2 is the sum of e_j^2 left out, least for the ranks that are sent."""
    a = orthogonal_rows(RANK, 10) if part == "a" else normal(RANK, 10)
    b = orthogonal_rows(RANK, 8, seed=2).T if part == "b" else normal(8, RANK, seed=2)
    whole, start = unmoved(a, b)
    sent = SOFT().sent(whole, k, start)
    chosen = tuple(sent.slice.indices[0].tolist())
    size = b.norm(dim=0) * a.norm(dim=1)
    error = {}
    for ranks in combinations(range(RANK), k):
        left = [j for j in range(RANK) if j not in ranks]
        error[ranks] = torch.linalg.norm(b @ a - b[:, ranks] @ a[list(ranks)])
        torch.testing.assert_close(error[ranks], size[left].norm(), rtol=1e-12, atol=1e-12)
    assert min(error, key=error.__getitem__) == chosen


def test_sent_ranks_are_those_of_the_largest_norms_after_training(make_learner: Make) -> None:
    """Not of those before, and the same for both factors, layer by layer."""
    learner = make_learner(method="soft")
    for job, update in zip(JOBS, learner.train(JOBS), strict=True):
        (whole,) = learner.train([Job(job.device, RANK, job.key)])
        for layer, name in enumerate(learner.adapter.a):
            a = learner.adapter.a[name] + whole.delta_a[name]
            b = learner.adapter.b[name] + whole.delta_b[name]
            best = (b.norm(dim=0) * a.norm(dim=1)).topk(job.rank).indices.sort().values
            assert update.slice.indices[layer].tolist() == best.tolist()
            # What is sent does not bear on what is trained.
            for one, other in (
                (update.delta_a[name], whole.delta_a[name][best]),
                (update.delta_b[name], whole.delta_b[name][:, best]),
            ):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_choices_follow_training_and_not_the_start(make_learner: Make) -> None:
    """From B = 0, where all norms are nil, devices with unlike data choose unlike ranks."""
    learner = make_learner(method="soft")
    for value in learner.adapter.b.values():
        value.zero_()
    chosen = [u.slice.indices for u in learner.train([Job(n, 2, 7 + n) for n in range(3)])]
    assert not np.array_equal(chosen[0], np.tile([0, 1], (len(chosen[0]), 1)))
    assert not np.array_equal(chosen[0], chosen[1])


def test_each_rank_goes_into_its_own_place(make_learner: Make) -> None:
    """Ranks that nobody sent keep their bits, even though they were trained."""
    learner = make_learner(method="soft")
    jobs, weight = [Job(n, 2, 7 + n) for n in range(2)], [0.7, 0.6]
    updates, before = learner.train(jobs), learner.state()
    learner.aggregate(updates, weight)
    unsent = 0
    for layer, name in enumerate(learner.adapter.a):
        for j in range(RANK):
            wanted_a = before[f"adapter.a.{name}"][j].clone()
            wanted_b = before[f"adapter.b.{name}"][:, j].clone()
            senders = 0
            for update, v in zip(updates, weight, strict=True):
                places = update.slice.indices[layer].tolist()
                if j in places:
                    senders += 1
                    wanted_a += v * update.delta_a[name][places.index(j)]
                    wanted_b += v * update.delta_b[name][:, places.index(j)]
            a, b = learner.adapter.a[name][j], learner.adapter.b[name][:, j]
            if senders == 0:
                unsent += 1
                assert torch.equal(a, wanted_a)
                assert torch.equal(b, wanted_b)
            torch.testing.assert_close(a, wanted_a, rtol=0, atol=1e-12)
            torch.testing.assert_close(b, wanted_b, rtol=0, atol=1e-12)
    assert unsent > 0


def test_all_ranks_without_penalty_is_fedit(make_learner: Make) -> None:
    learner, plain = make_learner(method=SOFT(0.0)), make_learner(method="fedit")
    jobs = [Job(n, RANK, 7 + n) for n in range(3)]
    for each in (learner, plain):
        each.aggregate(each.train(jobs), WEIGHT)
    assert all(torch.equal(v, plain.state()[n]) for n, v in learner.state().items())


def test_penalty_is_that_of_its_definition() -> None:
    a, b = normal(2, 4, 7), normal(2, 5, 4, seed=2)
    wanted = sum(
        float(a[n, i] @ a[n, j]) ** 2 + float(b[n, :, i] @ b[n, :, j]) ** 2
        for n in range(2)
        for i in range(4)
        for j in range(4)
        if i != j
    )
    found = SOFT(0.3).penalty(stack(a, b))
    assert found is not None
    assert float(found) == pytest.approx(0.3 * wanted, rel=1e-12)


def test_orthogonal_factors_of_any_lengths_cost_nothing() -> None:
    a, b = orthogonal_rows(4, 9), orthogonal_rows(4, 7, seed=2).T
    a, b = a.requires_grad_(), b.detach().requires_grad_()
    found = SOFT(1.0).penalty(stack(a.unsqueeze(0), b.unsqueeze(0)))
    assert found is not None
    assert float(found.detach()) == pytest.approx(0.0, abs=1e-28)
    for gradient in torch.autograd.grad(found, [a, b]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-13)


def test_gradient_of_the_penalty_against_differences() -> None:
    def penalty(a: Tensor, b: Tensor) -> Tensor:
        found = SOFT(0.5).penalty(stack(a, b))
        assert found is not None
        return found

    factors = (normal(2, 3, 5).requires_grad_(), normal(2, 4, 3, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(penalty, factors)


def test_padding_and_company_change_neither_penalty_nor_gradient() -> None:
    """Devices of ranks 2 and 4 in one stack get what each gets alone; padding gets nothing."""
    wide = (normal(1, 4, 7), normal(1, 5, 4, seed=2))
    narrow = (normal(1, 2, 7, seed=3), normal(1, 5, 2, seed=4))
    padded = (
        torch.cat([narrow[0], torch.zeros(1, 2, 7, dtype=torch.float64)], 1),
        torch.cat([narrow[1], torch.zeros(1, 5, 2, dtype=torch.float64)], 2),
    )
    together = tuple(torch.cat(pair) for pair in zip(wide, padded, strict=True))

    def value_and_gradients(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        value = SOFT(0.5).penalty(stack(a, b))
        assert value is not None
        return (value.detach(), *torch.autograd.grad(value, [a, b]))

    value, on_a, on_b = value_and_gradients(*together)
    one, one_a, one_b = value_and_gradients(*wide)
    two, two_a, two_b = value_and_gradients(*narrow)
    torch.testing.assert_close(value, one + two, rtol=1e-12, atol=0)
    torch.testing.assert_close(on_a[:1], one_a, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(on_b[:1], one_b, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(on_a[1:, :2], two_a, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(on_b[1:, :, :2], two_b, rtol=1e-12, atol=1e-13)
    assert not on_a[1, 2:].any()
    assert not on_b[1, :, 2:].any()


def test_training_under_the_penalty_ends_nearer_to_orthogonality(make_learner: Make) -> None:
    """And the loss that is reported is that of the data alone: of the first step the same."""
    local = LocalTraining(steps=20, batch=2, learning_rate=0.05)
    off = {}
    for weight in (0.0, 0.1):
        learner = make_learner(method=SOFT(weight), local=local)
        (update,) = learner.train([Job(0, RANK, 7)])
        ended = Stack(
            {n: (v + update.delta_a[n]).unsqueeze(0) for n, v in learner.adapter.a.items()},
            {n: (v + update.delta_b[n]).unsqueeze(0) for n, v in learner.adapter.b.items()},
            {},
            torch.empty(0),
        )
        value = SOFT(1.0).penalty(ended)
        assert value is not None
        off[weight] = float(value)
    assert off[0.1] < 0.5 * off[0.0]
    one_step = LocalTraining(steps=1, batch=2, learning_rate=0.05)
    losses = [
        make_learner(method=SOFT(w), local=one_step).train([Job(0, RANK, 7)])[0].loss
        for w in (0.0, 0.1)
    ]
    assert losses[0] == losses[1]


def test_a_device_scores_what_came_over_the_air(make_learner: Make) -> None:
    """With numbers of half size the choice is by the rounded start and the rounded change."""
    learner = make_learner(method="soft", wire=torch.bfloat16)
    (update,) = learner.train([Job(0, 2, 7)])
    (whole,) = learner.train([Job(0, RANK, 7)])
    for layer, name in enumerate(learner.adapter.a):
        a = learner.adapter.a[name].bfloat16().double() + whole.delta_a[name]
        b = learner.adapter.b[name].bfloat16().double() + whole.delta_b[name]
        best = (b.norm(dim=0) * a.norm(dim=1)).topk(2).indices.sort().values
        assert update.slice.indices[layer].tolist() == best.tolist()
