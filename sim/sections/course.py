"""Sections on how a run goes: when it ends, and what is measured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sim.sections.base import Count, Positive, Section


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
    """What is measured on the way, and how much of it is written."""

    evaluate_every: Count = 2
    """Rounds between evaluations; round 0 and the last are always evaluated."""
    timeline: Literal["rounds", "devices", "full"] = "devices"
    """What is written of the course of rounds: rounds, their totals alone; devices, what every
    device did and the band in use; full, every span of constant band too."""
    checkpoint_every: Count | None = 10
    """Rounds between checkpoints, from which an interrupted run goes on; null for none but when it
    is interrupted."""
    parquet: bool = False
    """Whether the files on the course of rounds are written as Parquet, too."""

    @model_validator(mode="after")
    def _something_to_write(self) -> Self:
        if self.parquet and self.timeline == "rounds":
            raise ValueError(
                "parquet = true: with timeline = 'rounds' there is nothing to write; set "
                "output.timeline = devices or full"
            )
        return self
