"""HetLoRA: factors cut to each device's rank, padded with zeros and averaged (arXiv 2401.06432).

A device of rank k gets the first k ranks, trains and sends them. The server pads what it gets with
zeros to r ranks and averages with weights w_n in proportion to the Frobenius norms |B_n A_n| over
all layers ("sparsity-weighted"), so that updates that hold little weigh little. In delta form

    X <- X + sum_n w_n (pad(X_n) - X),  w_n = v_n |B_n A_n| sum_m v_m / sum_m v_m |B_m A_m|,

which is FedIT where ranks and norms are equal. Padding pulls the last ranks towards zero by the
weights of those who do not hold them, and norms are normalised over the cohort: under independent
sampling the mean is biased by both.

Self-pruning, with a weight lambda > 0: a device of rank k adds to its loss, in every layer,

    lambda |B_tail| |A_tail|,  tail = all ranks but the first k' = max(1, floor(gamma k)),

and if these products, summed over the layers, are smaller when it has trained than when it began,
it trains no more than k' ranks from then on. What it has trained it sends whole; how
many ranks it keeps goes with it, and is not counted. Plans do not foresee it.

Per layer k (d_in + d_out) numbers go up, and r (d_in + d_out) down: ranks are nested, so a
broadcast of all serves every device; unicast sends k. Norms follow from what is sent.

Departures from the paper, of which only summaries could be read: the policy's weights v_n enter; a
rank is what the policy gives, where the device has not kept fewer; the rule by which a device
prunes is ours, and as its upload is simulated before it is trained, a rank that is given up is
still sent once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from fslora.lora import Adapter, Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.sketch import add_heads

if TYPE_CHECKING:
    from torch import Tensor

    from fslora.stacked import Stack


@dataclass(frozen=True, slots=True)
class HetLoRA(Method):
    """Zero-padded factors, averaged by their norms.

    Parameters
    ----------
    weights
        `norm`, as above, or `data` for w_n = v_n.
    pruning_weight
        lambda, >= 0; zero for no self-pruning.
    pruning_factor
        gamma, in (0, 1).
    """

    weights: Literal["norm", "data"] = "norm"
    pruning_weight: float = 0.0
    pruning_factor: float = 0.75
    name: ClassVar[str] = "hetlora"
    additive: ClassVar[bool] = False

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average what devices hold, padded with zeros."""
        if not updates:
            return
        adapter, share = state.adapter, self.shares(state, updates, weight)
        for layer, name in enumerate(adapter.a):
            trained = [state.trained(update, layer, name) for update in updates]
            for total, parts in (
                (adapter.a[name], [each.a for each in trained]),
                (adapter.b[name].T, [each.b.T for each in trained]),
            ):
                total.mul_(1.0 - sum(share))
                for part, w in zip(parts, share, strict=True):
                    total[: len(part)].add_(part, alpha=w)
        add_heads(adapter, updates, weight)

    def shares(
        self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]
    ) -> list[float]:
        """Weights w_n (M,), which add up to what the v_n do."""
        if self.weights == "data":
            return list(weight)
        names = list(state.adapter.a)
        norm = [
            math.hypot(*(state.trained(u, layer, name).norm() for layer, name in enumerate(names)))
            for u in updates
        ]
        total = sum(v * size for v, size in zip(weight, norm, strict=True))
        if total == 0.0:
            return list(weight)  # nobody has learnt anything
        return [v * size * sum(weight) / total for v, size in zip(weight, norm, strict=True)]

    def left(self, sketch_rank: int) -> int | None:
        """The first k'."""
        if not self.pruning_weight:
            return None
        return max(1, math.floor(self.pruning_factor * sketch_rank))

    def penalty(self, factors: Stack) -> Tensor | None:
        """Norms of the tails' factors, over all devices of a stack."""
        if not self.pruning_weight:
            return None
        import torch

        held = (factors.scale[:, 0] > 0).sum(1, keepdim=True)
        first = (self.pruning_factor * held.double()).floor().clamp(min=1)
        # Padding is zero, and so is its gradient.
        tail = torch.arange(factors.scale.shape[2], device=held.device) >= first
        total = [
            (a * tail.unsqueeze(2)).norm(dim=(1, 2))
            * (factors.b[name] * tail.unsqueeze(1)).norm(dim=(1, 2))
            for name, a in factors.a.items()
        ]
        return self.pruning_weight * torch.stack(total).sum()

    def sent(self, update: Update, sketch_rank: int, start: Adapter) -> Update:
        """All that was trained, and how many ranks the device keeps."""
        left, before, after = self.left(sketch_rank), 0.0, 0.0
        if left is None:
            return update
        tail = slice(left, sketch_rank)
        for name, delta in update.delta_a.items():
            a, b = start.a[name][tail], start.b[name][:, tail]
            before += float(a.norm() * b.norm())
            moved_a, moved_b = a + delta[tail], b + update.delta_b[name][:, tail]
            after += float(moved_a.norm() * moved_b.norm())
        return replace(update, rank_kept=left if after < before else sketch_rank)

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:  # noqa: ARG002
        """Sums, and norms by k x k matrices."""
        per_rank = layout.numbers_per_rank
        return sum(2.0 * k * per_rank + 2.0 * k * k * per_rank for k in ranks)
