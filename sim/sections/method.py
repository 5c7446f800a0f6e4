"""Section on the method: how adapters are cut, trained, sent and merged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.sections.base import Count, NonNegative, NumberFormat, Probability, Section


class MethodChoice(Section):
    """What every method has."""

    number_format: NumberFormat = "float32"
    """Format of the numbers sent both ways; they are rounded to it."""
    keep: Probability = 1.0
    """Share of the numbers of each rank and factor that a device uploads, the largest changes,
    rounded up; the others count as unchanged."""
    value_bits: Literal[8, 4] | None = None
    """Bits to which uploaded changes are rounded at random, unbiased, with one scale per rank and
    factor; null for number_format."""


class FSLoRA(MethodChoice):
    """Sketches: each device trains some of the ranks (arXiv 2501.19389)."""

    name: Literal["fslora"] = "fslora"
    """fslora"""
    indices: Literal["random", "cyclic", "importance", "top"] = "random"
    """Which ranks a device gets: at random; a window that rolls by one every round; at random by
    their norms |b_j| |a_j|; those of the largest norms, which is biased."""


class HetLoRA(MethodChoice):
    """Factors padded with zeros (arXiv 2401.06432)."""

    name: Literal["hetlora"]
    """hetlora"""
    weights: Literal["norm", "data"] = "norm"
    """Aggregation by the norms of the updates' products, or by the policy's weights alone."""
    pruning_weight: NonNegative = 0.0
    """Weight of the norm of a device's last ranks in its loss (nats); zero for no self-pruning."""
    pruning_factor: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of its ranks that a device keeps whose last ranks have shrunk, rounded down to at least
    one."""


class LoRAFAIR(MethodChoice):
    """Averaged factors with a corrected B (arXiv 2411.14961)."""

    name: Literal["lora-fair"]
    """lora-fair"""
    penalty_weight: NonNegative = 0.01
    """Weight of the size of the correction, relative to that of A."""


class SOFT(MethodChoice):
    """The best ranks of near-orthogonal factors (arXiv 2505.00333)."""

    name: Literal["soft"]
    """soft"""
    orthogonality: NonNegative = 0.1
    """Weight of the squared scalar products of different ranks of a factor in the loss, nats."""


class FedHL(MethodChoice):
    """A dense update of which devices get the best ranks (arXiv 2505.18494)."""

    name: Literal["fedhl"]
    """fedhl"""
    weights: Literal["data", "fedhl"] = "data"
    """Aggregation by the policy's weights, or by how little of the update is cut off for a device,
    which is biased."""


class CELoRA(MethodChoice):
    """Personal factors around a small core, of which devices get means (arXiv 2503.23869)."""

    name: Literal["ce-lora"]
    """ce-lora"""
    similarity: Literal["model", "none"] = "model"
    """What a device's mean of the cores goes by, beside numbers of examples: how much alike two
    devices have changed their cores, or nothing."""


class HierFedLoRA(MethodChoice):
    """Averages inside near-IID groups, and more rarely over all (arXiv 2503.21213)."""

    name: Literal["hierfedlora"]
    """hierfedlora"""
    groups: Count = 2
    """Groups of devices."""
    group_rounds: Count = 2
    """Rounds from one average over all groups to the next."""


class SplitLoRA(MethodChoice):
    """Devices hold the first blocks, the server the rest (arXiv 2407.00952)."""

    name: Literal["splitlora"]
    """splitlora"""
    blocks: Count = 1
    """Blocks that devices hold, with the embeddings before them; fewer than the model has."""


class Plain(MethodChoice):
    """Methods without parameters of their own."""

    name: Literal[
        "fedit",
        "replication",
        "flexlora",
        "flora",
        "ffa-lora",
        "rolora",
        "fedsa-lora",
        "fedex-lora",
        "hafl",
    ]
    """See `sim list methods`."""


AnyMethod = Annotated[
    FSLoRA | HetLoRA | LoRAFAIR | SOFT | FedHL | CELoRA | HierFedLoRA | SplitLoRA | Plain,
    Field(discriminator="name"),
]
"""Any of the methods, by its name."""


def own_parameters(choice: MethodChoice) -> dict[str, Any]:
    """Keys and values that a method declares itself, beside those of every method."""
    return {key: getattr(choice, key) for key in type(choice).__annotations__ if key != "name"}
