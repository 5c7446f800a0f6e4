"""Gradient checkpointing: a block's activations are computed again when its gradient is due.

Between forward and backward pass only the blocks' inputs are held, and within one block's backward
pass the activations of that block (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from fslora.models.base import ModelError


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
    found = blocks(model)
    if not found:
        raise ModelError(
            f"the blocks of a {model.config.model_type} model cannot be checkpointed; "
            "leave training.gradient_checkpointing out"
        )
    for block in found:
        # On the object, so that hooks of the block stay outside and run once.
        block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Nothing in a block is drawn from a generator: its own dropout is off, and LoRA's follows from
    # keys. What is not kept cannot stop a CUDA graph either.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)
