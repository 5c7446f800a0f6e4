"""Adapters that PEFT writes and reads, held against PEFT itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from fslora.lora import Adapter, Layout, LoraSpec, Targets, find_layout
from fslora.peft_io import AdapterError, check_adapter, load_adapter, save_adapter
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Task
from tests.hub import MODELS, config_of

#: Every kind with each task it has.
KINDS: list[tuple[str, Task]] = [
    *((kind, "classification") for kind in MODELS),
    *((kind, "causal-lm") for kind in MODELS if kind != "distilbert"),
]
TASK_TYPE = {"causal-lm": TaskType.CAUSAL_LM, "classification": TaskType.SEQ_CLS}
LORA = LoraSpec(4, 8.0, dropout=0.1, rslora=True)


def base(kind: str, task: Task) -> PreTrainedModel:
    """A random frozen model, the same at every call."""
    auto = AutoModelForCausalLM if task == "causal-lm" else AutoModelForSequenceClassification
    config = config_of(kind, 40)
    config.is_decoder = task == "causal-lm" and kind in ("bert", "minilm", "roberta")
    torch.manual_seed(7)
    model: PreTrainedModel = auto.from_config(config)
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    return model


def layout_of(kind: str, task: Task, targets: Targets = "all-linear") -> Layout:
    return find_layout(base(kind, task), targets, heads=task == "classification")


def in_peft(kind: str, task: Task, targets: Targets, **options: Any) -> PeftModel:
    """The model as PEFT adapts it, with random factors and heads."""
    layout = layout_of(kind, task)
    config = LoraConfig(
        task_type=TASK_TYPE[task],
        r=LORA.rank,
        lora_alpha=8,
        use_rslora=LORA.rslora,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=sorted({name.split(".")[0] for name in layout.heads}) or None,
        **options,
    )
    model = get_peft_model(base(kind, task), config)
    torch.manual_seed(8)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.normal_(0, 0.3)
    return model.eval()


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    tokens[1, 5:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def our_logits(kind: str, task: Task, layout: Layout, adapter: Adapter) -> torch.Tensor:
    model = StackedModel(base(kind, task), layout)
    inputs = batch()
    with torch.no_grad(), model.using(Stack.whole(adapter, LORA.scale)):
        return model.logits(inputs["input_ids"], inputs["attention_mask"].sum(1), masked=True)


def same_logits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal wherever there is a token."""
    rows = batch()["attention_mask"].bool() if ours.ndim == 3 else slice(None)
    torch.testing.assert_close(ours[rows], theirs[rows], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_targets_mean_what_they_mean_in_peft(kind: str, task: Task) -> None:
    every = layout_of(kind, task)
    names = list(every.layers)
    last = names[-1].rsplit(".", 1)[-1]
    choices: list[Targets] = [
        "all-linear",
        (last,),
        (names[0], ".".join(names[-1].rsplit(".", 2)[-2:])),
        r".*\.(0|1)\..*" + last,
    ]
    for targets in choices:
        peft = in_peft(kind, task, targets)
        adapted = {
            name: (module.in_features, module.out_features)
            for name, module in peft.get_base_model().named_modules()
            if isinstance(module, LoraLayer)
        }
        assert layout_of(kind, task, targets).layers == adapted


def test_all_linear_needs_no_list_around_it() -> None:
    assert layout_of("llama", "causal-lm", ("all-linear",)) == layout_of("llama", "causal-lm")


def test_output_layer_is_adapted_when_it_is_named() -> None:
    layout = layout_of("gpt2", "causal-lm", ("c_attn", "lm_head"))
    assert list(layout.layers)[-1] == "lm_head"
    assert layout.transposed == {"transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"}


def test_targets_that_match_nothing_are_named() -> None:
    with pytest.raises(ValueError, match=r"'q_prj'; this model has .*q_proj"):
        layout_of("llama", "causal-lm", ("v_proj", "q_prj"))
    with pytest.raises(ValueError, match=r"no linear layer is named '.\*query'"):
        layout_of("llama", "causal-lm", ".*query")
    with pytest.raises(ValueError, match="not a regular expression"):
        layout_of("llama", "causal-lm", "(q_proj")
    with pytest.raises(ValueError, match="'classifier'"):
        layout_of("bert", "classification", ("classifier",))


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_written_adapter_opens_with_peft(kind: str, task: Task, tmp_path: Path) -> None:
    layout = layout_of(kind, task)
    adapter = Adapter.fresh(base(kind, task), layout, LORA.rank, 3, torch.float32)
    torch.manual_seed(9)
    for value in (*adapter.b.values(), *adapter.head.values()):
        value.normal_(0, 0.3)
    save_adapter(tmp_path, base(kind, task), layout, LORA, adapter, task)

    opened = PeftModel.from_pretrained(base(kind, task), str(tmp_path)).eval()
    config = opened.peft_config["default"]
    assert config.use_rslora
    assert config.lora_dropout == LORA.dropout
    assert config.fan_in_fan_out == (kind == "gpt2")
    with torch.no_grad():
        theirs = opened(**batch()).logits
        plain = base(kind, task)(**batch()).logits
    same_logits(our_logits(kind, task, layout, adapter), theirs)
    assert not torch.allclose(plain, theirs, atol=1e-2)

    again = load_adapter(tmp_path, base(kind, task), layout, LORA, torch.float32)
    for mine, read in ((adapter.a, again.a), (adapter.b, again.b), (adapter.head, again.head)):
        assert list(mine) == list(read)
        assert all(torch.equal(value, read[name]) for name, value in mine.items())


def test_written_files_are_the_same_each_time(tmp_path: Path) -> None:
    layout = layout_of("bert", "classification")
    files = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        model = base("bert", "classification")
        adapter = Adapter.fresh(model, layout, LORA.rank, 3, torch.float32)
        save_adapter(folder, model, layout, LORA, adapter, "classification")
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert config["target_modules"] == sorted(layout.layers)
        files.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert files[0] == files[1]


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_adapter_that_peft_wrote_is_a_starting_point(kind: str, task: Task, tmp_path: Path) -> None:
    peft = in_peft(kind, task, "all-linear", lora_dropout=0.3)
    peft.save_pretrained(str(tmp_path))
    layout = layout_of(kind, task)
    adapter = load_adapter(tmp_path, base(kind, task), layout, LORA, torch.float32)
    with torch.no_grad():
        theirs = peft(**batch()).logits
    same_logits(our_logits(kind, task, layout, adapter), theirs)
    half = load_adapter(tmp_path, base(kind, task), layout, LORA, torch.bfloat16)
    assert {value.dtype for value in (*half.a.values(), *half.head.values())} == {torch.bfloat16}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., None]:
    """Write PEFT's adapter of a BERT classifier, change its settings, and check it."""

    def check(
        changes: dict[str, Any] | None = None,
        lora: LoraSpec = LORA,
        targets: Targets = "all-linear",
        edit: Callable[[dict[str, torch.Tensor]], None] = lambda _: None,
    ) -> None:
        peft = in_peft("bert", "classification", "all-linear")
        peft.save_pretrained(str(tmp_path))
        path = tmp_path / "adapter_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | (changes or {})
        path.write_text(json.dumps(config), encoding="utf-8")
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        edit(tensors)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        check_adapter(tmp_path, layout_of("bert", "classification", targets), lora)

    return check


def test_unchanged_adapter_is_accepted(written: Callable[..., None]) -> None:
    written()
    written({"init_lora_weights": "gaussian", "lora_dropout": 0.5, "layers_to_transform": []})


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (LoraSpec(8, 8.0, rslora=True), r"r = 4, but lora.rank = 8; set lora.rank: 4"),
        (LoraSpec(4, 2.5, rslora=True), r"lora_alpha = 8, but lora.alpha = 2.5; set lora.alpha: 8"),
        (LoraSpec(4, 8.0), r"use_rslora = true, but lora.rslora = false; set lora.rslora: true"),
    ],
)
def test_other_hyperparameters_are_refused_with_both_values(
    lora: LoraSpec, message: str, written: Callable[..., None]
) -> None:
    with pytest.raises(AdapterError, match=message):
        written(lora=lora)


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": "lora_only"},
        {"use_dora": True},
        {"rank_pattern": {"query": 2}},
        {"alpha_pattern": {"query": 2}},
        {"layers_to_transform": [0]},
        {"layer_replication": [[0, 2]]},
        {"lora_bias": True},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["weight"]},
        {"peft_type": "LOHA"},
        {"invented_later": 3},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_features_that_are_not_trained_here_are_refused_by_name(
    changes: dict[str, Any], written: Callable[..., None]
) -> None:
    (key,) = changes
    with pytest.raises(AdapterError, match=rf"^{key} = "):
        written(changes)


def test_other_layers_heads_and_shapes_are_refused(written: Callable[..., None]) -> None:
    prefix = "base_model.model."
    with pytest.raises(
        AdapterError,
        match=r"adapts 13 layers \(dense, key, query, value\), but lora.targets adapts 4 layers "
        r"\(query, value\): bert.encoder.layer.0.attention.output.dense is only in the adapter",
    ):
        written(targets=("query", "value"))
    with pytest.raises(AdapterError, match=r"no tensor classifier.bias.*modules_to_save = \['cl"):
        written(edit=lambda tensors: tensors.pop(f"{prefix}classifier.bias"))
    with pytest.raises(AdapterError, match=r"a tensor bert.embeddings.*which is not trained here"):
        written(edit=lambda tensors: tensors.update({f"{prefix}bert.embeddings": torch.ones(2)}))
    with pytest.raises(AdapterError, match=r"classifier.weight has shape \(3, 16\).*\(2, 16\)"):
        written(
            edit=lambda tensors: tensors.update({f"{prefix}classifier.weight": torch.ones(3, 16)})
        )


def test_folder_without_adapter_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    layout = layout_of("bert", "classification")
    with pytest.raises(AdapterError, match=r"adapter_config.json is missing"):
        check_adapter(tmp_path / "nowhere", layout, LORA)
    peft = in_peft("bert", "classification", "all-linear")
    peft.save_pretrained(str(tmp_path))
    weights = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(weights), tmp_path / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(AdapterError, match="pickled weights are not read"):
        check_adapter(tmp_path, layout, LORA)
    weights.write_bytes(b"not tensors")
    with pytest.raises(AdapterError, match="cannot be read"):
        check_adapter(tmp_path, layout, LORA)
