"""Facts that every method has to keep, and what sets each apart."""

import math
from collections.abc import Callable
from itertools import product as subsets
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fslora.compression import Compression
from fslora.local import LocalTraining
from fslora.lora import Adapter
from fslora.methods import METHODS, Job, Update
from fslora.reference import train_alone
from fslora.trainer import Learner

Make = Callable[..., Learner]

RANK = 6
every_method = pytest.mark.parametrize("name", METHODS)


def jobs_of(name: str, ranks: tuple[int, ...], round_index: int = 1) -> list[Job]:
    """A job per device, at the ranks that the method takes."""
    method = METHODS[name]
    accepted = [k if method.accepts(RANK, k) else RANK for k in ranks]
    return [Job(n, k, 31 + n, round_index) for n, k in enumerate(accepted)]


def effective(learner: Learner, device: int | None = None) -> dict[str, Tensor]:
    """What each layer computes with, W + s B C A: of the global state, or of a device."""
    adapter = learner.adapter if device is None else learner.own_adapter(device)
    adapter = adapter.folded()
    found = {}
    for name, a in adapter.a.items():
        weight = learner.model.layer(name).base.weight
        assert isinstance(weight, Tensor)
        found[name] = weight + learner.lora.scale * adapter.b[name] @ a
    return found


def ended(learner: Learner, update: Update) -> dict[str, Tensor]:
    """What each layer of a device computed with when it had trained, but for what it does not hold.

    For devices that hold all ranks.
    """
    start = learner.own_adapter(update.device)
    parts = ((start.a, update.delta_a), (start.b, update.delta_b), (start.head, update.delta_head))
    end = Adapter(*({n: value + delta[n] for n, value in part.items()} for part, delta in parts))
    end = end.folded()
    found = {}
    for name in end.a:
        weight = learner.model.layer(name).base.weight
        assert isinstance(weight, Tensor)
        found[name] = weight + learner.lora.scale * end.b[name] @ end.a[name]
    return found


@every_method
@pytest.mark.parametrize("round_index", [1, 2])
def test_numbers_are_those_of_the_table(make_learner: Make, name: str, round_index: int) -> None:
    method, layout = METHODS[name], make_learner(method=name, rank=RANK).model.layout
    for k in (k for k in range(1, RANK + 1) if method.accepts(RANK, k)):
        known = {"k": k, "r": RANK, "round": round_index}
        phase = (round_index - 1) % method.phases
        for told, found in (
            (method.up, method.numbers_up(layout, k, phase)),
            (method.down, method.numbers_down(layout, RANK, phase)),
        ):
            wanted = sum(
                eval(told, {}, {**known, "d_in": d_in, "d_out": d_out})
                for d_in, d_out in layout.layers.values()
            )
            assert found == wanted + layout.head_numbers
        bits = eval(method.up_bits, {"ceil": math.ceil, "log2": math.log2}, known)
        assert k * method.index_bits(RANK) == bits


@every_method
@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
def test_one_device_at_full_rank_is_centralised_training(
    make_learner: Make, name: str, kind: str
) -> None:
    """Round after round: what the server has is what the device had."""
    learner = make_learner(kind, name, RANK, sizes=(12,))
    for round_index in (1, 2, 3):
        job = Job(0, RANK, 100 + round_index, round_index)
        alone = ended(learner, train_alone(learner, job))
        (update,) = learner.train([job])
        stacked = ended(learner, update)
        head = {n: v + update.delta_head[n] for n, v in learner.own_adapter(0).head.items()}
        learner.aggregate([update], [1.0], round_index)
        after = effective(learner, 0)
        for layer, value in alone.items():
            torch.testing.assert_close(stacked[layer], value, rtol=0, atol=1e-12)
            torch.testing.assert_close(after[layer], value, rtol=0, atol=1e-12)
        for part, value in head.items():
            torch.testing.assert_close(learner.own_adapter(0).head[part], value, rtol=0, atol=1e-12)


@every_method
def test_devices_do_not_know_of_each_other(make_learner: Make, name: str) -> None:
    """In whatever order and company devices train, each sends the same."""
    learner = make_learner(method=name, rank=RANK)
    jobs = jobs_of(name, (6, 2, 4))
    learner.aggregate(learner.train(jobs_of(name, (3, 6, 1))), [0.3, 0.3, 0.4])
    together, apart = learner.train(jobs), [learner.train([job])[0] for job in reversed(jobs)]
    for one, other in zip(together, reversed(apart), strict=True):
        for part in ("delta_a", "delta_b", "delta_head"):
            for layer, value in getattr(one, part).items():
                torch.testing.assert_close(value, getattr(other, part)[layer], rtol=0, atol=1e-12)


@every_method
def test_devices_train_as_many_ranks_as_they_are_given(make_learner: Make, name: str) -> None:
    learner = make_learner(method=name, rank=RANK)
    jobs = jobs_of(name, (6, 2, 4))
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        assert update.slice.indices.shape == (len(learner.adapter.a), job.rank)
        assert all(len(set(ranks)) == job.rank for ranks in update.slice.indices.tolist())
        for layer, a in update.delta_a.items():
            assert len(a) == update.delta_b[layer].shape[1] == job.rank
            assert (a.any(1) | update.delta_b[layer].any(0)).all()


@every_method
def test_training_leaves_the_global_state_alone(make_learner: Make, name: str) -> None:
    learner = make_learner(method=name, rank=RANK)
    before = learner.state()
    learner.train(jobs_of(name, (6, 2, 4)))
    for tensor, value in learner.state().items():
        assert torch.equal(value, before[tensor])


@every_method
def test_nothing_merged_changes_nothing(make_learner: Make, name: str) -> None:
    learner = make_learner(method=name, rank=RANK)
    before = effective(learner)
    learner.aggregate([], [])
    for layer, value in effective(learner).items():
        torch.testing.assert_close(value, before[layer], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].additive])
def test_independent_sampling_is_unbiased(make_learner: Make, name: str) -> None:
    """The mean over all cohorts, v_n = a_n / q_n for those drawn, is the merge of everybody."""
    share, q = np.array([0.5, 0.2, 0.3]), np.array([0.4, 0.9, 0.5])
    learner = make_learner(method=name, rank=RANK)
    updates = learner.train(jobs_of(name, (6, 2, 4)))
    start = learner.state()

    def merged(weight: dict[int, float]) -> Adapter:
        learner.restore(start)
        learner.aggregate([updates[n] for n in weight], list(weight.values()))
        return learner.adapter

    mean: dict[str, Tensor] = {}
    for drawn in subsets([False, True], repeat=3):
        chance = float(np.prod(np.where(drawn, q, 1 - q)))
        state = merged({n: share[n] / q[n] for n in range(3) if drawn[n]})
        for layer in state.a:
            for part, value in (("a", state.a[layer]), ("b", state.b[layer])):
                key = f"{part}.{layer}"
                mean[key] = mean.get(key, 0) + chance * value
    everybody = merged(dict(enumerate(share.tolist())))
    for layer in everybody.a:
        torch.testing.assert_close(mean[f"a.{layer}"], everybody.a[layer], rtol=0, atol=1e-12)
        torch.testing.assert_close(mean[f"b.{layer}"], everybody.b[layer], rtol=0, atol=1e-12)


@every_method
def test_state_goes_from_one_learner_to_another(make_learner: Make, name: str) -> None:
    """A learner that is given the state goes on like the one it was taken from, to the bit."""
    one, other = (make_learner(method=name, rank=RANK) for _ in range(2))
    for round_index in (1, 2):
        jobs = jobs_of(name, (6, 2, 4), round_index)
        one.aggregate(one.train(jobs), [0.5, 0.2, 0.3], round_index)
    other.restore(one.state())
    updates = [learner.train(jobs_of(name, (1, 6, 3), 3)) for learner in (one, other)]
    for learner, update in zip((one, other), updates, strict=True):
        learner.aggregate(update, [0.1, 0.6, 0.3], 3)
    found = other.state()
    assert found.keys() == one.state().keys()
    for tensor, value in one.state().items():
        assert torch.equal(value, found[tensor])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("name", "round_index", "part"),
    [("ffa-lora", 1, "a"), ("ffa-lora", 2, "a"), ("rolora", 1, "a"), ("rolora", 2, "b")],
)
def test_frozen_factors_keep_their_bits(
    make_learner: Make, name: str, round_index: int, part: str, optimizer: str
) -> None:
    local = LocalTraining(3, 2, 0.1, 0.0, optimizer=optimizer, weight_decay=0.1)  # type: ignore[arg-type]
    if optimizer == "sgd":
        local = LocalTraining(3, 2, 0.1, 0.9, proximal=0.2, clip_norm=0.5)
    learner = make_learner(method=name, rank=RANK, local=local)
    updates = learner.train(jobs_of(name, (6, 2, 4), round_index))
    for update in updates:
        still, moved = update.delta_a, update.delta_b
        if part == "b":
            still, moved = moved, still
        assert all(not value.any() for value in still.values())
        assert all(value.any() for value in moved.values())


def test_first_round_of_rolora_trains_b(make_learner: Make) -> None:
    """At B = 0 a round that trained A would move nothing."""
    learner = make_learner(method="rolora", rank=RANK)
    for value in learner.adapter.b.values():
        value.zero_()
    (update,) = learner.train([Job(0, RANK, 5, 1)])
    assert all(value.any() for value in update.delta_b.values())


def moved_by_products(
    learner: Learner, updates: list[Update], weight: list[float]
) -> dict[str, Tensor]:
    """W + s B A plus the weighted sum of what each device's own product moved by."""
    before = effective(learner)
    ends = [ended(learner, update) for update in updates]
    return {
        layer: value + sum(v * (end[layer] - value) for v, end in zip(weight, ends, strict=True))
        for layer, value in before.items()
    }


@pytest.mark.parametrize("name", ["ffa-lora", "rolora", "flora", "fedex-lora"])
def test_products_add_up_exactly(make_learner: Make, name: str) -> None:
    """The merge is the weighted sum of the products, whatever the weights add up to."""
    learner = make_learner(method=name, rank=RANK)
    for round_index in (1, 2, 3):
        updates = learner.train([Job(n, RANK, 7 + n, round_index) for n in range(3)])
        weight = [0.7, 1.4, 0.2]
        wanted = moved_by_products(learner, updates, weight)
        learner.aggregate(updates, weight, round_index)
        for layer, value in effective(learner).items():
            torch.testing.assert_close(value, wanted[layer], rtol=0, atol=1e-12)


def test_factors_averaged_apart_do_not_add_up(make_learner: Make) -> None:
    """What FedEx-LoRA puts right is there to be put right."""
    learner = make_learner(method="fedit", rank=RANK)
    updates = learner.train([Job(n, RANK, 7 + n) for n in range(3)])
    wanted = moved_by_products(learner, updates, [0.5, 0.2, 0.3])
    learner.aggregate(updates, [0.5, 0.2, 0.3])
    found = effective(learner)
    assert any((found[layer] - value).abs().max() > 1e-4 for layer, value in wanted.items())


def test_flexlora_at_full_rank_is_the_mean_of_the_products(make_learner: Make) -> None:
    learner = make_learner(method="flexlora", rank=16)
    updates = learner.train([Job(n, 16, 7 + n) for n in range(3)])
    weight = [0.5, 0.9, 0.3]
    wanted = moved_by_products(learner, updates, weight)
    learner.aggregate(updates, weight)
    for layer, value in effective(learner).items():
        torch.testing.assert_close(value, wanted[layer], rtol=0, atol=1e-11)


def test_flexlora_sends_the_nearest_product_of_every_rank(make_learner: Make) -> None:
    """Eckart and Young: what is left out has the norm of the singular values left out."""
    learner = make_learner(method="flexlora", rank=RANK)
    jobs = [Job(0, 6, 7), Job(1, 2, 8), Job(2, 4, 9)]
    updates, weight = learner.train(jobs), [0.5, 0.2, 0.3]
    wanted = {}
    for layer, name in enumerate(learner.adapter.a):
        a, b = learner.adapter.a[name], learner.adapter.b[name]
        wanted[name] = sum(
            v * (b[:, : job.rank] + update.delta_b[name]) @ (a[: job.rank] + update.delta_a[name])
            for job, update, v in zip(jobs, updates, weight, strict=True)
        )
        assert updates[1].slice.indices[layer].tolist() == [0, 1]
    learner.aggregate(updates, weight)
    for name, matrix in wanted.items():
        spectrum = torch.linalg.svdvals(matrix)
        for k in range(1, RANK + 1):
            sent = learner.adapter.b[name][:, :k] @ learner.adapter.a[name][:k]
            left = torch.linalg.norm(matrix - sent)
            torch.testing.assert_close(left, spectrum[k:].norm(), rtol=1e-9, atol=1e-12)


def test_flora_begins_every_round_afresh(make_learner: Make) -> None:
    learner = make_learner(method="flora", rank=RANK)
    seen = []
    for round_index in (1, 2):
        learner.aggregate(learner.train([Job(0, RANK, 5, round_index)]), [1.0], round_index)
        assert not any(value.any() for value in learner.adapter.b.values())
        seen.append({name: value.clone() for name, value in learner.adapter.a.items()})
    for name, value in seen[0].items():
        assert value.abs().max() <= value.shape[1] ** -0.5
        assert not torch.equal(value, seen[1][name])


def test_fedsa_keeps_each_device_its_own_b(make_learner: Make) -> None:
    learner = make_learner(method="fedsa-lora", rank=RANK)
    updates = learner.train(jobs_of("fedsa-lora", (6, 6)))
    start = {n: value.clone() for n, value in learner.adapter.b.items()}
    learner.aggregate(updates, [0.5, 0.5])
    for update in updates:
        for layer, value in learner.own_adapter(update.device).b.items():
            assert torch.equal(value, start[layer] + update.delta_b[layer])
    # Whoever has not trained has what all began with, and so has the server.
    for layer, value in learner.own_adapter(3).b.items():
        assert torch.equal(value, start[layer])
    kept = {n: v.clone() for n, v in learner.own_adapter(0).b.items()}
    learner.aggregate(learner.train([Job(1, RANK, 9, 2)]), [1.0], 2)
    for layer, value in learner.own_adapter(0).b.items():
        assert torch.equal(value, kept[layer])


@pytest.mark.parametrize(
    "options", [{"wire": torch.bfloat16}, {"compression": Compression(0.3, 4)}], ids=["wire", "few"]
)
def test_what_stays_on_a_device_is_not_rounded(make_learner: Make, options: Any) -> None:
    """Only A goes over the air; B is what the device has trained, to the last bit."""
    learner = make_learner(method="fedsa-lora", rank=RANK, **options)
    (first,) = learner.train([Job(0, RANK, 5)])
    learner.aggregate([first], [1.0])
    kept = learner.own_adapter(0).b
    alone = train_alone(learner, Job(0, RANK, 6, 2))
    (second,) = learner.train([Job(0, RANK, 6, 2)])
    assert any((value != value.bfloat16()).any() for value in kept.values())
    if "compression" in options:
        for layer, value in alone.delta_b.items():
            torch.testing.assert_close(second.delta_b[layer], value, rtol=0, atol=1e-12)
            share = (second.delta_a[layer] != 0).double().mean(1)
            assert (share <= math.ceil(0.3 * value.shape[0]) / value.shape[0] + 0.1).all()
    else:
        for layer, value in second.delta_b.items():
            assert (value != value.bfloat16()).any()
            assert torch.equal(second.delta_a[layer], second.delta_a[layer].bfloat16().double())
