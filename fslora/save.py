"""Writing the global state as a PEFT adapter."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, TaskType
from safetensors.torch import save_file
from transformers import PreTrainedModel

from fslora.lora import Adapter, Layout, LoraSpec
from fslora.tasks import Task

_TASK_TYPE = {"causal-lm": TaskType.CAUSAL_LM, "classification": TaskType.SEQ_CLS}


def save_adapter(
    folder: Path,
    model: PreTrainedModel,
    layout: Layout,
    lora: LoraSpec,
    adapter: Adapter,
    task: Task,
) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into `folder`.

    `peft.PeftModel.from_pretrained(base, folder)` then gives the logits of the trained model.
    """
    heads = sorted({name.split(".")[0] for name in layout.heads})
    config = LoraConfig(
        task_type=_TASK_TYPE[task],
        base_model_name_or_path=str(model.config.name_or_path),
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by r; floats work
        use_rslora=lora.rslora,
        target_modules=sorted(layout.layers),
        modules_to_save=heads or None,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    tensors = {}
    for name in layout.layers:
        tensors[f"base_model.model.{name}.lora_A.weight"] = adapter.a[name]
        tensors[f"base_model.model.{name}.lora_B.weight"] = adapter.b[name]
    for name, value in adapter.head.items():
        tensors[f"base_model.model.{name}"] = value
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
