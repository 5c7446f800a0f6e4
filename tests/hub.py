"""Small random transformers models with a tokenizer, as folders."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from fslora.tasks import Task

TEXT = "the quick brown fox jumps over the lazy dog and runs away from the slow red hen "


def save_tokenizer(folder: Path) -> int:
    """A small word-piece-like BPE tokenizer; returns the size of its vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["[PAD]", "[UNK]"])
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder)
    return len(fast)


def config_of(kind: str, vocabulary: int) -> PretrainedConfig:
    common = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    if kind in ("bert", "roberta"):
        return {"bert": BertConfig, "roberta": RobertaConfig}[kind](**common, num_labels=2)
    decoder = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[kind]
    return decoder(**common, num_key_value_heads=1)


MODELS: dict[str, tuple[Callable[..., torch.nn.Module], Task]] = {
    "llama": (LlamaForCausalLM, "causal-lm"),
    "qwen2": (Qwen2ForCausalLM, "causal-lm"),
    "mistral": (MistralForCausalLM, "causal-lm"),
    "bert": (BertForSequenceClassification, "classification"),
    "roberta": (RobertaForSequenceClassification, "classification"),
}


def save_model(kind: str, folder: Path) -> Task:
    """Save a random model of a kind with its tokenizer; returns the task it is for."""
    build, task = MODELS[kind]
    torch.manual_seed(1)
    build(config_of(kind, save_tokenizer(folder))).save_pretrained(folder)  # type: ignore[operator]
    return task
