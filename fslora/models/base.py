"""Loading a frozen base model, its tokenizer, or its bare shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fslora.data.tokens import ByteTokenizer, HubTokenizer, Tokenizer
from fslora.models.quantized import keep_differentiable, nf4_config, quantizer_missing
from fslora.models.tiny_llama import WEIGHTS_FOLDER, tiny_llama_config
from fslora.tasks import Task

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

#: Name of the model that lies in the package.
BUILTIN = "builtin:tiny-llama"

#: Families that count positions from the padding token on, and so have fewer than they state.
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert")


class ModelError(ValueError):
    """The base model a caller named cannot be loaded."""


class CutError(ValueError):
    """A model cannot be cut after so many blocks."""


def load_tokenizer(name: str) -> Tokenizer:
    """Tokenizer of the model `name`.

    Raises
    ------
    ModelError
        If there is none under that name.
    """
    if name == BUILTIN:
        return ByteTokenizer()
    from transformers import AutoTokenizer

    try:
        return HubTokenizer.of(AutoTokenizer.from_pretrained(name, trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from None


def load_model(
    name: str,
    task: Task,
    classes: int,
    pad_token: int,
    seed: int,
    dtype: torch.dtype,
    nf4: bool = False,
) -> PreTrainedModel:
    """Base model with every parameter frozen, in evaluation mode (no dropout).

    Parameters
    ----------
    name
        `builtin:tiny-llama`, a Hugging Face id, or a folder. Code that comes with a model is
        never run, and only safetensors weights are read.
    task
        Decides the head: language model or sequence classifier.
    classes
        Number of classes of a classifier; ignored otherwise.
    pad_token
        Token number of the padding, which classifiers look for.
    seed
        Seed of what the checkpoint does not hold, such as a new classifier head.
    dtype
        Number format of the frozen weights; with `nf4` of those left as they are, and of the
        arithmetic.
    nf4
        Whether linear layers, but for output layer and head, hold 4-bit weights.

    Raises
    ------
    ModelError
        If there is no such model, or it cannot take the task or be quantised.
    """
    import torch
    from safetensors.torch import load_file

    quantized: dict[str, Any] = {}
    if nf4:
        check_nf4(name)
        shape = shape_of(name, task, classes, pad_token, dtype)
        # Quantised where it is read; whoever trains moves it.
        quantized = {"quantization_config": nf4_config(shape), "device_map": {"": "cpu"}}
    config = _config(name, task, classes, pad_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == BUILTIN:
            model = _auto_class(task).from_config(config)
            weights = load_file(WEIGHTS_FOLDER / "model.safetensors")
            result = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
            # The output layer is tied to the embedding, a classifier's head is new.
            assert set(result.missing_keys) <= {"lm_head.weight", "score.weight"}
            assert not result.unexpected_keys
            model = model.to(dtype)
        else:
            try:
                with _quietly():
                    model = _auto_class(task).from_pretrained(
                        name,
                        config=config,
                        dtype=dtype,
                        use_safetensors=True,
                        trust_remote_code=False,
                        # A head trained for other classes gives way to a new one.
                        ignore_mismatched_sizes=task == "classification",
                        **quantized,
                    )
            except (OSError, ValueError, RuntimeError) as error:
                raise _cannot_load(name, error) from None
            keep_differentiable(model)
    model.config.name_or_path = name
    return _frozen(model)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from reporting on the terminal: a classifier's head is new by intent."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def shape_of(
    name: str, task: Task, classes: int, pad_token: int, dtype: torch.dtype
) -> PreTrainedModel:
    """The model without its weights: every tensor on the `meta` device, eager attention.

    Parameters are those of `load_model`.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    import torch

    config = _config(name, task, classes, pad_token)
    try:
        with torch.device("meta"):
            model = _auto_class(task).from_config(
                config, attn_implementation="eager", dtype=dtype, trust_remote_code=False
            )
    except ValueError as error:
        raise _cannot_load(name, error) from None
    return _frozen(model)


def check_nf4(name: str) -> None:
    """Check that a model's weights can be held in 4 bits.

    Raises
    ------
    ModelError
        If the model is the one inside the package, or bitsandbytes is not installed.
    """
    if name == BUILTIN:
        raise ModelError(f"{BUILTIN} is too small to gain from 4-bit weights; take float32")
    if quantizer_missing():
        raise ModelError(
            "4-bit weights need bitsandbytes; pip install 'fslora-sim[quantized]', or take bfloat16"
        )


def max_tokens(model: PreTrainedModel) -> int | None:
    """Longest sequence the model takes, None if its configuration names no limit."""
    config = model.config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is not None and config.model_type in _PADDED_POSITIONS:
        return positions - int(config.pad_token_id) - 1
    return positions


def _auto_class(task: Task) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return {
        "causal-lm": AutoModelForCausalLM,
        "classification": AutoModelForSequenceClassification,
    }[task]


def _config(name: str, task: Task, classes: int, pad_token: int) -> PretrainedConfig:
    if name == BUILTIN:
        config: PretrainedConfig = tiny_llama_config()
    else:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise _cannot_load(name, error) from None
    config.use_cache = False
    config.pad_token_id = pad_token
    if task == "classification":
        config.num_labels = classes
    return config


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.requires_grad_(False)
    model.eval()
    return model


def _cannot_load(name: str, error: Exception) -> ModelError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(
        f"model '{name}' cannot be loaded ({first_line}); name {BUILTIN}, a Hugging Face id, "
        "or a folder with config.json and safetensors weights"
    )
