"""Base models: the one inside the package, or any Hugging Face id or folder."""

from __future__ import annotations

from fslora.models.base import (
    BUILTIN,
    CutError,
    ModelError,
    check_nf4,
    load_model,
    load_tokenizer,
    max_tokens,
    shape_of,
)
from fslora.models.checkpointing import blocks, enable_checkpointing
from fslora.models.quantized import frozen_bytes

__all__ = [
    "BUILTIN",
    "CutError",
    "ModelError",
    "blocks",
    "check_nf4",
    "enable_checkpointing",
    "frozen_bytes",
    "load_model",
    "load_tokenizer",
    "max_tokens",
    "shape_of",
]
