"""Sections on what is learnt and how: model, data, adapter, training, method."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from fslora.tasks import METRICS, Task
from sim.sections.base import (
    Count,
    Momentum,
    NonNegative,
    NumberFormat,
    Positive,
    Rate,
    Section,
)


class Model(Section):
    """The frozen base model."""

    name: str = "builtin:tiny-llama"
    """builtin:tiny-llama, a Hugging Face id, or a folder with config.json and safetensors."""
    dtype: NumberFormat | Literal["nf4"] = "float32"
    """Number format of the frozen weights; nf4 holds linear layers in 4 bits and computes in
    bfloat16, and needs the extra `quantized`."""


#: Sources inside the package: text, and sizes without text.
STDLIB, SYNTHETIC = "builtin:stdlib", "builtin:synthetic"

#: Keys of `Data` that only text has a use for.
_OF_TEXT = (
    "task",
    "held_out_per_group",
    "text_column",
    "prompt_column",
    "label_column",
    "group_column",
    "held_out",
)

#: Below this the sizes of devices differ by more than numbers can hold.
_LEAST_ALPHA = 1e-3

#: Keys of `Data` that only some partitions read.
_READ_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"alpha": ("dirichlet", "quantity"), "classes_per_device": ("pathological",)}
)


class Data(Section):
    """Text, task, and how examples are dealt to devices."""

    source: str = STDLIB
    """builtin:stdlib, a .csv or .jsonl file, datasets:NAME, or, where training is left out,
    builtin:synthetic: examples without text, all of full length."""
    task: Task = "causal-lm"
    """What is learnt: the next token, or the class of an example."""
    length: Annotated[int, Field(ge=2)] = 128
    """Tokens per example; longer text is cut."""
    partition: Literal["natural", "iid", "dirichlet", "quantity", "pathological"] = "natural"
    """natural (by group), iid, dirichlet (label skew), quantity (unequal sizes), pathological."""
    alpha: Positive = 0.5
    """Concentration of the dirichlet and quantity partitions; small is skewed."""
    classes_per_device: Count = 2
    """Classes per device of the pathological partition."""
    metric: str | None = None
    """bits_per_byte, perplexity, exact_match; accuracy, macro_f1, matthews; null for the first."""
    held_out_per_group: Count = 32
    """Held-out examples evaluated per group."""
    text_column: str = "text"
    """Column of the text in a file."""
    prompt_column: str | None = None
    """Column of what a causal-lm is given before the text; the text alone is learnt."""
    label_column: str | None = None
    """Column of the class in a file; needed for classification."""
    group_column: str | None = None
    """Column of the group in a file; by default the class is the group."""
    held_out: str | None = None
    """File (or split of datasets:NAME) to evaluate on; by default every eighth example."""
    samples: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Examples per device of builtin:synthetic: the median, with partition quantity the mean."""
    samples_sigma: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Spread of the examples per device of builtin:synthetic: standard deviation of the natural
    logarithm."""

    @property
    def eval_metric(self) -> str:
        """Name of the metric that is followed: the chosen one, or the first of the task."""
        return self.metric or next(iter(METRICS[self.task]))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source == SYNTHETIC:
            self._needs_no_text()
        else:
            self._reads_no_sizes()
        if self.source == STDLIB:
            for key in ("label_column", "group_column", "prompt_column", "held_out"):
                given = getattr(self, key)
                if given is not None:
                    raise ValueError(
                        f"{key} = '{given}': builtin:stdlib brings classes, groups and a "
                        "held-out part; leave it out, or name a file as data.source"
                    )
        elif self.label_column is None and self.source != SYNTHETIC:
            if self.task == "classification":
                raise ValueError(
                    "label_column = null: classification of a file needs its class column"
                )
            if self.partition in ("dirichlet", "pathological"):
                raise ValueError(
                    f"partition = '{self.partition}': needs classes; set data.label_column"
                )
        if self.prompt_column is not None and self.task != "causal-lm":
            raise ValueError(
                f"prompt_column = '{self.prompt_column}': {self.task} has no prompts; "
                "leave it out, or set data.task = causal-lm"
            )
        if self.metric is not None and self.metric not in METRICS[self.task]:
            raise ValueError(
                f"metric = '{self.metric}': task {self.task} measures "
                f"{', '.join(METRICS[self.task])}"
            )
        for key, rules in _READ_BY.items():
            given = getattr(self, key)
            if self.partition not in rules and self._chosen(key):
                raise ValueError(
                    f"{key} = {given:g}: data.partition = '{self.partition}' does not read it; "
                    f"leave it out, or choose {' or '.join(rules)}"
                )
        return self

    def _needs_no_text(self) -> None:
        """Refuse what has no meaning for `builtin:synthetic`."""
        for key in _OF_TEXT:
            if self._chosen(key):
                raise ValueError(
                    f"{key} = {getattr(self, key)!r}: {SYNTHETIC} has no text and no classes; "
                    "leave it out, or name a file as data.source"
                )
        if self.partition not in ("natural", "quantity"):
            raise ValueError(
                f"partition = '{self.partition}': {SYNTHETIC} has no examples to deal; "
                "choose natural or quantity"
            )
        if self.partition == "quantity":
            if self._chosen("samples_sigma"):
                raise ValueError(
                    f"samples_sigma = {self.samples_sigma:g}: data.partition = 'quantity' takes "
                    "data.alpha for the spread; leave it out, or choose natural"
                )
            if self.alpha < _LEAST_ALPHA:
                raise ValueError(
                    f"alpha = {self.alpha:g}: {SYNTHETIC} takes at least {_LEAST_ALPHA:g}"
                )

    def _reads_no_sizes(self) -> None:
        """Refuse what only `builtin:synthetic` reads."""
        for key in ("samples", "samples_sigma"):
            if self._chosen(key):
                raise ValueError(
                    f"{key} = {getattr(self, key):g}: only data.source = {SYNTHETIC} reads it; "
                    "leave it out"
                )

    def _chosen(self, key: str) -> bool:
        """Whether a key is not at its default."""
        return bool(getattr(self, key) != type(self).model_fields[key].default)


def _form_of_targets(targets: object) -> str | None:
    """Which of their forms LoRA's targets are given in."""
    if isinstance(targets, str):
        return "as text"
    return "as list" if isinstance(targets, list) else None


class Lora(Section):
    """LoRA hyperparameters."""

    rank: Count = 16
    """Global rank r."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """The layer adds s B A x with s = alpha / r."""
    targets: Annotated[
        Annotated[str, Tag("as text")] | Annotated[list[str], Tag("as list"), Field(min_length=1)],
        Discriminator(
            _form_of_targets,
            custom_error_type="targets_form",
            custom_error_message="Input should be all-linear, a list of layer names, or a regular "
            "expression",
        ),
    ] = Field(default=["all-linear"])
    """Adapted layers as in PEFT: a list of names or name endings, a regular expression for the
    whole name, or all-linear: all but the output layer and the head."""
    rslora: bool = False
    """s = alpha / sqrt(r) instead."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an input of A is dropped in training."""
    start: str | None = None
    """Folder of a PEFT adapter of this rank, scale and these layers to start from; null for fresh
    factors."""


class PlainServer(Section):
    """The global state moves by the cohort's weighted sum of changes."""

    name: Literal["plain"] = "plain"
    """plain"""
    learning_rate: Rate = 1.0
    """Factor on the sum."""


class MomentumServer(Section):
    """FedAvgM (arXiv 1909.06335): the sum as a pseudo-gradient of heavy-ball momentum."""

    name: Literal["momentum"]
    """momentum"""
    learning_rate: Rate = 1.0
    """Step size of the server."""
    momentum: Momentum = 0.9
    """Momentum of the server."""


class AdamServer(Section):
    """FedAdam (arXiv 2003.00295): the sum as a pseudo-gradient of Adam."""

    name: Literal["adam"]
    """adam"""
    learning_rate: Rate = 0.01
    """Step size of the server."""
    momentum: Momentum = 0.9
    """beta_1."""
    second_momentum: Momentum = 0.99
    """beta_2."""
    adaptivity: Positive = 1e-3
    """tau, added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay, AdamW's."""


class Training(Section):
    """Local training on every device, what the server does with it, and what the host may use."""

    timing_only: bool = False
    """Whether training is left out: only time passes, and the time to the target is estimated."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Local steps per round, H; not used if epochs is set."""
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passes over a device's own data instead; devices with more data then take more steps."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Examples per step; a device that holds fewer takes all it has."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Local optimizer, from zero state each round."""
    learning_rate: Rate = 0.1
    """Step size of the local optimizer."""
    momentum: Momentum = 0.0
    """Momentum of local SGD."""
    betas: Annotated[list[Momentum], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.999]
    )
    """beta_1 and beta_2 of local AdamW."""
    epsilon: Positive = 1e-8
    """Added to the root of the second moment by local AdamW."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay of local AdamW."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the local learning rate over stop.rounds."""
    warmup_rounds: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Rounds over which the local learning rate first rises."""
    clip_norm: Positive | None = 2.0
    """Largest gradient norm of a device; null for none."""
    proximal: NonNegative = 0.0
    """mu of FedProx: pulls a device's adapter towards where the round began."""
    sketch_step: Literal["scaled", "common"] = "scaled"
    """scaled: a sketched device steps by k/r, its change counts r/k; common: neither."""
    server: Annotated[PlainServer | MomentumServer | AdamServer, Field(discriminator="name")] = (
        PlainServer()
    )
    """What the server does with the cohort's changes: plain, momentum or adam."""
    deterministic: bool = False
    """Whether a GPU may use only kernels that give equal bytes in equal runs; slower."""
    gradient_checkpointing: bool = False
    """Whether devices compute a block's activations again instead of keeping them: less memory,
    more arithmetic."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the host trains; auto takes the GPU if there is one."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """CPU threads; part of the scenario since it changes the order of sums."""
    memory_gib: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Memory for one stack of devices; decides how many train at once (GiB)."""

    @field_validator("server", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """`server: adam` is short for `server: {name: adam}`; without a name it is plain."""
        if isinstance(value, dict):
            return {"name": "plain", **value}
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _optimizer_keys(self) -> Self:
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(
                f"momentum = {self.momentum:g}: belongs to optimizer sgd; adamw has betas"
            )
        for key in ("betas", "epsilon", "weight_decay"):
            value = getattr(self, key)
            if self.optimizer == "sgd" and value != type(self).model_fields[key].default:
                raise ValueError(f"{key} = {value}: belongs to optimizer adamw; leave it out")
        if self.optimizer == "adamw" and self.sketch_step == "common":
            raise ValueError(
                "sketch_step = 'common': AdamW does not see the gain r/k of a sketch, so its "
                "changes would come out k/r too small; choose scaled"
            )
        return self
