"""CE-LoRA: what cores compute, which of them a device gets, and what never leaves it."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fslora.compression import Compression
from fslora.cost import AdapterCost
from fslora.counting import count_costs
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout, find_layout, is_core
from fslora.methods import METHODS, Job
from fslora.methods.celora import CELoRA
from fslora.models import BUILTIN, shape_of
from fslora.peft_io import load_adapter, save_adapter
from fslora.reference import train_alone
from fslora.stacked import Passing, Stack, StackedLinear
from fslora.trainer import Learner

Make = Callable[..., Learner]

RANK = 6
SIZES = (3, 12, 7, 20, 18)


def jobs(*devices: int, round_index: int = 1) -> list[Job]:
    return [Job(n, RANK, 10 * round_index + n, round_index) for n in devices]


def trained(make_learner: Make, *rounds: tuple[int, ...], **options: object) -> Learner:
    """A learner after rounds of some devices each."""
    learner = make_learner(
        **{"method": "ce-lora", "rank": RANK, "sizes": SIZES, **options}  # type: ignore[arg-type]
    )
    for number, devices in enumerate(rounds, 1):
        updates = learner.train(jobs(*devices, round_index=number))
        learner.aggregate(updates, [1 / len(devices)] * len(devices), number)
    return learner


def cores(learner: Learner, device: int) -> dict[str, Tensor]:
    """The cores that a device starts its next round from."""
    return {n: value for n, value in learner.own_adapter(device).head.items() if is_core(n)}


def kept(learner: Learner, device: int) -> dict[str, Tensor]:
    """The cores that it sent last."""
    own = learner.personal[device]
    return {n.removeprefix("head."): value for n, value in own.items() if is_core(n)}


def test_gradients_are_those_of_the_written_out_layer() -> None:
    """Of y = W x + s B C A x and a loss g . y: that of C is s B^T g x^T A^T, device by device."""
    draws = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64)

    a, b, c = normal(2, 4, 7), normal(2, 5, 4), normal(2, 4, 4).requires_grad_()
    x, g, scale = normal(6, 7), normal(6, 5), torch.full((2, 1, 4), 0.7, dtype=torch.float64)
    base = nn.Linear(7, 5, dtype=torch.float64)
    layer = StackedLinear(base, Passing(6, 1), 0)
    stack = Stack({"l": a}, {"l": b}, {"l.core": c}, scale)
    layer.factors = (stack.rows("l"), b, scale[:, 0].unsqueeze(2))
    out = layer(x)
    (gradient,) = torch.autograd.grad((out * g).sum(), [c])
    for device in range(2):
        rows = slice(3 * device, 3 * device + 3)
        inner = x[rows] @ a[device].T
        wanted = base(x[rows]) + 0.7 * inner @ c[device].T @ b[device].T
        torch.testing.assert_close(out[rows], wanted, rtol=0, atol=1e-12)
        of_c = 0.7 * b[device].T @ g[rows].T @ inner
        torch.testing.assert_close(gradient[device], of_c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stacked_devices_train_as_each_alone(make_learner: Make, kind: str, optimizer: str) -> None:
    """From cores and factors of their own, those that are new among them."""
    local = LocalTraining(3, 2, 0.05, 0.0, optimizer=optimizer)  # type: ignore[arg-type]
    learner = trained(make_learner, (0, 1, 2), (1, 3), kind=kind, local=local)
    asked = jobs(0, 1, 3, 4, round_index=3)
    for job, update in zip(asked, learner.train(asked), strict=True):
        alone = train_alone(learner, job)
        for part in ("delta_a", "delta_b", "delta_head"):
            for name, value in getattr(alone, part).items():
                torch.testing.assert_close(getattr(update, part)[name], value, rtol=0, atol=1e-10)
        assert all(update.delta_head[name].any() for name in update.delta_head)


def test_what_a_device_has_only_changes_when_it_trains(make_learner: Make) -> None:
    learner = trained(make_learner, (0, 1, 2))
    before = {
        n: {name: v.clone() for name, v in own.items()} for n, own in learner.personal.items()
    }
    assert before.keys() == {0, 1, 2}
    common = {name: value.clone() for name, value in learner.adapter.a.items()}
    learner.aggregate(learner.train(jobs(1, 3, round_index=2)), [0.9, 0.4], 2)
    for device in (0, 2):
        for name, value in learner.personal[device].items():
            assert torch.equal(value, before[device][name])
    assert not any(torch.equal(v, before[1][name]) for name, v in learner.personal[1].items())
    # Who is new has what all began with.
    assert all(torch.equal(v, torch.eye(RANK).double()) for v in cores(learner, 4).values())
    for name, value in learner.own_adapter(4).a.items():
        assert torch.equal(value, common[name])


def test_order_of_devices_does_not_matter(make_learner: Make) -> None:
    one, other = (trained(make_learner, (0, 1, 2)) for _ in range(2))
    updates = one.train(jobs(0, 1, 3, round_index=2))
    one.aggregate(updates, [0.2, 0.5, 0.3], 2)
    other.aggregate(updates[::-1], [0.3, 0.5, 0.2], 2)
    for device, own in one.personal.items():
        for name, value in own.items():
            assert torch.equal(value, other.personal[device][name])


def test_policy_weights_do_not_bear_on_cores(make_learner: Make) -> None:
    one, other = (trained(make_learner, (0, 1, 2), kind="classification") for _ in range(2))
    updates = one.train(jobs(0, 1, round_index=2))
    one.aggregate(updates, [0.2, 0.5], 2)
    other.aggregate(updates, [1.7, 0.1], 2)
    for device in range(3):
        for name, value in cores(one, device).items():
            assert torch.equal(value, cores(other, device)[name])
    assert not torch.equal(one.adapter.head["score.weight"], other.adapter.head["score.weight"])


def test_heads_are_averaged_by_the_policys_weights(make_learner: Make) -> None:
    learner = trained(make_learner, (0, 1), kind="classification")
    start = learner.adapter.head["score.weight"].clone()
    updates = learner.train(jobs(0, 1, round_index=2))
    learner.aggregate(updates, [0.7, 0.9], 2)
    moved = sum(
        v * update.delta_head["score.weight"] for v, update in zip((0.7, 0.9), updates, strict=True)
    )
    found = learner.adapter.head["score.weight"]
    torch.testing.assert_close(found, start + moved, rtol=0, atol=1e-12)


def test_without_similarity_all_get_the_mean_by_examples(make_learner: Make) -> None:
    learner = trained(make_learner, (0, 1), (1, 3), method=CELoRA("none"))
    held = {n: SIZES[n] / (3 + 12 + 20) for n in (0, 1, 3)}
    for name in kept(learner, 0):
        mean = sum(share * kept(learner, n)[name] for n, share in held.items())
        for device in held:
            torch.testing.assert_close(cores(learner, device)[name], mean, rtol=0, atol=1e-14)


def test_each_gets_the_mean_of_its_own_weights(make_learner: Make) -> None:
    """Cosines over all layers at once, written out in loops."""
    learner = trained(make_learner, (0, 1, 2), (1, 3))
    known = (0, 1, 2, 3)
    change = {
        n: torch.cat([(c - torch.eye(RANK)).flatten() for c in kept(learner, n).values()])
        for n in known
    }
    for n in known:
        weight = {}
        for j in known:
            cosine = float(change[n] @ change[j] / change[n].norm() / change[j].norm())
            weight[j] = SIZES[j] * max(0.0, cosine)
        for name, found in cores(learner, n).items():
            mean = sum(w * kept(learner, j)[name] for j, w in weight.items()) / sum(weight.values())
            torch.testing.assert_close(found, mean, rtol=0, atol=1e-12)


def test_a_device_alone_goes_on_from_its_own_core(make_learner: Make) -> None:
    learner = trained(make_learner, (2,), (2,))
    for name, value in cores(learner, 2).items():
        assert torch.equal(value, kept(learner, 2)[name])


numbers = st.floats(-3, 3).map(lambda x: round(x, 3))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=1, max_size=6),
    st.data(),
    st.sampled_from(["model", "none"]),
)
def test_weights_are_shares(rows: list[list[float]], data: st.DataObject, similarity: str) -> None:
    """They add up to one, none is negative, one's own is at least one's share of the examples."""
    count = data.draw(st.lists(st.integers(1, 50), min_size=len(rows), max_size=len(rows)))
    place = data.draw(st.integers(0, len(rows) - 1))
    examples = torch.tensor(count, dtype=torch.float64)
    method = CELoRA(similarity)  # type: ignore[arg-type]
    share = method.shares(place, torch.tensor(rows, dtype=torch.float64), examples)
    assert math.isclose(float(share.sum()), 1.0, rel_tol=1e-12)
    assert (share >= 0).all()
    assert share[place] >= count[place] / sum(count) * (1 - 1e-12)


def test_weights_of_devices_alike_and_apart() -> None:
    method, count = CELoRA(), torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64)
    eye = torch.eye(3, dtype=torch.float64)
    # In the same direction, however far: by examples.
    alike = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(method.shares(0, alike, count), count / 8, rtol=1e-12, atol=0)
    for place in range(3):
        # At right angles, or against each other: each its own.
        assert torch.equal(method.shares(place, eye, count), eye[place])
    against = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    assert method.shares(0, against, count[:2]).tolist() == [1.0, 0.0]
    # Who has not moved is like everybody.
    still = torch.cat([torch.zeros(1, 3, dtype=torch.float64), eye[:2]])
    torch.testing.assert_close(method.shares(0, still, count), count / 8, rtol=1e-12, atol=0)
    assert method.shares(1, still, count).tolist() == [0.25, 0.75, 0.0]


def test_only_cores_are_rounded_to_the_wire(make_learner: Make) -> None:
    learner = trained(make_learner, (0, 1), wire=torch.bfloat16)
    (update,) = learner.train(jobs(0, round_index=2))
    for name, value in cores(learner, 0).items():
        assert torch.equal(value, value.bfloat16().double())
        assert torch.equal(update.delta_head[name], update.delta_head[name].bfloat16().double())
    for part in (update.delta_a, update.delta_b, learner.own_adapter(0).a):
        assert all((value != value.bfloat16()).any() for value in part.values())
    before = cores(learner, 0)
    learner.aggregate([update], [1.0], 2)
    for name, value in kept(learner, 0).items():
        assert torch.equal(value, before[name] + update.delta_head[name])


def test_rows_of_cores_are_compressed(make_learner: Make) -> None:
    plain, few = trained(make_learner), trained(make_learner, compression=Compression(0.3))
    (whole,), (update,) = plain.train(jobs(0)), few.train(jobs(0))
    for name, value in update.delta_head.items():
        there = value != 0
        assert (there.sum(1) == math.ceil(0.3 * RANK)).all()
        assert torch.equal(value[there], whole.delta_head[name][there])
        least = whole.delta_head[name].abs().where(there, math.inf).amin(1)
        assert (whole.delta_head[name].abs().where(~there, 0.0).amax(1) <= least).all()
    for part in ("delta_a", "delta_b"):
        for name, value in getattr(update, part).items():
            assert torch.equal(value, getattr(whole, part)[name])


def test_heads_are_not_compressed(make_learner: Make) -> None:
    plain = trained(make_learner, kind="classification")
    few = trained(make_learner, kind="classification", compression=Compression(0.3, 4))
    (whole,), (update,) = plain.train(jobs(0)), few.train(jobs(0))
    name = "score.weight"
    assert torch.equal(update.delta_head[name], whole.delta_head[name])


def test_evaluation_is_the_mean_over_the_devices_models(make_learner: Make) -> None:
    learner = trained(make_learner, (0, 1, 2))
    losses = []
    for device in range(len(SIZES)):
        # The same function without cores, as the global state of a method that knows none.
        plain = make_learner(method="fedit", rank=RANK, sizes=SIZES)
        folded = learner.own_adapter(device).folded()
        assert not any(is_core(name) for name in folded.head)
        for part in ("a", "b"):
            for name, value in getattr(plain.adapter, part).items():
                value.copy_(getattr(folded, part)[name])
        losses.append(plain.evaluate().loss)
    wanted = sum(n * loss for n, loss in zip(SIZES, losses, strict=True)) / sum(SIZES)
    assert learner.evaluate().loss == pytest.approx(wanted, rel=1e-12)
    assert len(set(losses)) >= 4


def test_peft_gets_the_function_without_cores(make_learner: Make, tmp_path: Path) -> None:
    learner = trained(make_learner, (0, 1))
    own, layout, base = learner.own_adapter(0), learner.model.layout, learner.model.model
    save_adapter(tmp_path, base, layout, learner.lora, own, "causal-lm")
    read = load_adapter(tmp_path, base, layout, learner.lora, torch.float64)
    tokens, length = torch.arange(1, 13).view(2, 6), torch.full((2,), 6)
    logits = []
    for adapter in (own, read):
        with learner.model.using(Stack.whole(adapter, learner.lora.scale)):
            logits.append(learner.model.logits(tokens, length))
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-12)


def test_identity_cores_change_nothing(make_learner: Make) -> None:
    """A and B have the bits that FedIT starts with, and the first loss is the same."""
    plain = make_learner(method="fedit", rank=RANK)
    cored = make_learner(method="ce-lora", rank=RANK)
    for name, value in plain.adapter.with_cores().folded().a.items():
        assert torch.equal(value, cored.adapter.a[name])
    assert cored.evaluate().loss == pytest.approx(plain.evaluate().loss, rel=1e-12)


def cost_of(layout: Layout, name: str) -> AdapterCost:
    shape = shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)
    (cost,) = count_costs(
        shape, layout, METHODS[name], 16, LocalTraining(1, 2, 0.1, 0.5), 32, "causal-lm", 32
    )
    return cost


def test_cores_count_in_memory_and_traffic() -> None:
    """Beside FedIT: per layer 16 x 16 numbers, each with gradient, start and momentum."""
    shape = shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)
    layout = find_layout(shape, ("all-linear",), heads=False)
    plain, cored = cost_of(layout, "fedit"), cost_of(replace(layout, core=16), "ce-lora")
    numbers = len(layout.layers) * 16**2
    copies = LocalTraining(1, 2, 0.1, 0.5).state_copies
    assert cored.training_bytes(16) == plain.training_bytes(16) + 4 * copies * numbers
    assert float(cored.upload_bits(16)) == float(cored.download_bits(16)) == 32 * numbers
    assert cored.example_flops(16, 32) == plain.example_flops(16, 32)


def test_operations_of_a_step_are_those_counted_by_torch(make_learner: Make) -> None:
    """What cores add to a step, whatever the number of tokens."""
    learner = make_learner(method="ce-lora", rank=RANK)
    added = METHODS["ce-lora"].penalty_flops(learner.model.layout, RANK)
    for samples, width in ((2, 5), (3, 9)):
        cored, plain = (
            flops_of_step(learner, adapter, samples, width)
            for adapter in (learner.adapter, learner.adapter.folded())
        )
        assert cored - plain == added


def flops_of_step(learner: Learner, adapter: Adapter, samples: int, width: int) -> int:
    stack = Stack.whole(adapter, 1.0)
    parts = [*stack.a.values(), *stack.b.values(), *stack.head.values()]
    for value in parts:
        value.requires_grad_()
    tokens, length = torch.ones(samples, width, dtype=torch.int64), torch.full((samples,), width)
    with FlopCounterMode(display=False) as counter:
        with learner.model.using(stack):
            logits = learner.model.logits(tokens, length)
        torch.autograd.grad(logits.sum(), parts)
    total: int = counter.get_total_flops()
    return total
