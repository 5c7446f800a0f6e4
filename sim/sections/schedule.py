"""Section on the schedule: when the server merges, and whom it waits for."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sim.sections.base import Count, NonNegative, Positive, Section


class ScheduleChoice(Section):
    """What every schedule has."""

    overhead_s: Positive = 0.1
    """Signalling and aggregation per round (s)."""
    server_flops: Positive = 1e13
    """Speed at which the server does the arithmetic of a merge, on top of the overhead, and, for
    each cell, its part of local steps where a method cuts the model (FLOP/s)."""


class Synchronous(ScheduleChoice):
    """Each round waits for its whole cohort."""

    name: Literal["synchronous"] = "synchronous"
    """synchronous"""


class Deadline(ScheduleChoice):
    """Each round ends after a time at the latest, without those who are late."""

    name: Literal["deadline"]
    """deadline"""
    deadline_s: Positive
    """Time from the end of the broadcast, or from the first download on, until the round is closed
    (s)."""
    late: Literal["cancel", "discard"] = "cancel"
    """cancel: late devices stop at the deadline; discard: they finish all the same, occupying band
    and themselves, and their update is thrown away."""


class OverSelection(ScheduleChoice):
    """Each round ends with the first devices of its cohort; the others are cancelled."""

    name: Literal["over-selection"]
    """over-selection"""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.77
    """Share of the cohort that is waited for, rounded up to whole devices."""


class Asynchronous(ScheduleChoice):
    """What schedules without rounds have."""

    concurrency: Count | None = None
    """Devices that are out at any time; null for the plan's expected cohort."""
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    """Factor on an update that is t merges old: 1; (1 + t)^-exponent; 1 up to t = delay, then
    1 / (exponent (t - delay) + 1)."""
    exponent: Annotated[float, Field(gt=0, le=1e3)] = 0.5
    """How fast the factor falls."""
    delay: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Merges that the hinge lets pass."""

    @model_validator(mode="after")
    def _of_the_hinge(self) -> Self:
        if self.staleness != "hinge" and self.delay:
            raise ValueError(f"delay = {self.delay}: belongs to staleness hinge; leave it out")
        if self.staleness == "constant" and self.exponent != 0.5:
            raise ValueError(
                f"exponent = {self.exponent:g}: staleness constant has none; leave it out"
            )
        return self


class FedBuff(Asynchronous):
    """The server merges whenever a buffer of updates is full, after arXiv 2106.06639."""

    name: Literal["fedbuff"]
    """fedbuff"""
    buffer: Count = 10
    """Updates per merge, K."""


class FedAsync(Asynchronous):
    """The server mixes every update in as it arrives, after arXiv 1903.03934."""

    name: Literal["fedasync"]
    """fedasync"""
    mixing: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share alpha of a fresh device's model in the new global model."""


AnySchedule = Annotated[
    Synchronous | Deadline | OverSelection | FedBuff | FedAsync, Field(discriminator="name")
]
"""Any of the schedules, by its name."""


class Crashes(Section):
    """Devices whose training breaks off."""

    mean_s: Positive
    """Mean computing time between two crashes of a device (s)."""


class Losses(Section):
    """Uploads that break off and are tried again."""

    probability: Annotated[float, Field(gt=0, lt=1)]
    """Probability that an attempt is lost, at a uniform point of the payload."""
    retries: Annotated[int, Field(ge=0, le=30)] = 3
    """Further attempts before a device gives up."""
    backoff_s: NonNegative = 0.1
    """Pause before the second attempt; it doubles with every further one (s)."""


class Restarts(Section):
    """A server that fails and starts again."""

    mean_s: Positive
    """Mean time between two failures (s)."""
    down_s: Positive = 10.0
    """Time until it is back (s)."""


class Failures(Section):
    """What goes wrong, each by a random stream of its own; by default nothing."""

    departures: bool = False
    """Whether a device that goes away in the middle of its part is lost with it; if not, who is
    there at the start stays to the end."""
    crashes: Crashes | None = None
    """Crashes while computing: {mean_s}; null for none."""
    losses: Losses | None = None
    """Losses of uploads: {probability, retries, backoff_s}; null for none."""
    restarts: Restarts | None = None
    """Failures of the server: {mean_s, down_s}; what is out is lost with it. Null for none."""

    @property
    def any(self) -> bool:
        """Whether anything can go wrong."""
        return self.departures or any((self.crashes, self.losses, self.restarts))
