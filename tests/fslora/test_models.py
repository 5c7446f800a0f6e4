"""The model inside the package, and transformers models from a folder."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
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

from fslora.data import Corpus, Document, load_stdlib, partition, tokenize
from fslora.evaluate import evaluate
from fslora.local import LocalTraining
from fslora.lora import Adapter, LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import BUILTIN, ModelError, load_model, load_tokenizer
from fslora.models.tiny_llama import WEIGHTS_FOLDER
from fslora.reference import train_alone
from fslora.save import save_adapter
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task
from fslora.trainer import Learner

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


@pytest.mark.parametrize("kind", MODELS)
def test_model_from_a_folder_trains_and_its_adapter_opens_with_peft(
    kind: str, tmp_path: Path
) -> None:
    build, task = MODELS[kind]
    folder = tmp_path / "model"
    torch.manual_seed(1)
    build(config_of(kind, save_tokenizer(folder))).save_pretrained(folder)  # type: ignore[operator]

    words = TEXT.split()
    documents = tuple(
        Document(" ".join(words[n % 7 : n % 7 + 3 + n % 5]), 0, n % 2) for n in range(24)
    )
    corpus = Corpus(documents, documents[:6], ("all",), ("no", "yes"), continuous=False)
    tokenizer = load_tokenizer(str(folder))
    dataset = tokenize(corpus, tokenizer, task, 16, 10)

    def base() -> torch.nn.Module:
        return load_model(str(folder), task, 2, tokenizer.pad_token, 3, torch.float32)

    model = base()
    layout = find_layout(model, ("all-linear",), heads=task == "classification")  # type: ignore[arg-type]
    assert bool(layout.heads) == (task == "classification")
    learner = Learner.start(
        model,  # type: ignore[arg-type]
        layout,
        dataset,
        partition(dataset.train, "iid", 3, 0),
        LoraSpec(4, 4.0),
        LocalTraining(2, 2, 0.1),
        METHODS["fslora"],
        seed=0,
    )
    jobs = [Job(0, 4, 5), Job(2, 2, 6)]
    updates = learner.train(jobs)
    for job, update in zip(jobs, updates, strict=True):
        alone = train_alone(learner, job)
        for name, delta in update.delta_b.items():
            torch.testing.assert_close(delta, alone.delta_b[name], atol=1e-5, rtol=1e-3)
    learner.aggregate(updates, [1.0, 1.0])

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_adapter(adapter, learner.model.model, layout, learner.lora, learner.adapter, task)
    with torch.no_grad():
        tokens = torch.from_numpy(dataset.held_out.tokens)
        length = torch.from_numpy(dataset.held_out.length)
        with learner.model.using(Stack.whole(learner.adapter, learner.lora.scale)):
            ours = learner.model.logits(tokens, length)
        opened = PeftModel.from_pretrained(base(), str(adapter)).eval()  # type: ignore[arg-type]
        mask = (torch.arange(tokens.shape[1]) < length.unsqueeze(1)).long()
        theirs = opened(input_ids=tokens, attention_mask=mask).logits
    rows = mask.bool() if task == "causal-lm" else slice(None)
    torch.testing.assert_close(ours[rows], theirs[rows], atol=1e-5, rtol=1e-4)


def test_built_in_model_knows_held_out_packages() -> None:
    corpus = load_stdlib()
    dataset = tokenize(corpus, load_tokenizer(BUILTIN), "causal-lm", 128, 8)
    model = load_model(BUILTIN, "causal-lm", 0, 0, 0, torch.float32)
    layout = find_layout(model, ("all-linear",), heads=False)
    adapter = Adapter.fresh(model, layout, 4, 0, torch.float32)
    found = evaluate(
        StackedModel(model, layout), Stack.whole(adapter, 1.0), dataset.held_out, "causal-lm"
    )
    # Fresh factors change nothing; a byte costs ln 256 = 5.55 nats without a model.
    assert found.loss < 1.35
    assert found.metric == pytest.approx(found.loss / 0.6931471805599453, rel=1e-12)


def test_weights_are_small_and_come_with_their_log() -> None:
    assert (WEIGHTS_FOLDER / "model.safetensors").stat().st_size <= 2.5e6
    with (WEIGHTS_FOLDER / "pretrain.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["held_out_loss"]) <= 1.30 < float(rows[0]["held_out_loss"])


def test_new_heads_follow_the_seed() -> None:
    def head(seed: int) -> torch.Tensor:
        model = load_model(BUILTIN, "classification", 4, 0, seed, torch.float32)
        return model.get_submodule("score").weight  # type: ignore[return-value]

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_missing_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded .*builtin:tiny-llama"):
        load_tokenizer(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(tmp_path / "nowhere"), "causal-lm", 0, 0, 0, torch.float32)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(config_of("llama", 90))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_model(str(tmp_path), "causal-lm", 0, 0, 0, torch.float32)
