"""SplitLoRA: a model that is cut computes what the whole one does, and costs add up to its."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fslora.cost import AdapterCost
from fslora.counting import count_costs, device_layout
from fslora.local import LocalTraining
from fslora.lora import Adapter, find_layout
from fslora.losses import device_losses
from fslora.methods import METHODS, Job
from fslora.methods.splitlora import SplitLoRA
from fslora.models import BUILTIN, CutError, blocks, frozen_bytes, shape_of
from fslora.split import run_until
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task
from fslora.trainer import Learner

Make = Callable[..., Learner]

RANK, LENGTH, BATCH = 3, 16, 2
TASK: dict[str, Task] = {
    "causal-lm": "causal-lm",
    "classification": "classification",
    "encoder": "classification",
}
every_kind = pytest.mark.parametrize("kind", TASK)


def tiny(task: Task = "causal-lm", classes: int = 3) -> Any:
    """Shape of the built-in model of four blocks."""
    return shape_of(BUILTIN, task, classes, 0, torch.float32)


def costs(
    device_blocks: int | None,
    task: Task = "causal-lm",
    targets: str | tuple[str, ...] = ("all-linear",),
    nf4: bool = False,
    checkpointing: bool = False,
) -> AdapterCost:
    """What a round costs a device of the built-in model."""
    return _counted(device_blocks, task, targets, nf4, checkpointing)


@cache
def _counted(
    device_blocks: int | None,
    task: Task,
    targets: str | tuple[str, ...],
    nf4: bool,
    checkpointing: bool,
) -> AdapterCost:
    shape = tiny(task)
    layout = find_layout(shape, targets, heads=task == "classification")
    local = LocalTraining(1, BATCH, 0.1)
    (cost,) = count_costs(
        shape,
        layout,
        METHODS["splitlora"],
        RANK,
        local,
        LENGTH,
        task,
        32,
        nf4,
        checkpointing,
        device_blocks=device_blocks,
    )
    return cost


@contextmanager
def received(model: StackedModel, count: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Let a server's part go on from a copy of what devices send; gives both."""
    seen: list[tuple[Tensor, Tensor]] = []

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.append((hidden, hidden.detach().requires_grad_()))
        if args:
            return (seen[-1][1], *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": seen[-1][1]}

    handle = blocks(model.model)[count].register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def losses(learner: Learner, stack: Stack, task: Task) -> Tensor:
    """Loss of the learner's first examples."""
    examples = learner.dataset.train
    pick = {name: torch.from_numpy(value[:4]) for name, value in asdict(examples).items()}
    with learner.model.using(stack):
        logits = learner.model.logits(pick["tokens"], pick["length"])
    return device_losses(
        logits, pick["tokens"], pick["length"], pick["prompt"], pick["label"], 1, task
    ).sum()


@every_kind
@pytest.mark.parametrize("padded", [False, True])
def test_cut_model_has_the_gradient_of_the_whole(
    make_learner: Make, kind: str, padded: bool
) -> None:
    """Blocks 1..c, then the rest on a copy, then the gradient of the copy sent back."""
    learner = make_learner(kind, "splitlora", RANK, padded=padded)
    adapter = learner.adapter
    factors = {
        f"{part}.{name}": value.requires_grad_()
        for part in ("a", "b", "head")
        for name, value in getattr(adapter, part).items()
    }
    stack = Stack.whole(adapter, learner.lora.scale)
    whole_loss = losses(learner, stack, TASK[kind])
    whole = torch.autograd.grad(whole_loss, list(factors.values()))
    with received(learner.model, 1) as seen:
        cut_loss = losses(learner, stack, TASK[kind])
    ((sent, copy),) = seen
    (back, *own) = torch.autograd.grad(cut_loss, [copy, *factors.values()], allow_unused=True)
    device = torch.autograd.grad(sent, list(factors.values()), back, allow_unused=True)
    assert torch.equal(cut_loss, whole_loss)
    for name, wanted, by_server, by_device in zip(factors, whole, own, device, strict=True):
        # Every factor is on one side.
        assert (by_server is None) != (by_device is None), name
        found = by_device if by_server is None else by_server
        assert found is not None
        assert torch.equal(found, wanted)


def test_training_is_that_of_fedit_wherever_the_model_is_cut(make_learner: Make) -> None:
    jobs = [Job(n, RANK, 31 + n) for n in range(3)]
    states = []
    for method in ("fedit", SplitLoRA(1), SplitLoRA(7)):
        learner = make_learner(method=method, rank=RANK)
        updates = learner.train(jobs)
        learner.aggregate(updates, [0.5, 0.9, 0.3])
        states.append(({u.device: u.loss for u in updates}, learner.state()))
    (loss, state), *others = states
    for other_loss, other in others:
        assert other_loss == loss
        assert all(torch.equal(value, other[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("task", "checkpointing"),
    [("causal-lm", False), ("causal-lm", True), ("classification", False)],
)
def test_parts_add_up_to_the_whole_step(task: Task, checkpointing: bool) -> None:
    whole = costs(None, task, checkpointing=checkpointing)
    powers = np.array([[3.0, 1.0], [40.0, 9.0], [700.0, 81.0]])
    before = np.zeros(2)
    for c in (1, 2, 3):
        part = costs(c, task, checkpointing=checkpointing)
        for rank in (1, 5):
            server = part.exchange(rank, powers).flops
            both = part.flops(rank, powers) + server
            np.testing.assert_array_equal(both, whole.flops(rank, powers))
            assert (server > 0).all()
        # Another block is on the device.
        assert (part.flops(1, powers) > before).all()
        before = part.flops(1, powers)


def flops_of(run: Callable[[], Any]) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        out = run()
    return counter.get_total_flops(), out


@every_kind
def test_flops_are_those_of_a_model_that_is_really_cut(make_learner: Make, kind: str) -> None:
    """Forward, backward and forward again with storage, each side counted by itself."""
    learner = make_learner(kind, "splitlora", RANK, sizes=(60,))
    learner.model.model.set_attn_implementation("eager")
    model, layout = learner.model, learner.model.layout
    parameters = [
        value.requires_grad_()
        for part in (learner.adapter.a, learner.adapter.b, learner.adapter.head)
        for value in part.values()
    ]
    stack = Stack.whole(learner.adapter, 1.0)
    tokens, length = torch.ones((1, 12), dtype=torch.int64), torch.full((1,), 12)
    one = torch.ones(1, dtype=torch.int64)
    with model.using(stack):
        ahead, _ = flops_of(lambda: run_until(model, 1, tokens, length, True))
        with received(model, 1) as seen:
            all_ahead, logits = flops_of(lambda: model.logits(tokens, length, True))
    ((sent, copy),) = seen
    loss = device_losses(logits, tokens, length, one, one, 1, TASK[kind]).sum()
    server_back, (gradient, *_) = flops_of(
        lambda: torch.autograd.grad(loss, [copy, *parameters], allow_unused=True)
    )
    device_back, _ = flops_of(
        lambda: torch.autograd.grad(sent, parameters, gradient, allow_unused=True)
    )
    shape = model.model.__class__(model.model.config)  # unwrapped, of the same form
    shape = shape.to("meta", torch.float64).requires_grad_(False).eval()
    shape.set_attn_implementation("eager")
    (cost,) = count_costs(
        shape,
        layout,
        METHODS["splitlora"],
        RANK,
        LocalTraining(1, 1, 0.1),
        12,
        TASK[kind],
        32,
        device_blocks=1,
    )
    powers = np.array([1.0, 12.0, 144.0])
    assert cost.flops(RANK, powers) == ahead + device_back
    assert cost.exchange(RANK, powers).flops == all_ahead - ahead + server_back


@pytest.mark.parametrize(("task", "labels"), [("causal-lm", 1), ("classification", 0)])
def test_traffic_with_all_blocks_but_the_last_on_devices(task: Task, labels: int) -> None:
    """Three of four blocks of width 128."""
    cost, shape = costs(3, task), tiny(task)
    layout = find_layout(shape, ("all-linear",), heads=task == "classification")
    first = [sum(d) for name, d in layout.layers.items() if ".layers.3." not in name]
    assert len(first) == 3 * 7
    assert cost.upload_bits(RANK) == cost.download_bits(RANK) == 32 * RANK * sum(first)
    # Two examples of 10 and 6 tokens.
    found = cost.exchange(RANK, np.array([2.0, 16.0, 136.0]))
    assert found.down_bits == 32 * 128 * 16
    assert found.up_bits == 32 * 128 * 16 + 32 * (16 if labels else 2)


def test_whole_model_exchanges_nothing() -> None:
    found = costs(None).exchange(RANK, np.ones((3, 4)))
    for value in (found.up_bits, found.down_bits, found.flops):
        np.testing.assert_array_equal(value, np.zeros(4))


@pytest.mark.parametrize("nf4", [False, True])
def test_device_holds_the_embeddings_and_its_blocks(nf4: bool) -> None:
    """What is counted with more blocks is one block more; the output layer is the server's."""
    held = [costs(c, nf4=nf4).frozen_bytes for c in (1, 2, 3)]
    shape = tiny()
    names = {id(value): name for name, value in shape.named_parameters()}

    def within(*parts: str) -> int:
        return frozen_bytes(
            shape, nf4, lambda value: any(part in names[id(value)] for part in parts)
        )

    assert held[0] == within("embed_tokens", ".layers.0.")
    assert held[2] == within("embed_tokens", ".layers.0.", ".layers.1.", ".layers.2.")
    assert held[2] - held[1] == within(".layers.2.") > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_of_training_grows_with_the_part(checkpointing: bool) -> None:
    """A block saves the same wherever it lies, and its factors take as much, but for the first."""
    part = [costs(c, checkpointing=checkpointing).training_bytes(RANK) for c in (1, 2, 3)]
    assert 0 < part[0] < part[1] < part[2]
    assert part[2] < costs(None, checkpointing=checkpointing).training_bytes(RANK)
    if not checkpointing:
        assert part[2] - part[1] == part[1] - part[0]


class _Products(TorchDispatchMode):
    """Shapes of all that is multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "mm" in str(func):
            self.widths.update(args[-1].shape)
        return func(*args, **(kwargs or {}))


def test_nothing_behind_the_cut_is_run() -> None:
    """The output layer, of 259 tokens, is at the end."""
    shape = tiny()
    layout = find_layout(shape, ("all-linear",), heads=False)
    adapter, model = Adapter.fresh(shape, layout, 1, 0, torch.float32), StackedModel(shape, layout)
    vocabulary = shape.config.vocab_size
    tokens = torch.zeros((1, 8), dtype=torch.int64, device="meta")
    with model.using(Stack.whole(adapter, 1.0)), _Products() as seen:
        hidden = run_until(model, 3, tokens, torch.full((1,), 8), masked=True)
    assert hidden.shape == (1, 8, 128)
    assert vocabulary not in seen.widths
    with model.using(Stack.whole(adapter, 1.0)), _Products() as seen:
        model.logits(tokens, torch.full((1,), 8), masked=True)
    assert vocabulary in seen.widths


@pytest.mark.parametrize("count", [4, 9])
def test_server_needs_a_block(count: int) -> None:
    with pytest.raises(CutError, match=r"has 4 blocks.*give 1 to 3"):
        costs(count)


def test_devices_need_something_to_train() -> None:
    last = r".*layers\.3\..*proj"
    with pytest.raises(CutError, match="no adapted layer"):
        costs(3, targets=last)
    shape = tiny()
    layout = find_layout(shape, r".*layers\.[13]\.self_attn\.q_proj", heads=False)
    part = device_layout(shape, layout, 2, 8)
    assert list(part.layers) == ["model.layers.1.self_attn.q_proj"]
    assert not part.heads
