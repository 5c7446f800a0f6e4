"""Frozen weights in 4-bit NormalFloat with double quantisation (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fslora.lora import HEAD_NAMES

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

#: Weights that share a constant, and constants that share one of their own.
_BLOCK, _NESTED_BLOCK = 64, 256

#: Bytes a layer holds beside: both code books (16 and 256 floats) and the constants' mean.
_TABLES = 4 * (16 + 256 + 1)


def quantizer_missing() -> bool:
    """Whether bitsandbytes, which holds and multiplies the 4-bit weights, is not installed."""
    return find_spec("bitsandbytes") is None


def nf4_config(shape: PreTrainedModel) -> BitsAndBytesConfig:
    """How transformers is to quantise a model: every linear layer but output layer and head.

    Parameters
    ----------
    shape
        The model, with or without weights; its number format is that of the arithmetic.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=shape.dtype,
        llm_int8_skip_modules=_unquantized(shape),
    )


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep quantised layers to their ordinary kernels, in place.

    On CPUs with bfloat16 products bitsandbytes repacks a layer's weights at its first use without
    gradients, for a kernel that no later gradient gets through.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  # not declared


def frozen_bytes(
    shape: PreTrainedModel, nf4: bool, held: Callable[[Tensor], bool] = lambda _: True
) -> int:
    """Memory of a model's frozen weights in bytes.

    Parameters
    ----------
    shape
        The model, with or without weights, in its number format.
    nf4
        Whether its linear layers, but for output layer and head, hold half a byte per weight
        plus the constants of their blocks: 8 bits per 64 weights and 32 per 256 of those.
    held
        Which of the weights are counted.
    """
    import torch

    counted = filter(held, shape.parameters())
    total = sum(value.numel() * value.element_size() for value in counted)
    if nf4:
        kept = _unquantized(shape)
        for name, module in shape.named_modules():
            if _quantizable(module) and not any(_within(name, part) for part in kept):
                weight = module.weight
                assert isinstance(weight, torch.Tensor)
                if held(weight):
                    total += _nf4_bytes(weight.numel()) - weight.numel() * weight.element_size()
    return total


def _nf4_bytes(weights: int) -> int:
    constants = -(-weights // _BLOCK)
    return -(-weights // 2) + constants + 4 * -(-constants // _NESTED_BLOCK) + _TABLES


def _quantizable(module: nn.Module) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D) or type(module) is nn.Linear


def _unquantized(model: PreTrainedModel) -> list[str]:
    output = model.get_output_embeddings()
    heads = [name for name, _ in model.named_children() if name in HEAD_NAMES]
    return heads + [name for name, module in model.named_modules() if module is output]


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")
