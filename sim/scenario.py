"""The scenario: every choice of a run, validated whole before anything happens."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from sim.sections.base import Section, by_name
from sim.sections.course import Output, Stop, Synchronous
from sim.sections.fleet import FleetChoice
from sim.sections.learning import Data, Lora, MethodChoice, Model, Training
from sim.sections.policy import AnyPolicy, Joint
from sim.sections.radio import Radio

_BY_NAME = ("method", "policy", "schedule")

#: Sections that may be given as a bare value, and the key that it then is.
SHORT_FORMS = MappingProxyType(
    {
        **dict.fromkeys(_BY_NAME, "name"),
        **dict.fromkeys(
            ("environment", "modulation", "fading", "availability", "mobility"), "name"
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
    method: MethodChoice = MethodChoice()
    fleet: FleetChoice = FleetChoice()
    radio: Radio = Radio()
    policy: AnyPolicy = Joint()
    schedule: Synchronous = Synchronous()
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
