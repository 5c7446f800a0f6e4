"""The model inside the package, and transformers models from a folder."""

import csv
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaForSequenceClassification,
)

from fslora.cost import count_cost
from fslora.data import Corpus, Document, load_stdlib, partition, tokenize
from fslora.evaluate import evaluate
from fslora.local import LocalTraining
from fslora.lora import Adapter, LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import (
    BUILTIN,
    ModelError,
    load_model,
    load_tokenizer,
    max_tokens,
    shape_of,
)
from fslora.models.tiny_llama import WEIGHTS_FOLDER
from fslora.reference import train_alone
from fslora.save import save_adapter
from fslora.stacked import Stack, StackedModel
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
        count_cost(model, layout, METHODS["fslora"], 2, local, 8, "classification", 32, 4)


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
