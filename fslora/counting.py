"""Counting what one device's round costs.

Counted on the model's own shapes, not estimated by a formula: a training step of the model runs on
tensors without storage while every matrix product and every tensor saved for the backward pass is
added up. Both are exactly linear in the rank, so two ranks give the line. The arithmetic of one
example is exactly quadratic in its length (once per example: heads; per token: layers; per pair of
tokens: attention), what a rank adds is linear in it; so few lengths give the polynomial.

Of a model that is cut, the device's part is run to its last block and back from there; the server's
arithmetic is the rest of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel

from fslora.compression import WHOLE, Compression
from fslora.cost import AdapterCost
from fslora.dropout import Dropout
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout
from fslora.losses import device_losses
from fslora.methods.base import Method, Part
from fslora.models import blocks, enable_checkpointing, frozen_bytes
from fslora.split import held_of, run_until
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task

#: A label: the number of a token or of a class.
_LABEL_BITS = 32.0


def count_costs(
    shape: PreTrainedModel,
    layout: Layout,
    method: Method,
    rank: int,
    local: LocalTraining,
    length: int,
    task: Task,
    bits_per_number: int,
    nf4: bool = False,
    checkpointing: bool = False,
    dropout: float = 0.0,
    compression: Compression = WHOLE,
    device_blocks: int | None = None,
) -> tuple[AdapterCost, ...]:
    """Count training steps of the model's shape, for each phase of the method.

    With checkpointing the arithmetic includes what is computed again, and memory is the blocks'
    inputs plus all that the largest block saves.

    Parameters
    ----------
    shape
        The model on the `meta` device with eager attention (`fslora.models.shape_of`), in the
        number format of its weights; it is changed in place and of no use afterwards.
    layout, method
        What is trained and sent.
    rank
        Global rank r, which devices hold in some methods.
    local
        Batch size and optimizer state.
    length
        Tokens of an example of full length.
    task
        Decides the loss.
    bits_per_number
        Size of a transferred number.
    nf4
        Whether the frozen linear layers hold 4-bit weights.
    checkpointing
        Whether blocks are checkpointed.
    dropout
        LoRA dropout, whose masks are saved.
    compression
        Of uploads.
    device_blocks
        As in `Method`: where the model is cut, if it is.

    Raises
    ------
    CutError
        If it cannot be cut there.
    ModelError
        If blocks cannot be checkpointed, or devices' rows be told apart.
    """
    adapters = [Adapter.fresh(shape, layout, k, 0, torch.float32) for k in (1, 2)]
    model = StackedModel(shape, layout)
    masked = _mask_without_values(model, adapters[0], length)
    # The whole model, and what devices hold of it.
    part, held_bytes = layout, frozen_bytes(shape, nf4)
    if device_blocks is not None:
        held = held_of(model, adapters[0], masked, length, device_blocks)
        part, held_bytes = held.layout, frozen_bytes(shape, nf4, held.holds)
    phases = range(method.phases)
    parts = {method.frozen(phase) for phase in phases}
    if method.holds_all:
        parts = {None, "a", "b"}
    whole = {frozen: _Step(model, task, dropout, masked, frozen) for frozen in parts}
    steps = {frozen: replace(step, blocks=device_blocks) for frozen, step in whole.items()}
    saved = {
        frozen: [step.saved_bytes(each, local.batch, length, checkpointing) for each in adapters]
        for frozen, step in steps.items()
    }
    if checkpointing:
        enable_checkpointing(shape)
    flops = {
        frozen: _flops_by_length(step.flops, adapters, max(length, 4))
        for frozen, step in steps.items()
    }
    exchange: dict[str, Any] = {}
    if device_blocks is not None:
        (frozen,) = whole
        exchange = _exchange(
            whole[frozen], steps[frozen], adapters, max(length, 4), bits_per_number
        )
    # Of what is trained factor, gradient and optimizer state, each in 4-byte numbers.
    copies = 4 * local.state_copies

    def cost(frozen: Part | None, phase: int) -> AdapterCost:
        up = [compression.upload_bits(method, part, k, phase, bits_per_number) for k in (0, 1)]
        down = [method.numbers_down(part, k, phase) * bits_per_number for k in (0, 1)]
        saved_1, saved_2 = saved[frozen]
        still = part.numbers_of(frozen)
        per_rank = copies * (part.numbers_per_rank - still) + 4 * still
        flops_fixed, flops_per_rank = flops[frozen]
        return AdapterCost(
            upload_bits_fixed=up[0],
            upload_bits_per_rank=up[1] - up[0] + method.index_bits(rank) * len(part.layers),
            download_bits_fixed=down[0],
            download_bits_per_rank=down[1] - down[0],
            flops_fixed=flops_fixed,
            flops_per_rank=flops_per_rank,
            frozen_bytes=held_bytes,
            training_bytes_fixed=2 * saved_1 - saved_2 + copies * part.fixed_numbers,
            training_bytes_per_rank=saved_2 - saved_1 + per_rank,
            **exchange,
        )

    costs = [cost(method.frozen(phase), phase) for phase in phases]
    if method.trains_all:
        return tuple(each.holding(rank) for each in costs)
    if method.holds_all:
        still = [cost("a", 0), cost("b", 0)]
        return tuple(each.holding(rank, still) for each in costs)
    return tuple(costs)


def device_layout(
    shape: PreTrainedModel, layout: Layout, device_blocks: int, length: int
) -> Layout:
    """Adapted layers that run before a model is cut; parameters and errors as in `count_costs`."""
    adapter = Adapter.fresh(shape, layout, 1, 0, torch.float32)
    model = StackedModel(shape, layout)
    masked = _mask_without_values(model, adapter, length)
    return held_of(model, adapter, masked, length, device_blocks).layout


def _exchange(
    whole: _Step, part: _Step, adapters: Sequence[Adapter], length: int, bits_per_number: int
) -> dict[str, tuple[float, ...]]:
    """What the cost of a model that is cut has beside the device's."""

    def rest(adapter: Adapter, length: int) -> int:
        return whole.flops(adapter, length) - part.flops(adapter, length)

    fixed, per_rank = _flops_by_length(rest, adapters, length)
    numbers = float(part.hidden_width(adapters[0], length) * bits_per_number)
    # Labels are the tokens themselves, of prompts one that stands for none; or one class.
    labels = (_LABEL_BITS, 0.0) if part.task == "classification" else (0.0, _LABEL_BITS)
    return {
        "exchange_up_bits": (labels[0], labels[1] + numbers),
        "exchange_down_bits": (0.0, numbers),
        "server_flops_fixed": fixed,
        "server_flops_per_rank": per_rank,
    }


def _flops_by_length(
    flops: Callable[[Adapter, int], int], adapters: Sequence[Adapter], length: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of `AdapterCost.flops_fixed` and `flops_per_rank`, from ranks 1 and 2."""
    lengths = (length // 4, length // 2, length)
    one = [flops(adapters[0], n) for n in lengths]
    two = [flops(adapters[1], n) for n in lengths[1:]]
    constant, linear = _polynomial(lengths[1:], [b - a for a, b in zip(one[1:], two, strict=True)])
    fixed = _polynomial(
        lengths, [a - constant - linear * n for n, a in zip(lengths, one, strict=True)]
    )
    return tuple(float(value) for value in fixed), (float(constant), float(linear))


def _polynomial(at: Sequence[int], values: Sequence[int | Fraction]) -> list[Fraction]:
    """Coefficients, lowest power first, of the polynomial through the points; exact."""
    x, value = at[0], Fraction(values[0])
    if len(at) == 1:
        return [value]
    rest = [(v - value) / (t - x) for t, v in zip(at[1:], values[1:], strict=True)]
    slopes = _polynomial(at[1:], rest)
    powers = [Fraction(0), *slopes]
    for power, slope in enumerate(slopes):
        powers[power] -= x * slope
    powers[0] += value
    return powers


def _mask_without_values(model: StackedModel, adapter: Adapter, length: int) -> bool:
    """Whether the shape wants an attention mask.

    Some architectures read the values of a mask, others, given none, those of the positions, and
    tensors without storage have no values; so the form that passes is found by trying. Three
    samples also show a layer that does not act on samples.
    """
    tokens = torch.zeros((3, length), dtype=torch.int64, device="meta")
    lengths = torch.full((3,), length)
    with model.using(Stack.whole(adapter, 1.0)):
        try:
            model.logits(tokens, lengths, masked=True)
        except RuntimeError:
            model.logits(tokens, lengths, masked=False)
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Step:
    """A training step of one device, on tensors without storage.

    Of the first `blocks` blocks and what is before them, if given: forward, and backward from the
    gradient of what comes out.
    """

    model: StackedModel
    task: Task
    dropout: float
    masked: bool
    frozen: Part | None
    blocks: int | None = None

    def flops(self, adapter: Adapter, length: int) -> int:
        """Floating-point operations for one example."""
        with _Flops() as counter:
            self._run(adapter, 1, length)
        total: int = counter.total
        return total

    def saved_bytes(self, adapter: Adapter, batch: int, length: int, checkpointing: bool) -> int:
        """Bytes saved for the backward pass; with checkpointing at their peak.

        The step itself keeps everything; what a block saves is told apart by when it is saved.
        """
        resident = [*self.model.model.parameters(), *_parameters(adapter)]
        saved = _Saved({tensor.untyped_storage()._cdata for tensor in resident})
        with (
            saved.by_block(blocks(self.model.model)[: self.blocks] if checkpointing else []),
            torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor),
        ):
            self._run(adapter, batch, length)
        return saved.peak_bytes()

    def hidden_width(self, adapter: Adapter, length: int) -> int:
        """Numbers per token that come out of the part."""
        return self._run(adapter, 1, length).numel() // length

    def _run(self, adapter: Adapter, batch: int, length: int) -> Tensor:
        """The step; what comes out of the part, or the loss."""
        parameters = [
            parameter.requires_grad_(True) for parameter in _parameters(adapter, self.frozen)
        ]
        tokens = torch.zeros((batch, length), dtype=torch.int64, device="meta")
        lengths = torch.full((batch,), length)
        key = torch.zeros(1, dtype=torch.int64, device="meta")
        dropout = Dropout(self.dropout, key) if self.dropout else None
        stack = Stack.whole(adapter, 1.0).with_frozen(self.frozen)
        with self.model.using(stack, dropout):
            if self.blocks is not None:
                hidden = run_until(self.model, self.blocks, tokens, lengths, self.masked)
                back = torch.empty_like(hidden)
                torch.autograd.grad(hidden, parameters, back, allow_unused=True)
                return hidden
            logits = self.model.logits(tokens, lengths, self.masked)
            labels = torch.zeros(batch, dtype=torch.int64, device="meta")
            prompt = torch.ones(batch, dtype=torch.int64)
            loss = device_losses(logits, tokens, lengths, prompt, labels, 1, self.task)
            torch.autograd.grad(loss.sum(), parameters)
            return loss


class _Flops(TorchDispatchMode):
    """Counts as `FlopCounterMode` does, which spends half its time on telling modules apart."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class _Saved:
    """Storages saved for the backward pass: outside of blocks, and per block.

    What goes into a block is kept, so it counts outside.
    """

    def __init__(self, resident: set[int]) -> None:
        self._known = resident
        self._storages: list[torch.UntypedStorage] = []
        self._bytes = [0]
        self._block = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor's storage, once."""
        self._count(tensor, self._block)
        return tensor

    @contextmanager
    def by_block(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Count what is saved while one of these runs as that block's."""

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor):
                    self._count(value, 0)
            self._bytes.append(0)
            self._block = len(self._bytes) - 1

        def leave(*_: Any) -> None:
            self._block = 0

        handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
        handles += [block.register_forward_hook(leave) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def peak_bytes(self) -> int:
        """Bytes outside of blocks and of the largest block."""
        return self._bytes[0] + max(self._bytes[1:], default=0)

    def _count(self, tensor: Tensor, block: int) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            # Held, since the address of a freed one may return.
            self._storages.append(storage)
            self._bytes[block] += storage.nbytes()


def _parameters(adapter: Adapter, frozen: Part | None = None) -> list[Tensor]:
    """All tensors of an adapter but those of a frozen factor."""
    a = [] if frozen == "a" else adapter.a.values()
    b = [] if frozen == "b" else adapter.b.values()
    return [*a, *b, *adapter.head.values()]
