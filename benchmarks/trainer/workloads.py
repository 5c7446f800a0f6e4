"""Models and cohorts that training is timed on: random weights of a fixed seed, no download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from fslora.data.dataset import Dataset, Examples
from fslora.local import LocalTraining
from fslora.lora import LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.tasks import Task
from fslora.trainer import Learner

_SEED = 5
_CLASSES = 77

#: Spread of B at the start, as after some rounds: with B zero the gradient of A would vanish.
_SPREAD_B = 0.02


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and a cohort that trains it.

    Parameters
    ----------
    build
        Makes the model, on torch's default device, in the number format given.
    task
        Decides the loss.
    vocabulary
        Token numbers lie below.
    devices, batch, tokens
        Cohort size M, samples per step b, tokens per sample.
    learning_rate
        Large enough that rounding of the factors themselves does not show in their change.
    targets
        Adapted layers, as in `LoraSpec`.
    dtype
        Number format of the base; factors are at least single precision.
    shortest
        Tokens of the shortest sample, by default all alike.
    steps, rank
        H and r.
    pad_to
        Also time variant (a) with every sample padded to this many tokens.
    copied
        Devices that variant (a) trains, None for all; its time is scaled up.
    cuda_only
        Too large for a CPU.
    """

    build: Callable[[torch.dtype], PreTrainedModel]
    task: Task
    vocabulary: int
    devices: int
    batch: int
    tokens: int
    learning_rate: float
    targets: tuple[str, ...] = ("query", "value")
    dtype: torch.dtype = torch.float32
    shortest: int | None = None
    steps: int = 4
    rank: int = 16
    pad_to: int | None = None
    copied: int | None = None
    cuda_only: bool = False

    def base(self, device: torch.device) -> PreTrainedModel:
        """A frozen model; every call makes the same weights."""
        with torch.random.fork_rng(), device:
            torch.manual_seed(_SEED)
            model = self.build(self.dtype)
        model.requires_grad_(False)
        model.eval()
        model.config.use_cache = False
        return model

    def learner(self, base: PreTrainedModel) -> Learner:
        """Stacked training on `base`, which it wraps in place."""
        layout = find_layout(base, self.targets, heads=False)
        count = self.devices * self.batch * self.steps
        learner = Learner.start(
            base,
            layout,
            self._dataset(count),
            tuple(np.array_split(np.arange(count), self.devices)),
            LoraSpec(self.rank, float(self.rank), self.targets),
            LocalTraining(self.steps, self.batch, self.learning_rate),
            METHODS["fslora"],
            seed=_SEED,
            dtype=torch.promote_types(self.dtype, torch.float32),
        )
        draws = torch.Generator().manual_seed(_SEED)
        for factor in learner.adapter.b.values():
            factor.copy_(_SPREAD_B * torch.randn(factor.shape, generator=draws))
        return learner

    def jobs(self) -> list[Job]:
        """The cohort: ranks 2 to 8 in turn."""
        return [Job(n, 2 + n % 7, 1000 + n) for n in range(self.devices)]

    def _dataset(self, count: int) -> Dataset:
        rng = np.random.default_rng(_SEED)
        length = rng.integers(self.shortest or self.tokens, self.tokens + 1, count)
        tokens = rng.integers(1, self.vocabulary, (count, self.tokens))
        tokens[np.arange(self.tokens) >= length[:, None]] = 0
        classes = 2 if self.task == "causal-lm" else _CLASSES
        examples = Examples(
            tokens=tokens,
            length=length,
            predicted_bytes=length - 1,
            group=np.zeros(count, np.int64),
            label=rng.integers(0, classes, count),
            prompt=np.ones(count, np.int64),
        )
        names = tuple(str(name) for name in range(classes))
        return Dataset(self.task, examples, examples, ("all",), names, "random")


def bert(
    hidden: int, layers: int, heads: int, intermediate: int, vocabulary: int
) -> Callable[[torch.dtype], PreTrainedModel]:
    """Builder of a BERT encoder with a classifier of 77 classes."""
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        pad_token_id=0,
    )
    config.num_labels = _CLASSES
    return lambda dtype: BertForSequenceClassification._from_config(config, dtype=dtype)


def llama(
    hidden: int, layers: int, heads: int, groups: int, intermediate: int, vocabulary: int
) -> Callable[[torch.dtype], PreTrainedModel]:
    """Builder of a Llama language model with `groups` key-value heads and tied embeddings."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=intermediate,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    return lambda dtype: LlamaForCausalLM._from_config(config, dtype=dtype)


def _llama1b(targets: tuple[str, ...]) -> Workload:
    return Workload(
        llama(2048, 16, 32, 8, 8192, 128256),
        "causal-lm",
        128256,
        devices=32,
        batch=4,
        tokens=64,
        learning_rate=0.1,
        targets=targets,
        dtype=torch.bfloat16,
        copied=4,
        cuda_only=True,
    )


WORKLOADS: Mapping[str, Workload] = {
    "minilm": Workload(
        bert(384, 6, 12, 1536, 30522),
        "classification",
        30522,
        devices=10,
        batch=4,
        tokens=32,
        learning_rate=0.1,
        pad_to=128,
    ),
    "tiny": Workload(
        bert(128, 2, 4, 512, 1000),
        "classification",
        1000,
        devices=10,
        batch=4,
        tokens=8,
        learning_rate=0.1,
    ),
    "llama1b": _llama1b(("q_proj", "v_proj")),
    "llama1b-all-linear": _llama1b(("all-linear",)),
}
