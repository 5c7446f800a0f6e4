"""Local training of a stack: the same steps for all its devices at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fslora.batches import Batches
from fslora.dropout import Dropout, dropout_keys
from fslora.local import LocalTraining
from fslora.lora import Adapter, LoraSpec
from fslora.losses import device_losses
from fslora.methods.base import Method, Part, Slice
from fslora.optimizers import RowOptimizer
from fslora.replay import StepBatch, cuda_graphs
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task

#: Where steps are replayed, lengths are padded to a multiple of this, so that few shapes occur.
_WIDTH_STEP = 16
#: Half-precision gradients below 6e-8 vanish; a power of two moves them up and back exactly.
_HALF_LOSS_SCALE = 1024.0


class StackTrainer:
    """Trains stacks, in memory that is used again from stack to stack.

    On a GPU steps are replayed (`fslora.replay`); a replayed step does not wait for the host.

    Parameters
    ----------
    model
        Frozen base with switchable factors.
    lora, local, task
        How adapters are scaled, how devices train, and for what.
    dtype
        Number format of the trained numbers; the products are computed in the base's.
    method
        Adds its penalty to the devices' losses; no transfer rounds its personal factors.

    Attributes
    ----------
    replay
        Recorded steps; None where steps run as they are.
    """

    def __init__(
        self,
        model: StackedModel,
        lora: LoraSpec,
        local: LocalTraining,
        task: Task,
        dtype: torch.dtype,
        method: Method,
    ) -> None:
        self._model, self._method = model, method
        self._lora, self._local, self._task = lora, local, task
        self._dtype = dtype
        self._device = model.model.device
        self._loss_scale = _HALF_LOSS_SCALE if model.model.dtype == torch.float16 else 1.0
        self._memory: _Memory | None = None
        self.replay = cuda_graphs() if self._device.type == "cuda" else None

    def train(
        self,
        adapter: Adapter,
        slices: Sequence[Slice],
        batches: Batches,
        keys: Sequence[int],
        learning_rate: Sequence[float],
        wire: Callable[[Tensor], Tensor],
        own: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> tuple[Stack, NDArray[np.float64]]:
        """Train M devices from the global state, which is left as it is.

        The sum of the devices' mean losses is differentiated once per step. No device's loss
        depends on another's factors, so each gets exactly its own gradient.

        Parameters
        ----------
        adapter
            Global state.
        slices
            What each device gets of it; all freeze the same factor, if any.
        batches
            Their data.
        keys
            Seeds of their dropout.
        learning_rate
            Their step sizes.
        wire
            What transfer does to numbers.
        own
            What devices have of their own instead of the global state: see `Stack.fill`.

        Returns
        -------
        tuple of Stack and array (M,)
            The devices' changes, in memory of their own, as they arrive at the server, and the
            mean loss of each over its steps; not finite if its change is not.
        """
        width = max(piece.indices.shape[1] for piece in slices)
        stack = self._begin(adapter, slices, width, learning_rate, wire, own or [{}] * len(slices))
        keys_by_step = (
            dropout_keys(keys, batches.tokens.shape[1])
            if self._lora.dropout
            else torch.zeros(batches.tokens.shape[:2], dtype=torch.int64)
        )
        longest = batches.length.amax(dim=2).numpy()
        shortest = batches.length.amin(dim=2).numpy()
        upload = self._upload(batches, keys_by_step)
        for step in range(batches.tokens.shape[1]):
            devices = int((batches.steps > step).sum())
            need = int(longest[:devices, step].max())
            if self.replay is not None:
                need = min(-(-need // _WIDTH_STEP) * _WIDTH_STEP, upload.tokens.shape[3])
            masked = bool((shortest[:devices, step] < need).any())
            batch = StepBatch(
                upload.tokens[:devices, step, :, :need].flatten(0, 1),
                upload.length[:devices, step].flatten(),
                upload.prompt[:devices, step].flatten(),
                upload.label[:devices, step].flatten(),
                upload.keys[:devices, step],
            )
            self._run(stack, batch, masked)
        change = stack.numbers - stack.start
        delta = wire(change)
        for part in self._method.personal:
            assert self._memory is not None
            delta = torch.where(self._memory.columns(width, part), change, delta)
        loss = stack.loss.masked_fill(~delta.isfinite().all(dim=1), torch.nan).cpu().numpy()
        return Stack.unpack(delta, self._model.layout, stack.scale), loss / batches.steps

    def _begin(
        self,
        adapter: Adapter,
        slices: Sequence[Slice],
        width: int,
        learning_rate: Sequence[float],
        wire: Callable[[Tensor], Tensor],
        own: Sequence[Mapping[str, Tensor]],
    ) -> _Training:
        """What the devices start from."""
        rows, numbers = len(slices), len(slices) * self._model.layout.numbers(width)
        if self._memory is None or not self._memory.fits(rows, width):
            if self._memory is not None:
                rows, numbers = self._memory.grown(rows, width)
            if self.replay is not None:
                self.replay.forget()
            self._memory = None
            some = self._method.holds_all and not self._method.trains_all
            self._memory = _Memory(self._model, self._local, self._dtype, rows, numbers, some)
        (frozen,) = {piece.frozen for piece in slices}
        stack = self._memory.stack(len(slices), width, frozen)
        factor = [self._local.step_factor(piece.gain) for piece in slices]
        scale = np.zeros(stack.scale.shape)
        for device, piece in enumerate(slices):
            scale[device, :, : piece.indices.shape[1]] = self._lora.scale * piece.rank_gain
        _set(stack.scale, scale)
        _set(stack.step_factor, factor)
        _set(stack.learning_rate, learning_rate)
        factors = Stack.unpack(stack.numbers, self._model.layout, stack.scale)
        factors.fill(adapter, slices)
        stack.numbers.copy_(wire(stack.numbers))
        factors.fill_own(own)
        stack.start.copy_(stack.numbers)
        stack.loss.zero_()
        stack.optimizer.reset()
        if stack.trained is not None:
            trained = [piece.trained for piece in slices]
            Stack.unpack(stack.trained, self._model.layout, stack.scale).fill_ranks(trained)
        return stack

    def _upload(self, batches: Batches, keys: Tensor) -> _Uploaded:
        """The round's data on the training device, sent without waiting for it."""
        parts = (batches.tokens, batches.length, batches.prompt, batches.label, keys)
        if self._device.type == "cuda":
            parts = tuple(  # type: ignore[assignment]
                part.pin_memory().to(self._device, non_blocking=True) for part in parts
            )
        return _Uploaded(*parts)

    def _run(self, stack: _Training, batch: StepBatch, masked: bool) -> None:
        """One step, recorded and replayed where that is done."""
        if self.replay is None:
            self._step(stack, batch, masked)
            return
        batch_shape = (len(batch.dropout_key), *batch.tokens.shape, masked)
        shape = (stack.numbers.shape[1], stack.frozen, *batch_shape)
        self.replay.run(shape, batch, lambda read: self._step(stack, read, masked))

    def _step(self, stack: _Training, batch: StepBatch, masked: bool) -> None:
        devices = len(batch.dropout_key)
        numbers = stack.numbers[:devices].detach().requires_grad_()
        factors = Stack.unpack(numbers, self._model.layout, stack.scale[:devices])
        factors = factors.with_frozen(stack.frozen)
        dropout = Dropout(self._lora.dropout, batch.dropout_key) if self._lora.dropout else None
        with self._model.using(factors, dropout):
            logits = self._model.logits(batch.tokens, batch.length, masked)
            loss = device_losses(
                logits, batch.tokens, batch.length, batch.prompt, batch.label, devices, self._task
            )
            goal, penalty = loss.sum(), self._method.penalty(factors)
            if penalty is not None:
                goal = goal + penalty
            # Checkpointed blocks run again on the way back, with the same factors.
            (gradient,) = torch.autograd.grad(goal * self._loss_scale, [numbers])
        with torch.no_grad():
            stack.loss[:devices].add_(loss.detach())
            if self._loss_scale != 1.0:
                gradient.div_(self._loss_scale)
            stack.optimizer.step(gradient)


@dataclass(frozen=True, slots=True)
class _Uploaded:
    tokens: Tensor
    length: Tensor
    prompt: Tensor
    label: Tensor
    keys: Tensor


class _Memory:
    """What stacks train, at addresses that stay.

    A stack of M devices with P numbers each takes the first M P numbers of every array, so a
    device's row lies at the same place in any stack of its width.
    """

    def __init__(
        self,
        model: StackedModel,
        local: LocalTraining,
        dtype: torch.dtype,
        rows: int,
        numbers: int,
        some: bool,
    ) -> None:
        device = model.model.device
        self._layout, self._local = model.layout, local
        self._flat = [
            torch.empty(numbers, dtype=dtype, device=device) for _ in range(local.state_copies)
        ]
        self._trained = torch.empty(numbers, dtype=dtype, device=device) if some else None
        ranks = numbers // model.layout.numbers_per_rank + 1
        self._scale = torch.empty(ranks * len(model.layout.layers), dtype=dtype, device=device)
        self._learning_rate = torch.empty((rows, 1), dtype=dtype, device=device)
        self._step_factor = torch.empty((rows, 1), dtype=dtype, device=device)
        self._loss = torch.empty(rows, dtype=torch.float64, device=device)
        self._count = torch.zeros((), dtype=torch.float64, device=device)
        self._columns: dict[tuple[int, Part], Tensor] = {}

    def fits(self, devices: int, width: int) -> bool:
        """Whether there is room for a stack."""
        return devices <= len(self._loss) and devices * self._layout.numbers(width) <= len(
            self._flat[0]
        )

    def grown(self, devices: int, width: int) -> tuple[int, int]:
        """Rows and numbers that have room for a stack and for all that had room before."""
        return max(devices, len(self._loss)), max(
            devices * self._layout.numbers(width), len(self._flat[0])
        )

    def stack(self, devices: int, width: int, frozen: Part | None) -> _Training:
        """The part of a stack."""
        shape = (devices, self._layout.numbers(width))
        numbers, start, *state = (flat[: shape[0] * shape[1]].view(shape) for flat in self._flat)
        scale_shape = (devices, len(self._layout.layers), width)
        scale = self._scale[: math.prod(scale_shape)].view(scale_shape)
        rate, factor = self._learning_rate[:devices], self._step_factor[:devices]
        trained = still = None
        if self._trained is not None:
            trained = self._trained[: shape[0] * shape[1]].view(shape)
        if frozen is not None:
            still = (~self.columns(width, frozen)).to(numbers.dtype)
        optimizer = RowOptimizer(
            self._local,
            numbers,
            start,
            rate,
            factor,
            width * self._layout.numbers_per_rank,
            state,
            self._count,
            still if trained is None else trained,
        )
        loss = self._loss[:devices]
        return _Training(numbers, start, scale, rate, factor, loss, optimizer, frozen, trained)

    def columns(self, width: int, part: Part) -> Tensor:
        """Which columns of a stack, (P,), hold one of the factors."""
        if (width, part) not in self._columns:
            mask = torch.zeros((1, self._layout.numbers(width)), device=self._count.device)
            factors = Stack.unpack(mask, self._layout, mask)
            for value in (factors.a if part == "a" else factors.b).values():
                value.fill_(1.0)
            self._columns[width, part] = mask[0] > 0
        return self._columns[width, part]


@dataclass(frozen=True, slots=True)
class _Training:
    """A stack in training: its numbers, where they began, and what steps them.

    Parameters
    ----------
    numbers, start
        (M, P).
    scale
        (M, layers, k_max): s times the gain of each device's ranks.
    learning_rate, step_factor
        (M, 1).
    loss
        (M,) sum over the steps so far.
    optimizer
        Moves `numbers`.
    frozen
        Factor that is not trained, if any.
    trained
        (M, P) one for what is trained, zero for what is not; None where all devices train the same.
    """

    numbers: Tensor
    start: Tensor
    scale: Tensor
    learning_rate: Tensor
    step_factor: Tensor
    loss: Tensor
    optimizer: RowOptimizer
    frozen: Part | None
    trained: Tensor | None


def _set(into: Tensor, values: Sequence[float] | NDArray[np.float64]) -> None:
    """Write values, rounded once."""
    given = torch.as_tensor(np.asarray(values, dtype=np.float64)).view(into.shape)
    into.copy_(given.to(into.dtype))
