"""Sections on how a run goes: when it ends, and what is measured."""

from __future__ import annotations

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
    """What is measured on the way."""

    evaluate_every: Count = 2
    """Rounds between evaluations; round 0 and the last are always evaluated."""
