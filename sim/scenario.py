"""The scenario: every choice of a run, validated whole before anything happens."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from fslora.methods import METHODS
from sim.sections.base import Section, by_name
from sim.sections.course import Output, Stop
from sim.sections.fleet import FleetChoice
from sim.sections.learning import SYNTHETIC, Data, Lora, Model, Training
from sim.sections.method import AnyMethod, FSLoRA, HetLoRA, HierFedLoRA
from sim.sections.policy import AnyPolicy, Joint
from sim.sections.radio import PerRound, Radio
from sim.sections.schedule import AnySchedule, Asynchronous, Deadline, Failures, Synchronous
from wireless.spectrum import RULES

_BY_NAME = ("method", "policy", "schedule")

#: Policies whose sampler draws whole cohorts.
_COHORTS = ("fedcs", "oort", "shi", "tsfa")

#: Sections that may be given as a bare value, and the key that it then is.
SHORT_FORMS = MappingProxyType(
    {
        **dict.fromkeys(_BY_NAME, "name"),
        **dict.fromkeys(
            ("environment", "modulation", "fading", "uplink", "availability", "mobility"), "name"
        ),
        **dict.fromkeys(("bandwidth_trace", "compute_trace"), "file"),
        "rounds": "model",
    }
)


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
    method: AnyMethod = FSLoRA()
    fleet: FleetChoice = FleetChoice()
    radio: Radio = Radio()
    policy: AnyPolicy = Joint()
    schedule: AnySchedule = Synchronous()
    failures: Failures = Failures()
    stop: Stop = Stop()
    output: Output = Output()

    @field_validator(*_BY_NAME, mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value)

    @field_validator("policy", mode="before")
    @classmethod
    def _joint_by_default(cls, value: Any) -> Any:
        return {"name": "joint", **value} if isinstance(value, dict) else value

    @field_validator("method", mode="before")
    @classmethod
    def _fslora_by_default(cls, value: Any) -> Any:
        return {"name": "fslora", **value} if isinstance(value, dict) else value

    @field_validator("schedule", mode="before")
    @classmethod
    def _synchronous_by_default(cls, value: Any) -> Any:
        return {"name": "synchronous", **value} if isinstance(value, dict) else value

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
        self._schedule_fits()
        self._method_fits()
        self._analog_fits()
        self._training_fits()
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

    def _method_fits(self) -> None:
        """Refuse what does not go with how the method merges."""
        name, method = self.method.name, METHODS[self.method.name]
        prunes = isinstance(self.method, HetLoRA) and self.method.pruning_weight > 0
        if prunes and self.training.timing_only:
            raise ValueError(
                "method.pruning_weight: devices prune by what they have trained, and "
                "training.timing_only leaves that out; set it to 0"
            )
        server = self.training.server.name
        if not method.additive and server != "plain":
            raise ValueError(
                f"training.server = '{server}': method {name} merges products, not a sum of "
                "changes that a server optimizer could take; choose plain"
            )
        if not method.additive and isinstance(self.schedule, Asynchronous):
            raise ValueError(
                f"schedule.name = '{self.schedule.name}': method {name} needs updates that start "
                "from the present global state; choose a schedule of rounds"
            )
        if method.unicast and self.radio.downlink == "broadcast":
            raise ValueError(
                f"radio.downlink = 'broadcast': method {name} sends every device numbers of its "
                "own; set unicast"
            )
        if isinstance(self.method, HierFedLoRA) and self.method.groups > self.fleet.devices:
            raise ValueError(
                f"method.groups = {self.method.groups}: there are only {self.fleet.devices} "
                "devices; give fewer groups"
            )
        if method.merges_into_base and self.model.dtype == "nf4":
            raise ValueError(
                f"model.dtype = 'nf4': method {name} merges into the base's weights, which 4 bits "
                "do not hold; choose another format"
            )
        if method.device_blocks is not None:
            self._split_fits()

    def _split_fits(self) -> None:
        """Refuse what a model that is cut does not go with.

        A device computes and sends in turn, step by step, which is played out as one computation
        and one upload: the same only where nothing that either goes by changes meanwhile.
        """
        name, radio, choice = self.method.name, self.radio, self.method
        exact = "go over the air as they are; leave it out"
        for key, given, plain in (
            ("number_format", choice.number_format, "float32"),
            ("keep", choice.keep, 1.0),
            ("value_bits", choice.value_bits, None),
        ):
            if given != plain:
                raise ValueError(
                    f"method.{key} = {given}: activations, gradients and factors of {name} {exact}"
                )
        if not RULES[radio.allocation].reserves:
            raise ValueError(
                f"radio.allocation = '{radio.allocation}': devices of method {name} send in every "
                "local step, for which they need a band of their own all round; choose equal-finish"
            )
        still = f"method {name} needs what holds for a round; leave it out"
        if radio.fading.name == "block":
            raise ValueError(
                f"radio.fading = 'block': method {name} needs what holds for a round; choose "
                "ergodic, per-round or none"
            )
        if self.fleet.mobility.name != "static":
            raise ValueError(f"fleet.mobility = '{self.fleet.mobility.name}': {still}")
        for key, trace in (
            ("radio.bandwidth_trace", radio.bandwidth_trace),
            ("fleet.compute_trace", self.fleet.compute_trace),
        ):
            if trace is not None:
                raise ValueError(f"{key} = '{trace.file}': {still}")
        losses = self.failures.losses
        if losses is not None:
            raise ValueError(
                f"failures.losses.probability = {losses.probability:g}: method {name} uploads in "
                "every local step, and lost are whole uploads; leave failures.losses out"
            )

    def _analog_fits(self) -> None:
        """Refuse what does not go with a sum over the air."""
        radio, fading, fleet = self.radio, self.radio.fading, self.fleet
        if radio.uplink.name != "analog":
            return
        sums = [name for name, method in METHODS.items() if method.sums]
        plain = Radio()
        choices = (
            ("schedule.name", self.schedule.name, ("synchronous",), "all send at the same time"),
            ("method.name", self.method.name, sums, "the server sees no update by itself"),
            ("radio.fading", fading.name, ("per-round", "none"), "one gain holds for a transfer"),
        )
        for key, value, fitting, why in choices:
            if value not in fitting:
                raise ValueError(
                    f"{key} = '{value}': with radio.uplink = analog {why}; choose "
                    f"{' or '.join(fitting)}"
                )
        for key, value, default, why in (
            ("method.keep", self.method.keep, 1.0, "all send the same numbers"),
            ("method.value_bits", self.method.value_bits, None, "numbers are sent as they are"),
            ("policy.energy_limit_j", self.policy.energy_limit_j, None, "plans count no uploads"),
            ("radio.cells", radio.cells, None, "there is one server that the sum arrives at"),
            ("radio.power_control", radio.power_control, None, "power inverts the channel"),
            ("radio.allocation", radio.allocation, plain.allocation, "no band is divided"),
            ("radio.block_hz", radio.block_hz, None, "no band is divided"),
            ("radio.reallocation_s", radio.reallocation_s, 0.0, "no band is divided"),
            ("radio.bandwidth_trace", radio.bandwidth_trace, None, "symbols take the whole band"),
            ("fleet.battery", fleet.battery, False, "nobody may drop out of the sum"),
            *(
                (f"failures.{key}", value, Failures.model_fields[key].default, "all have to send")
                for key, value in self.failures
            ),
        ):
            if value != default:
                raise ValueError(
                    f"{key} = {_short(value)}: with radio.uplink = analog {why}; leave it out"
                )
        outage = "outage_snr_db"
        default_db = PerRound.model_fields[outage].default
        if getattr(fading, outage, default_db) != default_db:
            raise ValueError(
                f"radio.fading.{outage} = {getattr(fading, outage):g}: with radio.uplink = analog "
                "radio.uplink.threshold takes its place; leave it out"
            )

    def _training_fits(self) -> None:
        """Refuse training without text, and what goes by training where there is none."""
        if not self.training.timing_only:
            if self.data.source == SYNTHETIC:
                raise ValueError(
                    f"data.source = '{SYNTHETIC}': has no text to train on; set "
                    "training.timing_only: true, or name another source"
                )
            return
        if self.policy.name == "oort":
            raise ValueError(
                "training.timing_only = true: policy oort goes by the losses of training; choose "
                "another policy, or train"
            )
        if self.policy.knowledge != "statistics":
            raise ValueError(
                f"training.timing_only = true: policy.knowledge = '{self.policy.knowledge}' goes "
                "by the norms of updates; choose statistics, or train"
            )

    def _schedule_fits(self) -> None:
        """Refuse schedules that policy, radio or fleet cannot go with."""
        schedule, allocation = self.schedule, self.radio.allocation
        replan = self.policy.replan
        if replan is not None and replan.drift is not None and schedule.name != "synchronous":
            raise ValueError(
                f"policy.replan.drift = {replan.drift:g}: round times are predicted for schedule "
                f"synchronous, not {schedule.name}; give every instead"
            )
        late = isinstance(schedule, Deadline) and schedule.late == "discard"
        if late and allocation == "equal-finish":
            raise ValueError(
                "schedule.late = 'discard': radio.allocation = 'equal-finish' reserves the whole "
                "band for every round, which late devices still send in; choose cancel, or an "
                "allocation that divides the band anew"
            )
        if not isinstance(schedule, Asynchronous):
            return
        if self.radio.downlink == "broadcast":
            raise ValueError(
                f"schedule.name = '{schedule.name}': sends to one device at a time; set "
                "radio.downlink = unicast"
            )
        if allocation == "equal-finish":
            raise ValueError(
                f"schedule.name = '{schedule.name}': radio.allocation = 'equal-finish' divides the "
                "band for a whole cohort, and there is none; choose an allocation that divides it "
                "anew at every event"
            )
        if self.policy.name in _COHORTS:
            raise ValueError(
                f"schedule.name = '{schedule.name}': sends devices out one by one, policy "
                f"{self.policy.name} chooses whole cohorts; choose another policy"
            )
        concurrency = schedule.concurrency
        if concurrency is not None and concurrency > self.fleet.devices:
            raise ValueError(
                f"schedule.concurrency = {concurrency}: at most fleet.devices = "
                f"{self.fleet.devices}"
            )


def _short(value: object) -> str:
    """A value as messages show it."""
    return repr(value.model_dump()) if isinstance(value, Section) else repr(value)


def dump_scenario(scenario: Scenario) -> str:
    """The resolved scenario as YAML, every default written out."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
