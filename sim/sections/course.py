"""Sections on how a run goes: policy, schedule, end, and what is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optimizer.rounds import Progress
from sim.sections.base import (
    Count,
    NonNegative,
    Positive,
    Probability,
    Section,
)

_ROUNDS = Progress()


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
