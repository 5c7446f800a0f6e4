"""Server optimizers: what the server does with the cohort's mean change.

The weighted sum of changes that a method adds to the global state is taken as a pseudo-gradient
(arXiv 2003.00295). It is unbiased under independent sampling; a step of Adam made from it is not,
since its denominator is a function of the same draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from fslora.lora import Adapter
from fslora.methods.base import GlobalState, Method, Update

ServerRule = Literal["plain", "momentum", "adam"]

#: What a rule keeps from round to round, per number of the global state.
_MOMENTS: Mapping[ServerRule, tuple[str, ...]] = MappingProxyType(
    {"plain": (), "momentum": ("first",), "adam": ("first", "second")}
)


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """How the server moves along the pseudo-gradient Delta.

    Parameters
    ----------
    rule
        `plain`: X + eta Delta. `momentum` (FedAvgM, arXiv 1909.06335): v = beta_1 v + Delta,
        X + eta v. `adam` (FedAdam, arXiv 2003.00295, which corrects no bias):
        m = beta_1 m + (1 - beta_1) Delta, v = beta_2 v + (1 - beta_2) Delta^2,
        X + eta m / (sqrt(v) + tau).
    learning_rate
        eta.
    momentum
        beta_1, in [0, 1).
    second_momentum
        beta_2, in [0, 1).
    adaptivity
        tau > 0; large, Adam becomes momentum.
    weight_decay
        Decoupled decay: what is moved is first multiplied by 1 - eta weight_decay.
    """

    rule: ServerRule = "plain"
    learning_rate: float = 1.0
    momentum: float = 0.9
    second_momentum: float = 0.99
    adaptivity: float = 1e-3
    weight_decay: float = 0.0

    @property
    def is_plain_sum(self) -> bool:
        """Whether the method's own sum is already the new state."""
        return self.rule == "plain" and self.learning_rate == 1.0 and not self.weight_decay


class Server:
    """The server's optimizer with its state.

    Ranks and heads that no device of the cohort updated are left alone: they keep their bits, and
    their momentum neither moves them nor decays.

    Parameters
    ----------
    optimizer
        The rule.
    method
        Merges updates into a state; additive, if the rule is not the plain sum.
    adapter
        A state of the shape of those to come.

    Attributes
    ----------
    moments
        The optimizer's state: per moment of the rule, `first` and `second`, a tensor for each of
        `named_tensors`; zeros at first.
    """

    def __init__(self, optimizer: ServerOptimizer, method: Method, adapter: Adapter) -> None:
        self._optimizer = optimizer
        self._method = method
        self.moments: Mapping[str, dict[str, Tensor]] = {
            moment: {
                name: torch.zeros_like(value) for name, value in named_tensors(adapter).items()
            }
            for moment in _MOMENTS[optimizer.rule]
        }

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Move the global state by the updates with aggregation weights v_n, in place."""
        adapter = state.adapter
        if self._optimizer.is_plain_sum or not updates:
            self._method.merge(state, updates, weight)
            return
        before = [value.clone() for value in named_tensors(adapter).values()]
        self._method.merge(state, updates, weight)
        moved = _moved(adapter, updates)
        for (name, value), start in zip(named_tensors(adapter).items(), before, strict=True):
            self._move(name, value, start, moved.get(name))

    def _move(self, name: str, value: Tensor, start: Tensor, moved: Tensor | None) -> None:
        """Replace the sum `value` = start + Delta by the optimizer's step, where `moved`."""
        rule = self._optimizer
        change = value - start
        where = torch.ones_like(change, dtype=torch.bool) if moved is None else moved
        step = change
        if rule.rule != "plain":
            first = self.moments["first"][name]
            share = 1 - rule.momentum if rule.rule == "adam" else 1.0
            first.copy_(torch.where(where, rule.momentum * first + share * change, first))
            step = first
        if rule.rule == "adam":
            second = self.moments["second"][name]
            blend = rule.second_momentum * second + (1 - rule.second_momentum) * change.square()
            second.copy_(torch.where(where, blend, second))
            step = first / (second.sqrt() + rule.adaptivity)
        decayed = start * (1 - rule.learning_rate * rule.weight_decay)
        value.copy_(torch.where(where, decayed + rule.learning_rate * step, start))


def named_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Every tensor of a state, not copied, under a name of its own: `a.LAYER`, `head.NAME`."""
    return adapter.trained() | {f"kept.{name}": value for name, value in adapter.kept.items()}


def _moved(adapter: Adapter, updates: Sequence[Update]) -> dict[str, Tensor]:
    """Per factor which of its ranks some device updated, as a mask that broadcasts over it."""
    masks = {}
    for layer, name in enumerate(adapter.a):
        rank = adapter.a[name].shape[0]
        mask = torch.zeros(rank, dtype=torch.bool)
        for update in updates:
            mask[torch.from_numpy(update.slice.indices[layer])] = True
        mask = mask.to(adapter.a[name].device)
        masks[f"a.{name}"], masks[f"b.{name}"] = mask.unsqueeze(1), mask.unsqueeze(0)
    return masks
