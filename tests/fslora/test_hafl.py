"""HAFL: devices hold all ranks, train the most salient ones, and are averaged over their owners."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fslora.counting import count_costs
from fslora.local import LocalTraining
from fslora.lora import find_layout
from fslora.methods import METHODS, Job, Update
from fslora.models import BUILTIN, shape_of
from fslora.reference import train_alone
from fslora.trainer import Learner

Make = Callable[..., Learner]
RANK = 6


def ranks_of(update: Update) -> NDArray[np.int64]:
    return update.slice.indices


def score(learner: Learner, values: list[float]) -> None:
    """Let all layers have the same scores."""
    kept = learner.adapter.kept["salience"]
    kept.copy_(torch.tensor(values, dtype=kept.dtype).expand_as(kept))


@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(3, 2, 0.1, 0.9, proximal=0.2, clip_norm=0.01),
        LocalTraining(3, 2, 0.1, optimizer="adamw", weight_decay=0.1, clip_norm=0.01),
    ],
    ids=["momentum", "adamw"],
)
@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
def test_ranks_beside_those_trained_are_computed_with_and_stay(
    make_learner: Make, kind: str, local: LocalTraining
) -> None:
    """In company as alone, where frozen ranks are put back after every step of torch's own."""
    learner = make_learner(kind, "hafl", RANK, local=local)
    jobs = [Job(0, 6, 7), Job(1, 2, 8), Job(2, 3, 9)]
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        alone = train_alone(learner, job)
        np.testing.assert_array_equal(ranks_of(update), ranks_of(alone))
        assert update.loss == pytest.approx(alone.loss, rel=1e-12)
        for found, wanted in (
            (update.delta_a, alone.delta_a),
            (update.delta_b, alone.delta_b),
            (update.delta_head, alone.delta_head),
        ):
            for name, value in wanted.items():
                torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


def test_frozen_ranks_keep_their_bits(make_learner: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    local = LocalTraining(3, 2, 0.1, optimizer="adamw", weight_decay=0.1)
    learner = make_learner(method="hafl", rank=RANK, local=local)
    whole: list[Update] = []
    kind = type(learner.method)
    monkeypatch.setattr(kind, "sent", lambda _, update, *__: whole.append(update) or update)
    learner.train([Job(0, 2, 7)])
    ((update,), layers) = whole, len(learner.adapter.a)
    trained = update.slice.trained
    assert trained is not None
    assert trained.sum(1).tolist() == [2] * layers
    for layer, name in enumerate(learner.adapter.a):
        moved_a, moved_b = update.delta_a[name].any(1), update.delta_b[name].any(0)
        assert moved_a.tolist() == moved_b.tolist() == trained[layer].tolist()


def test_the_most_salient_ranks_are_trained(make_learner: Make) -> None:
    learner = make_learner(method="hafl", rank=RANK)
    score(learner, [0.1, 0.5, 0.0, 0.4, 0.2, 0.3])
    (update,) = learner.train([Job(0, 3, 7)])
    assert all(ranks == [1, 3, 5] for ranks in ranks_of(update).tolist())


def test_equal_scores_are_put_in_an_order_of_each_job(make_learner: Make) -> None:
    learner = make_learner(method="hafl", rank=RANK)
    updates = learner.train([Job(n, 2, 7 + n) for n in range(3)])
    chosen = {tuple(ranks) for update in updates for ranks in ranks_of(update).tolist()}
    assert len(chosen) > 5


def test_all_ranks_on_all_devices_is_fedit(make_learner: Make) -> None:
    learner, plain = (make_learner(method=name, rank=RANK) for name in ("hafl", "fedit"))
    for each in (learner, plain):
        updates = each.train([Job(n, RANK, 7 + n) for n in range(3)])
        each.aggregate(updates, [0.5, 0.9, 0.3])
    for name, value in plain.adapter.a.items():
        torch.testing.assert_close(learner.adapter.a[name], value, rtol=0, atol=1e-12)
        other = plain.adapter.b[name]
        torch.testing.assert_close(learner.adapter.b[name], other, rtol=0, atol=1e-12)


def test_each_rank_is_the_mean_of_its_owners(make_learner: Make) -> None:
    """Alone with a rank, an owner has it whole; none, and it keeps its bits and its score."""
    learner = make_learner(method="hafl", rank=RANK)
    score(learner, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    updates, weight = learner.train([Job(0, 4, 7), Job(1, 2, 8)]), [0.25, 0.75]
    before = learner.state()
    learner.aggregate(updates, weight)
    one, other = updates
    for name, a in learner.adapter.a.items():
        start = before[f"adapter.a.{name}"]
        both = 0.25 * one.delta_a[name][:2] + 0.75 * other.delta_a[name]
        torch.testing.assert_close(a[:2], start[:2] + both, rtol=0, atol=1e-12)
        alone = start[2:4] + one.delta_a[name][2:]
        torch.testing.assert_close(a[2:4], alone, rtol=0, atol=1e-12)
        assert torch.equal(a[4:], start[4:])
        assert torch.equal(learner.adapter.b[name][:, 4:], before[f"adapter.b.{name}"][:, 4:])
    kept, was = learner.adapter.kept["salience"], before["adapter.kept.salience"]
    assert torch.equal(kept[:, 4:], was[:, 4:])
    assert (kept[:, :4] != was[:, :4]).all()


def test_scores_are_smoothed_products_of_weight_and_change(make_learner: Make) -> None:
    learner = make_learner(method="hafl", rank=RANK)
    before = learner.state()
    learner.aggregate(learner.train([Job(0, RANK, 7)]), [1.0])
    for layer, (name, a) in enumerate(learner.adapter.a.items()):
        start_a, start_b = before[f"adapter.a.{name}"], before[f"adapter.b.{name}"]
        for j in range(RANK):
            on_a = (start_a[j] * (a[j] - start_a[j])).abs().mean()
            on_b = (start_b[:, j] * (learner.adapter.b[name] - start_b)[:, j]).abs().mean()
            found = float(learner.adapter.kept["salience"][layer, j])
            assert found == pytest.approx(0.15 * float(on_a + on_b), rel=1e-12)


def test_frozen_ranks_cost_no_gradients_of_their_own() -> None:
    """Each rank less saves two products per token and layer, and its gradient and moments.

    Layers that see the embeddings alone save a third one: what reaches their frozen ranks from
    behind goes nowhere.
    """
    length, rank = 64, 16
    local = LocalTraining(1, 4, 0.1, optimizer="adamw")
    cost = {}
    for name in ("fedit", "hafl"):
        shape = shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)
        layout = find_layout(shape, ("all-linear",), heads=False)
        (cost[name],) = count_costs(
            shape, layout, METHODS[name], rank, local, length, "causal-lm", 32
        )
    plain, some = cost["fedit"], cost["hafl"]
    assert float(some.example_flops(rank, length)) == float(plain.example_flops(rank, length))
    assert some.training_bytes(rank) == plain.training_bytes(rank)
    first = [d_out for name, (_, d_out) in layout.layers.items() if "layers.0.self_attn" in name]
    saved = 2 * length * (layout.numbers_per_rank + sum(first[:3]))
    found = float(some.example_flops(rank, length)) - float(some.example_flops(rank - 1, length))
    assert found == saved
    # Gradient and two moments; the inner product, which B's gradient needs, and A's scale.
    inner = 4 * (local.batch * length + 1) * len(layout.layers)
    assert some.training_bytes_per_rank == 3 * 4 * layout.numbers_per_rank + inner
