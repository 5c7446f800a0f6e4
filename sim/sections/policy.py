"""Section on the policy: who takes part at which rank, by which model, under which bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from optimizer.rounds import Progress
from sim.sections.base import Count, NonNegative, Positive, Probability, Section

_PROGRESS = Progress()

Constant = Annotated[float, Field(ge=0, le=1e9)]
Rounds = Annotated[float, Field(gt=0, le=1e9)]


class ProgressRounds(Section):
    """Rounds = base / sum a (k/r)^p + sampling * sum A (r/k) / q."""

    model: Literal["progress"] = "progress"
    """progress"""
    base: Rounds = _PROGRESS.base
    """Rounds with everybody at full rank."""
    sampling: Constant = _PROGRESS.sampling
    """Weight of the sampling variance."""
    rank_exponent: Annotated[float, Field(ge=0, le=10)] = _PROGRESS.rank_exponent
    """p: how progress falls with the sketching ratio."""


class SamplingRounds(Section):
    """Rounds = base + sampling * sum A ((r/k) / q - 1)."""

    model: Literal["sampling"]
    """sampling"""
    base: Rounds = _PROGRESS.base
    """Rounds with everybody at full rank."""
    sampling: Constant = _PROGRESS.sampling
    """Weight of the sampling variance."""


class RankCostRounds(Section):
    """Rounds = base + sampling * sum A / q + rank * sum a r/k."""

    model: Literal["rank-cost"]
    """rank-cost"""
    base: Rounds = _PROGRESS.base
    """Rounds that neither sampling nor ranks change."""
    sampling: Constant = _PROGRESS.sampling
    """Weight of the sampling variance."""
    rank: Constant = 0.0
    """Weight of the mean of r/k."""


class SmoothnessRounds(Section):
    """Rounds = (sum a r/k) * (base + sampling * sum A / q)."""

    model: Literal["smoothness"]
    """smoothness"""
    base: Rounds = _PROGRESS.base
    """Rounds with everybody at full rank, without sampling noise."""
    sampling: Constant = _PROGRESS.sampling
    """Weight of the sampling variance."""


class TabulatedRounds(Section):
    """Rounds = constant + sum over devices of per_probability[k] / q + fixed[k], from a file."""

    model: Literal["tables"]
    """tables"""
    constant: Annotated[float, Field(ge=-1e9, le=1e9)] = 0.0
    """Rounds added to those of the tables."""
    file: Annotated[str, Field(min_length=1)]
    """CSV file `device,rank,per_probability,fixed`, a row for every device and every rank from 1 to
    lora.rank, its path taken from the working directory."""


class Replan(Section):
    """When the plan is made anew; the rounds so far and the channels of the moment go into it."""

    every: Count | None = None
    """Rounds under a plan before the next; null for no such limit."""
    drift: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """Plan anew as soon as the mean round time is further from the predicted one than this share of
    it, beyond what the sampling of cohorts explains; null for never."""
    cost_s: NonNegative = 0.0
    """Simulated time that a new plan takes, charged before the round it is for; the first is made
    before the clock starts (s)."""

    @model_validator(mode="after")
    def _some_reason(self) -> Self:
        if self.every is None and self.drift is None:
            raise ValueError("every: give every or drift, or leave policy.replan out")
        return self


class PolicyChoice(Section):
    """What every policy has."""

    min_probability: Probability = 0.05
    """No device is sampled more rarely."""
    min_participation: Probability | None = None
    """Long-term fairness: least probability that a device is sampled, there and not in outage, so
    that it completes at least this share of the rounds on average; null for none."""
    min_cohort: NonNegative = 1.0
    """Least expected number of sampled devices."""
    max_noise: Positive | None = 4.0
    """Most noise, sum A (r/k) / q, of plans whose policy chooses the probabilities: with more,
    training is likely to be lost (docs/rounds.md). Where everybody at the largest rank has more,
    that is the limit; null for none."""
    deadline_s: Positive | None = None
    """Most that a round may last on average, broadcast and overhead included (s); null for no
    limit."""
    energy_limit_j: Positive | None = None
    """Most energy that a device may spend per round on average, over the rounds that it sits out
    too: its power times compute time, radiated power times the time from then until the round's
    uploads end (J); null for no limit."""
    rounds: Annotated[
        ProgressRounds | SamplingRounds | RankCostRounds | SmoothnessRounds | TabulatedRounds,
        Field(discriminator="model"),
    ] = ProgressRounds()
    """Round model that plans are judged by: progress, sampling, rank-cost, smoothness or tables;
    see docs/rounds.md."""
    knowledge: Literal["statistics", "estimated", "oracle"] = "statistics"
    """What plans know of the devices' gradients. statistics: nothing, equal norms; estimated: what
    the updates and losses so far tell, for which policy.replan is needed; oracle: norms measured on
    every device before the run, which costs no simulated time."""
    replan: Replan | None = None
    """When the plan is made anew: {every, drift, cost_s}; null for one plan for the whole run."""

    @field_validator("rounds", mode="before")
    @classmethod
    def _by_model(cls, value: Any) -> Any:
        """`rounds: sampling` is short for `rounds: {model: sampling}`; unnamed it is progress."""
        if isinstance(value, dict):
            return {"model": "progress", **value}
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _estimates_are_used(self) -> Self:
        if self.knowledge == "estimated" and self.replan is None:
            raise ValueError(
                "knowledge = 'estimated': only a new plan uses estimates; give policy.replan, such "
                "as {every: 10}"
            )
        return self


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


class DataProportional(PolicyChoice):
    """Probabilities in proportion to the devices' data, on the scale that is best."""

    name: Literal["data-proportional"]
    """data-proportional"""


class Statistical(PolicyChoice):
    """Probabilities of the least sampling variance for their sum, on the scale that is best."""

    name: Literal["statistical"]
    """statistical"""


class Luo(PolicyChoice):
    """Probabilities by a linear form of the round time, after arXiv 2112.11256."""

    name: Literal["luo"]
    """luo"""
    cohort: Positive | None = None
    """Expected number of sampled devices; null for the best by the form."""


class MeanField(PolicyChoice):
    """Rank and probability by the mean-field round time, a geometric program."""

    name: Literal["mean-field"]
    """mean-field"""


class FedCS(PolicyChoice):
    """The quickest devices that a deadline has room for, after arXiv 1804.08333; biased."""

    name: Literal["fedcs"]
    """fedcs"""
    deadline_s: Positive | None = None
    """Longest round, broadcast and overhead included; null for as long as the quickest half of the
    devices take (s)."""


class Shi(PolicyChoice):
    """The set of devices that trades rounds for round time best, after arXiv 2007.07174; biased."""

    name: Literal["shi"]
    """shi"""


class RankByCapability(PolicyChoice):
    """Ranks with which devices take equally long, after arXiv 2401.06432; one probability."""

    name: Literal["rank-by-capability"]
    """rank-by-capability"""
    solo_s: Positive | None = None
    """What download, training and upload may take a device alone on the band; null for the median
    at the largest ranks (s)."""


class _Learning(PolicyChoice):
    """What policies have whose sampler goes by the rounds before."""

    @model_validator(mode="after")
    def _keeps_what_it_learnt(self) -> Self:
        if self.replan is not None:
            raise ValueError(
                "replan: a new plan would forget what this policy learns from round to round; "
                "leave it out"
            )
        return self


class Oort(_Learning):
    """Cohorts of devices that were useful and quick so far, after arXiv 2010.06081; biased."""

    name: Literal["oort"]
    """oort"""
    cohort: Count | None = None
    """Devices per round; null for a tenth of the fleet, at least min_cohort."""
    penalty: NonNegative = 2.0
    """Exponent of the penalty on slow devices."""
    exploration: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Share of the first cohort that has not trained before; it falls to a fifth."""


class Tsfa(_Learning):
    """Ranks cut round by round under a bound on the mean round time, after arXiv 2505.00333."""

    name: Literal["tsfa"]
    """tsfa"""
    probability: Probability | None = None
    """Sampling probability of every device; null for the best by the round model."""
    mean_round_s: Positive | None = None
    """Mean round time aimed at; null for deadline_s, and without one for the expected round time at
    the structural rank (s)."""
    tradeoff: NonNegative = 1.0
    """How much the variance of sketches counts against round time; high values cut ranks less."""


AnyPolicy = Annotated[
    Joint
    | Uniform
    | Full
    | DataProportional
    | Statistical
    | Luo
    | MeanField
    | FedCS
    | Shi
    | RankByCapability
    | Oort
    | Tsfa,
    Field(discriminator="name"),
]
"""Any of the policies, by its name."""


def own_parameters(choice: PolicyChoice) -> dict[str, Any]:
    """Keys and values that a policy declares itself, beside those of every policy."""
    return {key: getattr(choice, key) for key in type(choice).__annotations__ if key != "name"}
