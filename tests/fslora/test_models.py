"""The model inside the package, and transformers models from a folder."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForCausalLM,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaForSequenceClassification,
)

from fslora.counting import count_costs
from fslora.data import Corpus, Document, load_stdlib, partition, tokenize
from fslora.evaluate import evaluate
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout, LoraSpec, UnknownHead, find_layout
from fslora.methods import METHODS, Job
from fslora.models import (
    BUILTIN,
    ModelError,
    blocks,
    enable_checkpointing,
    frozen_bytes,
    load_model,
    load_tokenizer,
    max_tokens,
    shape_of,
)
from fslora.models.reading import skip_unread_positions
from fslora.models.tiny_llama import WEIGHTS_FOLDER
from fslora.peft_io import save_adapter
from fslora.reference import train_alone
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task
from fslora.trainer import Learner
from tests.hub import MODELS, TEXT, config_of, save_model


@pytest.mark.parametrize("kind", MODELS)
def test_model_from_a_folder_trains_and_its_adapter_opens_with_peft(
    kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    task = save_model(kind, folder)

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
        StackedModel(model, layout), Stack.whole(adapter, 1.0), dataset.held_out, "causal-lm", 32
    )
    # Fresh factors change nothing; a byte costs ln 256 = 5.55 nats without a model.
    assert found.loss < 1.35
    assert found.metrics["bits_per_byte"] == pytest.approx(found.loss / math.log(2), rel=1e-12)


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


def test_every_byte_of_text_is_counted_once(tmp_path: Path) -> None:
    text = "né 🙂  x,\n\tünï "
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    tokens, size = load_tokenizer(str(tmp_path)).running(text)
    assert size.sum() == len(text.encode())
    assert len(tokens) > len(text)
    assert (size >= 0).all()


def test_layer_that_acts_on_no_samples_is_refused() -> None:
    # DeBERTa sends one table of relative positions through its query and key layers.
    config = DebertaV2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        share_att_key=True,
        num_labels=2,
    )
    with torch.device("meta"):
        model = DebertaV2ForSequenceClassification(config)
    model.requires_grad_(False)
    layout = find_layout(model, ("all-linear",), heads=True)
    local = LocalTraining(1, 1, 0.1)
    with pytest.raises(ModelError, match="not one row per sample"):
        count_costs(model, layout, METHODS["fslora"], 16, local, 8, "classification", 32)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}),
        encoding="utf-8",
    )
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')\n", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        shape_of(str(tmp_path), "causal-lm", 0, 0, torch.float32)


def test_positions_of_roberta_start_behind_its_padding() -> None:
    with torch.device("meta"):
        model = RobertaForSequenceClassification(config_of("roberta", 40))
    assert max_tokens(model) == 63
    assert max_tokens(shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32)) == 512


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(config_of("llama", 90))
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_model(str(tmp_path), "causal-lm", 0, 0, 0, torch.float32)


def random_stack(model: PreTrainedModel, layout: Layout) -> tuple[Stack, list[torch.Tensor]]:
    """Random factors of one device, and the tensors to differentiate by."""
    adapter = Adapter.fresh(model, layout, 3, 0, torch.float64)
    draws = torch.Generator().manual_seed(4)
    for factor in adapter.b.values():
        factor.copy_(torch.randn(factor.shape, generator=draws, dtype=torch.float64))
    factors = [*adapter.a.values(), *adapter.b.values(), *adapter.head.values()]
    for factor in factors:
        factor.requires_grad_(True)
    return Stack.whole(adapter, 0.5), factors


@pytest.mark.parametrize("kind", [*MODELS, "opt"])
def test_checkpointing_changes_no_gradient_and_turns_no_dropout_on(kind: str) -> None:
    if kind == "opt":
        # A block that reads its own mode for its dropout.
        config: PretrainedConfig = OPTConfig(
            vocab_size=40,
            hidden_size=16,
            ffn_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=16,
            dropout=0.1,
            pad_token_id=0,
        )
        build: Any = OPTForCausalLM
        task: Task = "causal-lm"
    else:
        config = config_of(kind, 40)
        build, task = MODELS[kind]
    if kind == "bert":
        assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    config.use_cache = False
    tokens = torch.randint(1, 40, (4, 9), generator=torch.Generator().manual_seed(2))
    length = torch.tensor([9, 5, 9, 2])

    def gradients(checkpointing: bool) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        model = build(config).double().eval()
        model.requires_grad_(False)
        layout = find_layout(model, "all-linear", heads=task == "classification")
        if checkpointing:
            enable_checkpointing(model)
        computed = [0] * len(blocks(model))
        for number, block in enumerate(blocks(model)):
            # The norms and products of a block run within it, hooks of the block itself do not.
            first = next(module for module in block.modules() if not list(module.children()))

            def count(*_: Any, number: int = number) -> None:
                computed[number] += 1

            first.register_forward_hook(count)
        assert not any(module.training for module in model.modules())
        stack, factors = random_stack(model, layout)
        stacked = StackedModel(model, layout)
        with stacked.using(stack):
            loss = stacked.logits(tokens, length).square().sum()
            found = torch.autograd.grad(loss, factors)
        assert computed == [2 if checkpointing else 1] * len(computed)
        return found

    plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) > 0
    for one, other in zip(plain, checkpointed, strict=True):
        assert torch.equal(one, other)


def test_model_without_blocks_cannot_be_checkpointed() -> None:
    model = AlbertForSequenceClassification(
        AlbertConfig(
            vocab_size=40,
            embedding_size=8,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
    with pytest.raises(ModelError, match=r"albert model .* training.gradient_checkpointing"):
        enable_checkpointing(model)


def test_checkpointed_training_gives_the_same_updates(
    make_learner: Callable[..., Learner],
) -> None:
    jobs = [Job(0, 6, 5), Job(2, 3, 6)]
    plain = make_learner(dropout=0.2)
    checkpointed = make_learner(dropout=0.2)
    enable_checkpointing(checkpointed.model.model)
    for one, other in zip(plain.train(jobs), checkpointed.train(jobs), strict=True):
        assert one.loss == other.loss
        for name, delta in one.delta_a.items():
            assert torch.equal(delta, other.delta_a[name])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_four_bit_model_is_the_model_of_its_rounded_weights(kind: str, tmp_path: Path) -> None:
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes holds the 4-bit weights")
    task = save_model(kind, tmp_path)
    quantized, rounded = (
        load_model(str(tmp_path), task, 2, 0, 3, torch.bfloat16, nf4) for nf4 in (True, False)
    )
    shape = shape_of(str(tmp_path), task, 2, 0, torch.bfloat16)
    layout = find_layout(shape, "all-linear", heads=task == "classification")
    assert find_layout(quantized, "all-linear", task == "classification").layers == layout.layers
    assert all(type(quantized.get_submodule(name)) is nn.Linear for name in layout.heads)
    size = sum(value.nbytes for value in quantized.parameters())
    for name in layout.layers:
        weight = quantized.get_submodule(name).weight
        state = weight.quant_state
        parts = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
        size += sum(part.nbytes for part in parts)
        value = bnb.functional.dequantize_4bit(weight.data, state)
        whole = rounded.get_submodule(name).weight
        whole.copy_(value.T if name in layout.transposed else value)
    assert frozen_bytes(shape, nf4=True) == size

    tokens = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(2))
    length = torch.full((2,), 9)

    def step(model: PreTrainedModel) -> list[torch.Tensor]:
        adapter = Adapter.fresh(model, layout, 3, 0, torch.float32)
        for factor in adapter.b.values():
            factor.fill_(0.1).requires_grad_(True)
        stacked = StackedModel(model, layout)
        with stacked.using(Stack.whole(adapter, 0.5)):
            with torch.no_grad():
                seen = stacked.logits(tokens, length)
            logits = stacked.logits(tokens, length)
            loss = logits.float().square().sum()
            return [seen, logits, *torch.autograd.grad(loss, list(adapter.b.values()))]

    for found, expected in zip(step(quantized), step(rounded), strict=True):
        assert bool(expected.any())
        torch.testing.assert_close(found, expected)


def test_four_bit_weights_without_the_extra_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fslora.models.base.quantizer_missing", lambda: True)
    with pytest.raises(ModelError, match=r"pip install 'fslora-sim\[quantized\]'"):
        load_model("any", "causal-lm", 0, 0, 0, torch.bfloat16, nf4=True)
    with pytest.raises(ModelError, match="too small to gain"):
        load_model(BUILTIN, "causal-lm", 0, 0, 0, torch.bfloat16, nf4=True)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_positions_no_head_reads_change_nothing(kind: str) -> None:
    build, _ = MODELS[kind]
    torch.manual_seed(3)
    model = build(config_of(kind, 40)).double().eval()  # type: ignore[operator]
    tokens = torch.randint(2, 40, (5, 12))
    mask = (torch.arange(12) < torch.tensor([12, 3, 7, 1, 12]).unsqueeze(1)).long()
    weights = [p for name, p in model.named_parameters() if "query" in name or "output" in name]

    def logits_and_gradients() -> list[torch.Tensor]:
        logits = model(input_ids=tokens, attention_mask=mask).logits
        return [logits, *torch.autograd.grad(logits.square().sum(), weights)]

    whole = logits_and_gradients()
    assert skip_unread_positions(model)
    for mine, theirs in zip(logits_and_gradients(), whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", ["llama", "distilbert"])
def test_other_families_compute_every_position(kind: str) -> None:
    build, _ = MODELS[kind]
    assert not skip_unread_positions(build(config_of(kind, 40)))  # type: ignore[arg-type]


def test_head_of_another_name_is_refused() -> None:
    build, _ = MODELS["llama"]
    with pytest.raises(UnknownHead, match="would stay as it was drawn; choose another model"):
        find_layout(build(config_of("llama", 40)), ("all-linear",), heads=True)  # type: ignore[arg-type]
