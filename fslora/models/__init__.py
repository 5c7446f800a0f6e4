"""Base models: the one inside the package, or any Hugging Face id or folder."""

from __future__ import annotations

from fslora.models.base import (
    BUILTIN,
    ModelError,
    load_model,
    load_tokenizer,
    max_tokens,
    shape_of,
)

__all__ = ["BUILTIN", "ModelError", "load_model", "load_tokenizer", "max_tokens", "shape_of"]
