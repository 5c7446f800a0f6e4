"""Small random transformers models with a tokenizer, as folders."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
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

from fslora.data.tokens import HubTokenizer
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


class MarkedTokenizer(HubTokenizer):
    """A tokenizer that tells its tokens' words."""

    def word(self, token: int) -> str:
        return str(self.pipeline.id_to_token(token))

    def words(self, text: str) -> list[str]:
        return [self.word(token) for token in self.running(text)[0].tolist()]


def marked_tokenizer(folder: Path, template: str, ends: bool) -> MarkedTokenizer:
    """The small tokenizer with special tokens set around `$A`; whether one is known to end texts.

    The folder is written to.
    """
    save_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    marks = ["[BOS]", "[EOS]", "[SEP]"]
    tokenizer.add_special_tokens(marks)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in marks]
    )
    return MarkedTokenizer.of(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            eos_token="[EOS]" if ends else None,
        )
    )


def config_of(kind: str, vocabulary: int) -> PretrainedConfig:
    if kind == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    if kind == "distilbert":
        return DistilBertConfig(
            vocab_size=vocabulary,
            dim=16,
            hidden_dim=24,
            n_layers=2,
            n_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            num_labels=2,
        )
    if kind == "minilm":
        # As in MiniLM-L6-H384: many narrow heads, a wide inner layer.
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=24,
            intermediate_size=96,
            num_hidden_layers=6,
            num_attention_heads=12,
            max_position_embeddings=64,
            pad_token_id=0,
            num_labels=2,
        )
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
    "gpt2": (GPT2LMHeadModel, "causal-lm"),
    "bert": (BertForSequenceClassification, "classification"),
    "minilm": (BertForSequenceClassification, "classification"),
    "roberta": (RobertaForSequenceClassification, "classification"),
    "distilbert": (DistilBertForSequenceClassification, "classification"),
}


def save_model(kind: str, folder: Path) -> Task:
    """Save a random model of a kind with its tokenizer; returns the task it is for."""
    build, task = MODELS[kind]
    torch.manual_seed(1)
    build(config_of(kind, save_tokenizer(folder))).save_pretrained(folder)  # type: ignore[operator]
    return task
