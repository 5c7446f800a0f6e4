"""Gradient checkpointing: a block's activations are computed again when its gradient is due.

Between forward and backward pass only the blocks' inputs are held, and within one block's backward
pass the activations of that block (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from fslora.models.base import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a model, those that transformers marks for checkpointing; outermost only."""
    return list(_outermost(model))


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Checkpoint every block of the model, in place and in every mode.

    transformers checkpoints blocks in training mode alone, which would turn their dropout on.

    Raises
    ------
    ModelError
        If the architecture has no such blocks.
    """
    from torch.utils.checkpoint import checkpoint

    found = blocks(model)
    if not found:
        raise ModelError(
            f"the blocks of a {model.config.model_type} model cannot be checkpointed; "
            "leave training.gradient_checkpointing out"
        )
    for block in found:
        # On the object, so that hooks of the block stay outside and run once. Nothing in a block is
        # drawn from a generator: its own dropout is off, and LoRA's follows from keys. What is not
        # kept cannot stop a CUDA graph either.
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
        )


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)
