"""Reading and writing the global state as a PEFT adapter: what a run leaves and may start from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from fslora.lora import PEFT_PREFIX, Adapter, Layout, LoraSpec
from fslora.tasks import Task

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TASK_TYPE = {"causal-lm": TaskType.CAUSAL_LM, "classification": TaskType.SEQ_CLS}

#: Settings of an adapter that are compared elsewhere, or do not bear on what it computes.
_FREE = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "peft_version",
        "r",
        "revision",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)

#: Ways to initialise that leave the base weights as they are.
_INITIALISATIONS = (True, False, "gaussian", "orthogonal", "eva")


class AdapterError(ValueError):
    """A folder holds no PEFT adapter that the run could start from."""


def save_adapter(
    folder: Path,
    model: PreTrainedModel,
    layout: Layout,
    lora: LoraSpec,
    adapter: Adapter,
    task: Task,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into `folder`.

    `peft.PeftModel.from_pretrained(base, folder)` then gives the logits of the trained model. PEFT
    knows no cores, so where there are any, C A is written as A.
    """
    adapter = adapter.folded()
    config = LoraConfig(
        task_type=_TASK_TYPE[task],
        base_model_name_or_path=str(model.config.name_or_path),
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by r; floats work
        use_rslora=lora.rslora,
        lora_dropout=lora.dropout,
        fan_in_fan_out=bool(layout.transposed),
        modules_to_save=_head_modules(layout) or None,
        inference_mode=True,
    )
    # Set late: the constructor would make it a set, which has no order.
    config.target_modules = sorted(layout.layers)
    config.save_pretrained(str(folder))
    tensors = {
        **{_a(name): value for name, value in adapter.a.items()},
        **{_b(name): value for name, value in adapter.b.items()},
        **adapter.head,
    }
    save_tensors(folder / _WEIGHTS, {PEFT_PREFIX + name: value for name, value in tensors.items()})


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file."""
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        path,
        metadata={"format": "pt"},
    )


def check_adapter(folder: Path, layout: Layout, lora: LoraSpec) -> None:
    """Check that a PEFT adapter is a global state of this layout, without reading its values.

    Raises
    ------
    AdapterError
        If the folder holds no adapter in safetensors, its rank, scale, layers or heads are others,
        or it uses a feature that is not LoRA as trained here.
    """
    config = _read_config(folder)
    for key, ours, name in (
        ("r", lora.rank, "rank"),
        ("lora_alpha", lora.alpha, "alpha"),
        ("use_rslora", lora.rslora, "rslora"),
    ):
        if config[key] != ours:
            theirs = json.dumps(config[key])
            raise AdapterError(
                f"it has {key} = {theirs}, but lora.{name} = {json.dumps(ours)}; "
                f"set lora.{name}: {theirs}"
            )
    with _open(folder) as weights:
        found = {
            name.removeprefix(PEFT_PREFIX): tuple(weights.get_slice(name).get_shape())
            for name in weights.keys()  # noqa: SIM118  # not a mapping
        }
    wanted = _shapes(layout, lora.rank)
    _same_layers(_adapted(found), _adapted(wanted))
    for name in sorted(wanted.keys() - found.keys()):
        raise AdapterError(
            f"it has no tensor {name}, which the task trains; save it with "
            f"modules_to_save = {_head_modules(layout)}"
        )
    for name in sorted(found.keys() - wanted.keys()):
        raise AdapterError(f"it has a tensor {name}, which is not trained here; save it without")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise AdapterError(
                f"its {name} has shape {found[name]}, the run needs {shape}; start from an adapter "
                f"of this model and these classes (its base is {config['base_model_name_or_path']})"
            )


def load_adapter(
    folder: Path, model: PreTrainedModel, layout: Layout, lora: LoraSpec, dtype: torch.dtype
) -> Adapter:
    """Read a PEFT adapter as the global state.

    Parameters
    ----------
    folder
        As PEFT's `save_pretrained` wrote it.
    model
        Decides the device.
    layout, lora
        What the adapter must hold.
    dtype
        Number format of the state.

    Raises
    ------
    AdapterError
        As `check_adapter`.
    """
    check_adapter(folder, layout, lora)
    with _open(folder) as weights:
        values = {
            name: weights.get_tensor(PEFT_PREFIX + name).to(model.device, dtype)
            for name in _shapes(layout, lora.rank)
        }
    a = {name: values.pop(_a(name)) for name in layout.layers}
    b = {name: values.pop(_b(name)) for name in layout.layers}
    return Adapter(a, b, values)


def _read_config(folder: Path) -> dict[str, Any]:
    """The adapter's settings, defaults filled in; every one of them is LoRA as trained here."""
    try:
        given = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise AdapterError(
            f"{_CONFIG} is missing or not JSON; name a folder that PEFT's save_pretrained wrote"
        ) from None
    defaults = LoraConfig().to_dict()
    config: dict[str, Any] = defaults | (given if isinstance(given, dict) else {})
    for key, value in config.items():
        off = value in (None, False, [], {}) or value == defaults.get(key)
        if key not in _FREE and not off:
            raise AdapterError(f"{key} = {json.dumps(value)} is not supported; train it without")
    if config["init_lora_weights"] not in _INITIALISATIONS:
        raise AdapterError(
            f"init_lora_weights = {json.dumps(config['init_lora_weights'])} changes the base "
            "weights; save it as an adapter of the unchanged base"
        )
    return config


def _open(folder: Path) -> Any:
    if not (folder / _WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        raise AdapterError(
            f"{_WEIGHTS} is missing"
            + ("; pickled weights are not read, save them with safetensors" if pickled else "")
        )
    try:
        return safe_open(folder / _WEIGHTS, framework="pt")
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{_WEIGHTS} cannot be read ({error})") from None


def _same_layers(theirs: set[str], ours: set[str]) -> None:
    if theirs != ours:
        only = sorted(theirs ^ ours)[0]
        raise AdapterError(
            f"it adapts {_endings(theirs)}, but lora.targets adapts {_endings(ours)}: "
            f"{only} is only in {'the adapter' if only in theirs else 'lora.targets'}; "
            "let lora.targets name the same layers"
        )


def _endings(layers: set[str]) -> str:
    return f"{len(layers)} layers ({', '.join(sorted({n.rsplit('.', 1)[-1] for n in layers}))})"


def _adapted(names: Iterable[str]) -> set[str]:
    """Layers that have a factor among tensors of these names."""
    parts = (name.partition(".lora_") for name in names)
    return {layer for layer, factor, _ in parts if factor}


def _shapes(layout: Layout, rank: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the state, by its name in the file less the prefix."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (d_in, d_out) in layout.layers.items():
        shapes[_a(name)], shapes[_b(name)] = (rank, d_in), (d_out, rank)
    for name, (d_in, d_out, bias) in layout.heads.items():
        shapes[f"{name}.weight"] = (d_out, d_in)
        if bias:
            shapes[f"{name}.bias"] = (d_out,)
    return shapes


def _head_modules(layout: Layout) -> list[str]:
    return sorted({name.split(".")[0] for name in layout.heads})


def _a(layer: str) -> str:
    return f"{layer}.lora_A.weight"


def _b(layer: str) -> str:
    return f"{layer}.lora_B.weight"
