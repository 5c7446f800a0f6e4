"""FedHL: nothing is lost by truncation, and devices get the best ranks of a dense update."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from fslora.base_weights import BaseWeights
from fslora.local import LocalTraining
from fslora.lora import find_layout
from fslora.methods import GlobalState, Job
from fslora.methods.fedhl import FedHL
from fslora.products import Product
from fslora.stacked import StackedModel
from fslora.trainer import Learner

Make = Callable[..., Learner]
RANK = 6
RANKS = (6, 2, 4)
WEIGHT = [0.5, 0.3, 0.6]


def jobs(round_index: int) -> list[Job]:
    return [Job(n, k, 31 + n, round_index) for n, k in enumerate(RANKS)]


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """What the base's layers compute with."""
    found = {}
    for name in learner.adapter.a:
        weight = learner.model.layer(name).base.weight
        assert isinstance(weight, Tensor)
        found[name] = weight.clone()
    return found


def dense(learner: Learner) -> dict[str, Tensor]:
    """The server's W_0 + s W."""
    with learner.base.merged():
        base = weights_of(learner)
    return {
        name: base[name] + learner.lora.scale * learner.adapter.b[name] @ a
        for name, a in learner.adapter.a.items()
    }


def after_rounds(make: Make, base: torch.dtype = torch.float64) -> Learner:
    """A learner after two merges, whose update has many more than r ranks of like size."""
    learner = make(method="fedhl", rank=RANK, base=base)
    draws = torch.Generator().manual_seed(23)
    for name, a in learner.adapter.a.items():
        d_out, d_in = len(learner.adapter.b[name]), a.shape[1]
        change = torch.randn(d_out, d_in, generator=draws, dtype=torch.float64) / d_in
        learner.base.add(name, Product(change, torch.eye(d_in, dtype=torch.float64)), 1.0)
    for number in (1, 2):
        learner.aggregate(learner.train(jobs(number)), WEIGHT, number)
    return learner


def state_of(learner: Learner) -> GlobalState:
    return GlobalState(learner.adapter, learner.base, learner.lora.scale, learner.seed, 3)


@pytest.mark.parametrize("base", [torch.float64, torch.bfloat16], ids=["double", "half"])
def test_update_has_more_ranks_than_are_sent(make_learner: Make, base: torch.dtype) -> None:
    """What is beyond the adapter is the server's; devices compute with the first base."""
    began = weights_of(make_learner(base=base))
    learner = after_rounds(make_learner, base=base)
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, began[name])
        assert learner.base.change(name).norm() > 0.1 * learner.adapter.b[name].norm()
    with learner.base.merged():
        for name, weight in weights_of(learner).items():
            assert weight.dtype == base
            assert not torch.equal(weight, began[name])
    for name, weight in weights_of(learner).items():
        assert torch.equal(weight, began[name])


def test_server_adds_what_devices_changed(make_learner: Make) -> None:
    """W + sum v_n (B_n A_n - T_n), by matrices, though devices were sent unlike truncations."""
    learner = after_rounds(make_learner)
    updates, wanted = learner.train(jobs(3)), dense(learner)
    for update, k, v in zip(updates, RANKS, WEIGHT, strict=True):
        for name, a in learner.adapter.a.items():
            sent_b, sent_a = learner.adapter.b[name][:, :k], a[:k]
            trained = (sent_b + update.delta_b[name]) @ (sent_a + update.delta_a[name])
            wanted[name] += learner.lora.scale * v * (trained - sent_b @ sent_a)
    learner.aggregate(updates, WEIGHT, 3)
    for name, value in dense(learner).items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", ["data", "fedhl"])
def test_idle_devices_move_nothing(make_learner: Make, weights: str) -> None:
    """Whatever their ranks: FlexLoRA would put the mean of the truncations in W's place."""
    idle = LocalTraining(steps=1, batch=2, learning_rate=0.0)
    learner = after_rounds(make_learner)
    resting = make_learner(rank=RANK, method=FedHL(weights), local=idle)  # type: ignore[arg-type]
    resting.restore(learner.state())
    resting.aggregate(resting.train(jobs(3)), WEIGHT, 3)
    before = dense(learner)
    for name, value in dense(resting).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-13)


def test_full_rank_is_the_mean_of_the_products(make_learner: Make) -> None:
    """Where nothing is cut off it is FlexLoRA, which then cuts nothing off either."""
    full = 16
    learner, flex = (make_learner(method=name, rank=full) for name in ("fedhl", "flexlora"))
    for each in (learner, flex):
        each.aggregate(each.train([Job(n, full, 7 + n) for n in range(3)]), WEIGHT)
    wanted = dense(flex)
    for name, value in dense(learner).items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-12)


def test_devices_get_the_nearest_product_of_their_rank(make_learner: Make) -> None:
    """Eckart and Young: what is cut off has the norm of the singular values cut off."""
    learner = after_rounds(make_learner)
    began = weights_of(learner)
    for name, value in dense(learner).items():
        update = (value - began[name]) / learner.lora.scale
        spectrum = torch.linalg.svdvals(update)
        assert spectrum[RANK] > 0.05 * spectrum[0]
        for k in range(1, RANK + 1):
            sent = learner.adapter.b[name][:, :k] @ learner.adapter.a[name][:k]
            torch.testing.assert_close(
                torch.linalg.norm(update - sent), spectrum[k:].norm(), rtol=1e-9, atol=1e-12
            )


def test_evaluation_is_of_the_dense_model(make_learner: Make) -> None:
    learner, plain = after_rounds(make_learner), make_learner(rank=RANK)
    began, wanted = weights_of(plain), dense(learner)
    for name, factor in plain.adapter.b.items():
        factor.zero_()
        change = wanted[name] - began[name]
        plain.base.add(name, Product(change, torch.eye(change.shape[1], dtype=change.dtype)), 1.0)
    assert learner.evaluate().loss == pytest.approx(plain.evaluate().loss, rel=1e-12)
    truncated = make_learner(rank=RANK)
    for name, value in learner.adapter.a.items():
        truncated.adapter.a[name].copy_(value)
        truncated.adapter.b[name].copy_(learner.adapter.b[name])
    assert abs(learner.evaluate().loss - truncated.evaluate().loss) > 1e-4


def test_weights_are_of_the_squared_errors(make_learner: Make) -> None:
    """p_n ~ 1 / (e_n^2 + 10^-3) by the spectra of all layers together; they add up to sum v_n."""
    learner = after_rounds(make_learner)
    updates, began = learner.train(jobs(3)), weights_of(learner)
    spectra = [
        torch.linalg.svdvals((value - began[name]) / learner.lora.scale).square()
        for name, value in dense(learner).items()
    ]
    size = sum(float(each.sum()) for each in spectra)
    error = [sum(float(each[k:].sum()) for each in spectra) / size for k in RANKS]
    share = FedHL("fedhl").shares(state_of(learner), updates, WEIGHT)
    assert sum(share) == pytest.approx(sum(WEIGHT), rel=1e-12)
    for n in range(3):
        ratio = (error[0] ** 2 + 1e-3) / (error[n] ** 2 + 1e-3)
        assert share[n] / share[0] == pytest.approx(ratio, rel=1e-9)
    assert share[0] > share[2] > share[1]


def test_weights_at_equal_ranks_are_uniform(make_learner: Make) -> None:
    learner = after_rounds(make_learner)
    updates = learner.train([Job(n, 4, 9 + n, 3) for n in range(3)])
    share = FedHL("fedhl").shares(state_of(learner), updates, WEIGHT)
    assert share == pytest.approx([sum(WEIGHT) / 3] * 3, rel=1e-12)


def test_weights_do_not_depend_on_the_size_of_the_update(make_learner: Make) -> None:
    learner = make_learner(method="fedhl", rank=RANK)
    updates = learner.train(jobs(1))
    share = FedHL("fedhl").shares(state_of(learner), updates, WEIGHT)
    for value in learner.adapter.b.values():
        value.mul_(100.0)
    again = FedHL("fedhl").shares(state_of(learner), updates, WEIGHT)
    assert again == pytest.approx(share, rel=1e-9)
    for value in learner.adapter.b.values():
        value.zero_()
    nothing = FedHL("fedhl").shares(state_of(learner), updates, WEIGHT)
    assert nothing == pytest.approx([sum(WEIGHT) / 3] * 3)


def test_directions_that_are_not_there_yet_can_be_learnt(make_learner: Make) -> None:
    """After one step of rank 2 the update has two ranks, and the others begin afresh."""
    one = LocalTraining(steps=1, batch=2, learning_rate=0.3)
    learner = make_learner(method="fedhl", rank=RANK, local=one)
    for value in learner.adapter.b.values():
        value.zero_()
    learner.aggregate(learner.train([Job(0, 2, 5)]), [1.0])
    before = dense(learner)
    for name, value in learner.adapter.b.items():
        assert value.any(0).tolist() == [True, True, False, False, False, False]
        rows = learner.adapter.a[name]
        assert torch.linalg.matrix_rank(rows) == RANK
        assert rows[2:].abs().max() <= rows.shape[1] ** -0.5
    updates = learner.train([Job(1, RANK, 6, 2)])
    assert all(value.any(0).all() for value in updates[0].delta_b.values())
    learner.aggregate(updates, [1.0], 2)
    for name, value in dense(learner).items():
        change = value - before[name]
        assert torch.linalg.matrix_rank(change, rtol=1e-9) > 2


def test_weights_kept_the_other_way_round() -> None:
    """GPT-2 keeps (d_in, d_out); what was added is told as it was given."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1, n_positions=16)
    model = GPT2LMHeadModel(config).requires_grad_(False)
    layout = find_layout(model, ("c_attn",), heads=False)
    (name,) = layout.transposed
    base = BaseWeights(StackedModel(model, layout), apart=True)
    d_in, d_out = layout.layers[name]
    assert not base.change(name).any()
    product = Product(torch.randn(d_out, 2), torch.randn(2, d_in))
    base.add(name, product, 0.5)
    torch.testing.assert_close(base.change(name), 0.5 * product.dense(), rtol=0, atol=1e-6)
