"""What one device's round costs, as a function of its rank: traffic, arithmetic, memory.

Counted on the model's own shapes, not estimated by a formula: a training step of the model runs on
tensors without storage while every matrix product and every tensor saved for the backward pass is
added up. Both are exactly linear in the rank, so two ranks give the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout
from fslora.losses import device_losses
from fslora.methods.base import Method
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task


@dataclass(frozen=True, slots=True)
class AdapterCost:
    """Cost of training a rank-k sketch; every quantity is a line in k.

    Parameters
    ----------
    upload_bits_fixed, upload_bits_per_rank
        Bits one device uploads: fixed (heads) plus k times the other.
    download_bits
        Bits the server broadcasts in a round.
    flops_per_token_fixed, flops_per_token_per_rank
        Floating-point operations of one training step per token (a multiply-add counts two).
    frozen_bytes
        Memory of the frozen weights.
    training_bytes_fixed, training_bytes_per_rank
        Memory of the activations one step saves, and of the adapter with its gradient and
        optimizer state.
    """

    upload_bits_fixed: int
    upload_bits_per_rank: int
    download_bits: int
    flops_per_token_fixed: float
    flops_per_token_per_rank: float
    frozen_bytes: int
    training_bytes_fixed: int
    training_bytes_per_rank: int

    def upload_bits(self, rank: ArrayLike) -> NDArray[np.float64]:
        """Upload in bits at the given ranks."""
        return self.upload_bits_fixed + np.asarray(rank) * float(self.upload_bits_per_rank)

    def flops(self, rank: ArrayLike, tokens: ArrayLike) -> NDArray[np.float64]:
        """Floating-point operations of training on `tokens` tokens."""
        per_token = self.flops_per_token_fixed + np.asarray(rank) * self.flops_per_token_per_rank
        return np.asarray(tokens) * per_token

    def training_bytes(self, rank: int) -> int:
        """Memory that one device's training takes beside the frozen weights."""
        return self.training_bytes_fixed + rank * self.training_bytes_per_rank

    def rank_cap(self, memory_bytes: ArrayLike, rank: int) -> NDArray[np.int64]:
        """Largest rank that fits into the memory, at most `rank`; 0 where not even 1 fits."""
        held = self.frozen_bytes + self.training_bytes_fixed
        spare = np.asarray(memory_bytes, dtype=np.float64) - held
        fits = np.floor(spare / self.training_bytes_per_rank)
        return np.clip(fits, 0, rank).astype(np.int64)


def count_cost(
    shape: PreTrainedModel,
    layout: Layout,
    method: Method,
    rank: int,
    local: LocalTraining,
    length: int,
    task: Task,
    bits_per_number: int,
    weight_bytes: int,
) -> AdapterCost:
    """Count one training step of the model's shape at two ranks.

    Parameters
    ----------
    shape
        The model on the `meta` device with eager attention (`fslora.models.shape_of`); its layers
        are wrapped in place.
    layout, method, rank
        What is trained and sent, at which global rank.
    local
        Batch size and optimizer state.
    length
        Tokens per example.
    task
        Decides the loss.
    bits_per_number
        Size of a transferred number.
    weight_bytes
        Size of one frozen weight in memory.
    """
    one, two = (Adapter.fresh(shape, layout, k, 0, torch.float32) for k in (1, 2))
    model = StackedModel(shape, layout)
    masked = _mask_without_values(model, one, length)
    flops_1, saved_1 = _count_step(model, one, local.batch, length, task, masked)
    flops_2, saved_2 = _count_step(model, two, local.batch, length, task, masked)
    tokens = local.batch * length
    # Factor, gradient and, with momentum, velocity, each in 4-byte numbers.
    copies = 4 * (3 if local.momentum else 2)
    frozen = sum(parameter.numel() for parameter in shape.parameters()) * weight_bytes
    fixed_saved = 2 * saved_1 - saved_2
    return AdapterCost(
        upload_bits_fixed=method.numbers_up(layout, 0) * bits_per_number,
        upload_bits_per_rank=(method.numbers_up(layout, 1) - method.numbers_up(layout, 0))
        * bits_per_number,
        download_bits=method.numbers_down(layout, rank) * bits_per_number,
        flops_per_token_fixed=(2 * flops_1 - flops_2) / tokens,
        flops_per_token_per_rank=(flops_2 - flops_1) / tokens,
        frozen_bytes=frozen,
        training_bytes_fixed=fixed_saved + copies * layout.head_numbers,
        training_bytes_per_rank=saved_2 - saved_1 + copies * layout.numbers_per_rank,
    )


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


def _count_step(
    model: StackedModel, adapter: Adapter, batch: int, length: int, task: Task, masked: bool
) -> tuple[int, int]:
    """Floating-point operations, and bytes saved for the backward pass, of one device's step."""
    stack = Stack.whole(adapter, 1.0)
    parameters = stack.parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    tokens = torch.zeros((batch, length), dtype=torch.int64, device="meta")
    lengths = torch.full((batch,), length)
    saved: dict[int, torch.UntypedStorage] = {}
    resident = {
        tensor.untyped_storage()._cdata for tensor in (*model.model.parameters(), *parameters)
    }

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in resident:
            saved[storage._cdata] = storage
        return tensor

    counter = FlopCounterMode(display=False)
    with (
        counter,
        model.using(stack),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        logits = model.logits(tokens, lengths, masked)
        labels = torch.zeros(batch, dtype=torch.int64, device="meta")
        prompt = torch.ones(batch, dtype=torch.int64)
        loss = device_losses(logits, tokens, lengths, prompt, labels, 1, task)
        torch.autograd.grad(loss.sum(), parameters)
    return counter.get_total_flops(), sum(storage.nbytes() for storage in saved.values())
