"""Small models and data sets in double precision."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from fslora.data import Dataset, Examples
from fslora.local import LocalTraining
from fslora.lora import Adapter, LoraSpec, find_layout
from fslora.methods import METHODS, Method
from fslora.trainer import Learner

CLASSES = 3
VOCABULARY = 50


def small_model(kind: str) -> PreTrainedModel:
    """A frozen random model of a few thousand weights."""
    torch.manual_seed(5)
    llama = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "max_position_embeddings": 64,
    }
    if kind == "causal-lm":
        model = LlamaForCausalLM(LlamaConfig(**llama))
    elif kind == "classification":
        model = LlamaForSequenceClassification(LlamaConfig(**llama, num_labels=CLASSES))
    else:
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_labels=CLASSES,
                pad_token_id=0,
            )
        )
    model = model.double()
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    return model


def small_dataset(task: str, padded: bool, count: int = 60, width: int = 12) -> Dataset:
    """Random tokens; lengths differ if `padded`."""
    rng = np.random.default_rng(3)
    length = rng.integers(3, width + 1, count) if padded else np.full(count, width)
    tokens = rng.integers(1, VOCABULARY, (count, width))
    tokens[np.arange(width) >= length[:, None]] = 0
    label = rng.integers(0, CLASSES, count)
    examples = Examples(
        tokens, length, length - 1, np.zeros(count, np.int64), label, np.ones(count, np.int64)
    )
    names = tuple(str(name) for name in range(CLASSES))
    return Dataset(task, examples, examples, ("all",), names, "none")  # type: ignore[arg-type]


@pytest.fixture
def make_learner() -> Callable[..., Learner]:
    """Factory of learners on equal models, with factors away from their zero start."""

    def make(
        kind: str = "causal-lm",
        method: str | Method = "fslora",
        rank: int = 6,
        local: LocalTraining | None = None,
        padded: bool = False,
        dropout: float = 0.0,
        sizes: Sequence[int] = (12, 12, 12, 12, 12),
        device: str = "cpu",
        base: torch.dtype = torch.float64,
        **options: object,
    ) -> Learner:
        task = "causal-lm" if kind == "causal-lm" else "classification"
        model = small_model(kind).to(device, base)
        chosen = METHODS[method] if isinstance(method, str) else method
        layout = find_layout(model, ("all-linear",), heads=task == "classification")
        layout = replace(layout, core=rank if chosen.core else 0)
        dataset = small_dataset(task, padded)
        shards = tuple(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))
        adapter = Adapter.fresh(model, layout, rank, 11, torch.float64)
        draws = torch.Generator().manual_seed(17)
        for factor in adapter.b.values():
            factor.copy_(0.3 * torch.randn(factor.shape, generator=draws, dtype=torch.float64))
        return Learner.start(
            model,
            layout,
            dataset,
            shards,
            LoraSpec(rank, 8.0, dropout=dropout),
            local or LocalTraining(steps=3, batch=2, learning_rate=0.3),
            chosen,
            seed=11,
            dtype=torch.float64,
            adapter=adapter,
            **options,  # type: ignore[arg-type]
        )

    return make
