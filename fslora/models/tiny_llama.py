"""`builtin:tiny-llama`: a byte-level Llama of 886 k parameters whose weights lie in the package.

Half-precision weights, pre-trained by `python -m fslora.models.pretrain` on the single-file modules
of the standard library; the packages that `builtin:stdlib` serves were never seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig

#: Folder with `model.safetensors` and `pretrain.csv`, the log of the held-out loss.
WEIGHTS_FOLDER = Path(__file__).parent / "tiny_llama"

#: One token per byte; byte 0 does not occur in text and pads.
VOCABULARY = 256
PAD_TOKEN = 0


def tiny_llama_config() -> LlamaConfig:
    """Shape of the model: 4 layers, width 128, 4 heads, 512 positions, tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=PAD_TOKEN,
        bos_token_id=None,
        eos_token_id=None,
    )
