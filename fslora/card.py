"""What the shape of a model says about its training: layers, and the cost of a round.

Finding it takes torch and transformers, whose import takes longer than all else that a run does
before it starts; what is found is small. `fslora.apart` finds it where they are not wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from fslora.compression import Compression
from fslora.cost import AdapterCost
from fslora.local import LocalTraining, Optimizer
from fslora.lora import Layout, Targets, find_layout
from fslora.methods import METHODS
from fslora.models import max_tokens, shape_of
from fslora.tasks import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TooLong(ValueError):
    """Examples are longer than the model takes."""


@dataclass(frozen=True, slots=True)
class Question:
    """All that a card depends on.

    Parameters
    ----------
    model, task, classes, pad_token
        As in `fslora.models.load_model`.
    dtype
        Name of the number format that the base computes in.
    nf4
        Whether its linear layers hold 4-bit weights.
    targets, dropout
        As in `LoraSpec`.
    method
        Name of the method, which decides what is sent.
    rank
        Global rank r.
    bits_per_number
        Size of a transferred number.
    keep, value_bits
        As in `Compression`.
    length
        Tokens of an example of full length.
    batch, optimizer, momentum
        As in `LocalTraining`: examples per step, and what decides the optimizer's state.
    checkpointing
        Whether blocks are checkpointed.
    device_blocks
        Blocks that devices hold; None for the whole model.
    """

    model: str
    task: Task
    classes: int
    pad_token: int
    dtype: str
    nf4: bool
    targets: Targets
    dropout: float
    method: str
    rank: int
    bits_per_number: int
    keep: float
    value_bits: int | None
    length: int
    batch: int
    optimizer: Optimizer
    momentum: float
    checkpointing: bool
    device_blocks: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The question as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The question that `to_json` wrote down."""
        given = values["targets"]
        return cls(**{**values, "targets": given if isinstance(given, str) else tuple(given)})


@dataclass(frozen=True, slots=True)
class Card:
    """What is trained of a model, and what a device's round of it costs.

    Parameters
    ----------
    layout
        Adapted layers and trained heads.
    costs
        Traffic, arithmetic and memory as functions of the rank, for each phase of the method.
    sent
        What of the layout goes over the air: all of it, or what devices hold.
    """

    layout: Layout
    costs: tuple[AdapterCost, ...]
    sent: Layout

    def to_json(self) -> dict[str, Any]:
        """The card as JSON values."""
        return {
            "layout": _layout_to_json(self.layout),
            "costs": [asdict(cost) for cost in self.costs],
            "sent": _layout_to_json(self.sent),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The card that `to_json` wrote down."""
        costs = []
        for cost in values["costs"]:
            given: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in cost.items()
            }
            costs.append(AdapterCost(**given))
        layout, sent = (_layout_from_json(values[name]) for name in ("layout", "sent"))
        return cls(layout, tuple(costs), sent)


def _layout_to_json(layout: Layout) -> dict[str, Any]:
    return {
        "layers": {name: list(dims) for name, dims in layout.layers.items()},
        "heads": {name: list(dims) for name, dims in layout.heads.items()},
        "transposed": sorted(layout.transposed),
        "core": layout.core,
    }


def _layout_from_json(values: Mapping[str, Any]) -> Layout:
    layers = {name: (d_in, d_out) for name, (d_in, d_out) in values["layers"].items()}
    heads = {name: (d_in, d_out, bias) for name, (d_in, d_out, bias) in values["heads"].items()}
    return Layout(layers, heads, frozenset(values["transposed"]), values["core"])


def make_card(question: Question) -> Card:
    """Find the layers and count the cost, with torch in this process.

    Raises
    ------
    CutError
        If it cannot be cut where it is to be.
    ModelError
        If the model cannot be had, or does not fit the task or the checkpointing.
    TooLong
        If it does not take examples of that length.
    UnknownHead, UnknownTarget
        If what is to be trained is not found.
    """
    import torch

    from fslora.counting import count_costs, device_layout

    task = question.task

    def make_shape() -> PreTrainedModel:
        dtype = getattr(torch, question.dtype)
        return shape_of(question.model, task, question.classes, question.pad_token, dtype)

    shape = make_shape()
    positions = max_tokens(shape)
    if positions is not None and question.length > positions:
        raise TooLong(f"{question.model} takes at most {positions} tokens")
    found = find_layout(shape, question.targets, heads=task == "classification")
    layout = replace(found, core=question.rank if METHODS[question.method].core else 0)
    costs = count_costs(
        shape,
        layout,
        METHODS[question.method],
        question.rank,
        # Neither steps nor step size bear on what a step costs.
        LocalTraining(1, question.batch, 1.0, question.momentum, optimizer=question.optimizer),
        question.length,
        task,
        question.bits_per_number,
        question.nf4,
        question.checkpointing,
        question.dropout,
        Compression(question.keep, question.value_bits),
        question.device_blocks,
    )
    if question.device_blocks is None:
        return Card(layout, costs, layout)
    part = device_layout(make_shape(), layout, question.device_blocks, question.length)
    return Card(layout, costs, part)
