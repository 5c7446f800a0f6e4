"""The scenario: every choice of a run, validated whole before anything happens."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fslora.tasks import METRIC, Task
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
    dtype: NumberFormat = "float32"
    """Number format of the frozen weights."""


class Data(Section):
    """Text, task, and how examples are dealt to devices."""

    source: str = "builtin:stdlib"
    """builtin:stdlib, a .csv or .jsonl file, or datasets:NAME."""
    task: Task = "causal-lm"
    """What is learnt: the next token, or the class of an example."""
    length: Annotated[int, Field(ge=2)] = 128
    """Tokens per example; longer text is cut."""
    partition: Literal["natural", "iid", "dirichlet"] = "natural"
    """natural: by group (package, or group_column); iid; dirichlet: label skew."""
    alpha: Positive = 0.5
    """Concentration of the dirichlet partition; small is skewed."""
    held_out_per_group: Count = 32
    """Held-out examples evaluated per group."""
    text_column: str = "text"
    """Column of the text in a file."""
    label_column: str | None = None
    """Column of the class in a file; needed for classification."""
    group_column: str | None = None
    """Column of the group in a file; by default the class is the group."""
    held_out: str | None = None
    """File (or split of datasets:NAME) to evaluate on; by default every eighth example."""


class Lora(Section):
    """LoRA hyperparameters."""

    rank: Count = 16
    """Global rank r."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16.0
    """The layer adds s B A x with s = alpha / r."""
    targets: Annotated[list[str], Field(min_length=1)] = ["all-linear"]
    """Name endings of the adapted layers, or all-linear."""
    rslora: bool = False
    """s = alpha / sqrt(r) instead."""


class Training(Section):
    """Local training on every device, and what the host may use for it."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = 5
    """Local steps per round, H."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 4
    """Examples per step."""
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    """Step size of local SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of local SGD."""
    clip_norm: Positive | None = 2.0
    """Largest gradient norm of a device; null for none."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the host trains; auto takes the GPU if there is one."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """CPU threads; part of the scenario since it changes the order of sums."""
    memory_gib: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Memory for one stack of devices; decides how many train at once (GiB)."""


class MethodChoice(Section):
    """How adapters are cut, trained and merged."""

    name: str = "fslora"
    """See `sim list methods`."""
    number_format: NumberFormat = "float32"
    """Format of the numbers sent both ways; they are rounded to it."""


class FleetChoice(Section):
    """The devices."""

    devices: Count = 30
    """Number of devices N."""
    preset: str = "phone-snapdragon-778g"
    """The median device; see `sim list devices`."""
    compute_sigma: Annotated[float, Field(ge=0, le=10)] = 0.78
    """Spread of compute speed: standard deviation of its natural logarithm."""
    memory_sigma: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Spread of memory, likewise."""


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
    """eval_loss, or the task's metric: bits_per_byte or accuracy."""
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
            known = ("eval_loss", METRIC[self.data.task][0])
            if self.stop.target.metric not in known:
                raise ValueError(
                    f"stop.target.metric = '{self.stop.target.metric}': "
                    f"task {self.data.task} measures {' and '.join(known)}"
                )
        if self.data.source == "builtin:stdlib":
            for key in ("label_column", "group_column", "held_out"):
                given = getattr(self.data, key)
                if given is not None:
                    raise ValueError(
                        f"data.{key} = '{given}': builtin:stdlib brings classes, groups and a "
                        "held-out part; leave it out, or name a file as data.source"
                    )
        if (
            self.data.task == "classification"
            and self.data.source != "builtin:stdlib"
            and self.data.label_column is None
        ):
            raise ValueError(
                "data.label_column = null: classification of a file needs its class column"
            )
        return self


def dump_scenario(scenario: Scenario) -> str:
    """The resolved scenario as YAML, every default written out."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
