"""The scenario: every choice of a run, validated whole before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from fslora.tasks import METRICS, Task
from optimizer.rounds import RoundModel
from wireless.fleet import RadioParameters

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Decibel = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]


_RADIO = RadioParameters()
_ROUNDS = RoundModel()

NumberFormat = Literal["float32", "bfloat16", "float16"]

#: Size of a number in each format.
NUMBER_BITS: Mapping[NumberFormat, int] = MappingProxyType(
    {"float32": 32, "bfloat16": 16, "float16": 16}
)


class Section(BaseModel):
    """A part of the scenario: unknown keys, wrong types, NaN and infinities are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Model(Section):
    """The frozen base model."""

    name: str = "builtin:tiny-llama"
    """builtin:tiny-llama, a Hugging Face id, or a folder with config.json and safetensors."""
    dtype: NumberFormat | Literal["nf4"] = "float32"
    """Number format of the frozen weights; nf4 holds linear layers in 4 bits and computes in
    bfloat16, and needs the extra `quantized`."""


#: Keys of `Data` that only some partitions read.
_READ_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"alpha": ("dirichlet", "quantity"), "classes_per_device": ("pathological",)}
)


class Data(Section):
    """Text, task, and how examples are dealt to devices."""

    source: str = "builtin:stdlib"
    """builtin:stdlib, a .csv or .jsonl file, or datasets:NAME."""
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

    @property
    def eval_metric(self) -> str:
        """Name of the metric that is followed: the chosen one, or the first of the task."""
        return self.metric or next(iter(METRICS[self.task]))

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source == "builtin:stdlib":
            for key in ("label_column", "group_column", "prompt_column", "held_out"):
                given = getattr(self, key)
                if given is not None:
                    raise ValueError(
                        f"{key} = '{given}': builtin:stdlib brings classes, groups and a "
                        "held-out part; leave it out, or name a file as data.source"
                    )
        elif self.label_column is None:
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
            if self.partition not in rules and given != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} = {given:g}: data.partition = '{self.partition}' does not read it; "
                    f"leave it out, or choose {' or '.join(rules)}"
                )
        return self


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
    ] = ["all-linear"]
    """Adapted layers as in PEFT: a list of names or name endings, a regular expression for the
    whole name, or all-linear: all but the output layer and the head."""
    rslora: bool = False
    """s = alpha / sqrt(r) instead."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability with which an input of A is dropped in training."""
    start: str | None = None
    """Folder of a PEFT adapter of this rank, scale and these layers to start from; null for fresh
    factors."""


Momentum = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e30)]


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
    betas: Annotated[list[Momentum], Field(min_length=2, max_length=2)] = [0.9, 0.999]
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


class MethodChoice(Section):
    """How adapters are cut, trained and merged."""

    name: str = "fslora"
    """See `sim list methods`."""
    number_format: NumberFormat = "float32"
    """Format of the numbers sent both ways; they are rounded to it."""


class Device(Section):
    """A kind of device, as `sim calibrate` writes it."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the device."""
    flops: Annotated[float, Field(ge=1, le=1e18)]
    """Effective speed of LoRA training, as opposed to the peak (FLOP/s)."""
    step_overhead_s: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Fixed time of one local step beside its arithmetic (s)."""
    memory_bytes: Annotated[float, Field(ge=1, le=1e18)]
    """Memory that training may use (bytes)."""
    compute_power_w: Annotated[float, Field(ge=0, le=1e6)]
    """Power drawn while training (W)."""
    tx_power_dbm: Annotated[float, Field(ge=-100, le=100)] = 23.0
    """Maximum transmit power; 23 is power class 3 of TS 38.101-1 (dBm)."""
    source: str = "not stated"
    """Where the figures come from."""


#: Endings of device files; a preset's name has none of them.
DEVICE_FILES = (".yaml", ".yml")


def _form(preset: object) -> str | None:
    """Which of its forms a device preset is given in."""
    if isinstance(preset, str):
        return "by name"
    return "as mapping" if isinstance(preset, dict | Device) else None


class FleetChoice(Section):
    """The devices."""

    devices: Count = 30
    """Number of devices N."""
    preset: Annotated[
        Annotated[str, Tag("by name")] | Annotated[Device, Tag("as mapping")],
        Discriminator(
            _form,
            custom_error_type="preset_form",
            custom_error_message="Input should be a name of `sim list devices`, a .yaml file of "
            "`sim calibrate`, or its keys and values",
        ),
    ] = "phone-snapdragon-778g"
    """The median device: a name of `sim list devices`; a .yaml file as `sim calibrate` writes it,
    its path taken from the scenario's folder; or the keys of such a file, which the resolved
    scenario holds in its place."""
    compute_sigma: Annotated[float, Field(ge=0, le=10)] = 0.78
    """Spread of compute speed: standard deviation of its natural logarithm; a device twice as slow
    has twice the overhead per step."""
    memory_sigma: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Spread of memory, likewise."""
    rank_caps: Annotated[list[Count], Field(min_length=1)] | None = None
    """Largest ranks of the devices in turn, such as [2, 4, 8, 16]; null for what fits into memory,
    which binds in any case."""


class Radio(Section):
    """One cell, an uplink shared by frequency division, a broadcast downlink (TR 38.901 UMa)."""

    bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = _RADIO.bandwidth_hz
    """Uplink band shared by the devices of a round (Hz)."""
    downlink_bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = _RADIO.downlink_bandwidth_hz
    """Downlink band of the broadcast (Hz)."""
    carrier_hz: Annotated[float, Field(ge=0.5e9, le=100e9)] = _RADIO.carrier_hz
    """Carrier frequency, 0.5 to 100 GHz (Hz)."""
    cell_radius_m: Annotated[float, Field(gt=0, le=5000)] = _RADIO.cell_radius_m
    """Radius of the cell, at most 5 km (m)."""
    min_distance_m: Annotated[float, Field(ge=10)] = _RADIO.min_distance_m
    """No device is closer to the base station, at least 10 m (m)."""
    fading: Literal["rayleigh", "none"] = _RADIO.fading
    """rayleigh: mean rate over Rayleigh fading; none: a constant channel."""
    bs_height_m: Annotated[float, Field(ge=10, le=150)] = _RADIO.bs_height_m
    """Height of the base station's antenna (m)."""
    device_height_m: Annotated[float, Field(ge=1.5, le=22.5)] = _RADIO.ut_height_m
    """Height of the devices (m)."""
    bs_power_dbm: Annotated[float, Field(ge=-100, le=100)] = _RADIO.bs_power_dbm
    """Transmit power of the base station (dBm)."""
    bs_antenna_gain_db: Annotated[float, Field(ge=-100, le=100)] = _RADIO.bs_antenna_gain_db
    """Antenna gain at the base station (dB)."""
    bs_noise_figure_db: Decibel = _RADIO.bs_noise_figure_db
    """Noise figure of the base station (dB)."""
    device_noise_figure_db: Decibel = _RADIO.ut_noise_figure_db
    """Noise figure of a device (dB)."""
    extra_loss_db: Decibel = _RADIO.extra_loss_db
    """Further loss on every link, such as walls (dB)."""
    snr_gap_db: Decibel = _RADIO.snr_gap_db
    """Gap to the Shannon rate (dB)."""

    @model_validator(mode="after")
    def _cell(self) -> Self:
        if self.min_distance_m >= self.cell_radius_m:
            raise ValueError(
                f"min_distance_m = {self.min_distance_m:g} leaves no cell; "
                f"keep it below cell_radius_m = {self.cell_radius_m:g}"
            )
        return self


class Rounds(Section):
    """Round model: rounds = base / sum a (k/r)^p + sampling * sum A (r/k) / q; see the docs."""

    base: Annotated[float, Field(gt=0, le=1e9)] = _ROUNDS.base
    """Rounds with everybody at full rank."""
    sampling: Annotated[float, Field(ge=0, le=1e9)] = _ROUNDS.sampling
    """Weight of the sampling variance."""
    rank_exponent: Annotated[float, Field(ge=0, le=10)] = _ROUNDS.rank_exponent
    """p: how progress falls with the sketching ratio."""


class PolicyChoice(Section):
    """What every policy has."""

    min_probability: Probability = 0.05
    """No device is sampled more rarely."""
    min_cohort: NonNegative = 1.0
    """Least expected number of sampled devices."""
    rounds: Rounds = Rounds()
    """Round model that plans are judged by."""


class Joint(PolicyChoice):
    """Rank and probability per device, jointly for the least predicted time to target."""

    name: Literal["joint"] = "joint"
    """joint"""


class Uniform(PolicyChoice):
    """The same probability for all."""

    name: Literal["uniform"]
    """uniform"""
    probability: Probability | None = None
    """Sampling probability; null for the best by the round model."""
    rank: Count | None = None
    """Common rank; null for each device's largest."""


class Full(PolicyChoice):
    """Everybody, every round, at each device's largest rank."""

    name: Literal["full"]
    """full"""


class Synchronous(Section):
    """Each round waits for its whole cohort."""

    name: Literal["synchronous"] = "synchronous"
    """synchronous"""
    overhead_s: Positive = 0.1
    """Signalling and aggregation per round (s)."""


class Target(Section):
    """A value of a held-out metric to reach."""

    metric: str = "eval_loss"
    """eval_loss, or the metric that is followed (data.metric)."""
    value: float
    """Value to reach."""


class Stop(Section):
    """When the run ends: whichever comes first."""

    rounds: Count = 30
    """Number of rounds."""
    simulated_s: Positive | None = None
    """Simulated time after which no further round starts (s)."""
    target: Target | None = None
    """Target that `sim compare` measures the time to."""
    at_target: bool = False
    """Whether reaching the target ends the run."""


class Output(Section):
    """What is measured on the way."""

    evaluate_every: Count = 2
    """Rounds between evaluations; round 0 and the last are always evaluated."""


#: Sections that may be given as a bare name.
BY_NAME = ("method", "policy", "schedule")


class Scenario(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run; letters, digits, dot, dash, underscore."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Root of every random draw."""
    model: Model = Model()
    data: Data = Data()
    lora: Lora = Lora()
    training: Training = Training()
    method: MethodChoice = MethodChoice()
    fleet: FleetChoice = FleetChoice()
    radio: Radio = Radio()
    policy: Annotated[Joint | Uniform | Full, Field(discriminator="name")] = Joint()
    schedule: Synchronous = Synchronous()
    stop: Stop = Stop()
    output: Output = Output()

    @field_validator(*BY_NAME, mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """`policy: joint` is short for `policy: {name: joint}`."""
        return {"name": value} if isinstance(value, str) else value

    @field_validator("policy", mode="before")
    @classmethod
    def _joint_by_default(cls, value: Any) -> Any:
        return {"name": "joint", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse contradictions between sections."""
        rank = getattr(self.policy, "rank", None)
        if rank is not None and rank > self.lora.rank:
            raise ValueError(
                f"policy.rank = {rank}: a sketch cannot exceed lora.rank = {self.lora.rank}"
            )
        for cap in self.fleet.rank_caps or ():
            if cap > self.lora.rank:
                raise ValueError(
                    f"fleet.rank_caps = {self.fleet.rank_caps}: none may exceed "
                    f"lora.rank = {self.lora.rank}"
                )
        if self.policy.min_cohort > self.fleet.devices:
            raise ValueError(
                f"policy.min_cohort = {self.policy.min_cohort:g}: "
                f"at most fleet.devices = {self.fleet.devices}"
            )
        probability = getattr(self.policy, "probability", None)
        if probability is not None:
            least = max(self.policy.min_probability, self.policy.min_cohort / self.fleet.devices)
            if probability < least:
                raise ValueError(
                    f"policy.probability = {probability:g}: at least {least:g}, by "
                    "policy.min_probability and policy.min_cohort / fleet.devices"
                )
        if self.stop.at_target and self.stop.target is None:
            raise ValueError("stop.at_target = true: needs stop.target with metric and value")
        if self.stop.target is not None:
            known = ("eval_loss", self.data.eval_metric)
            if self.stop.target.metric not in known:
                raise ValueError(
                    f"stop.target.metric = '{self.stop.target.metric}': the run follows "
                    f"{' and '.join(known)}; choose one, or another data.metric"
                )
        return self


def dump_scenario(scenario: Scenario) -> str:
    """The resolved scenario as YAML, every default written out."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
