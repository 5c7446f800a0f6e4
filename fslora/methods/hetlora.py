"""HetLoRA: factors cut to each device's rank, padded with zeros and averaged (arXiv 2401.06432).

A device of rank k gets the first k ranks, trains and sends them. The server pads what it gets with
zeros to r ranks and averages with weights w_n in proportion to the Frobenius norms |B_n A_n| over
all layers ("sparsity-weighted"), so that updates that hold little weigh little. In delta form

    X <- X + sum_n w_n (pad(X_n) - X),  w_n = v_n |B_n A_n| sum_m v_m / sum_m v_m |B_m A_m|,

which is FedIT where ranks and norms are equal. Padding pulls the last ranks towards zero by the
weights of those who do not hold them, and norms are normalised over the cohort: under independent
sampling the mean is biased by both.

Per layer k (d_in + d_out) numbers go up, and r (d_in + d_out) down: ranks are nested, so a
broadcast of all serves every device; unicast sends k. Norms follow from what is sent.

Departures from the paper, of which only summaries could be read: the policy's weights v_n enter,
and devices do not prune their ranks by themselves; a rank is what the policy gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.sketch import add_heads


@dataclass(frozen=True, slots=True)
class HetLoRA(Method):
    """Zero-padded factors, averaged by their norms.

    Parameters
    ----------
    weights
        `norm`, as above, or `data` for w_n = v_n.
    """

    weights: Literal["norm", "data"] = "norm"
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

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:  # noqa: ARG002
        """Sums, and norms by k x k matrices."""
        per_rank = layout.numbers_per_rank
        return sum(2.0 * k * per_rank + 2.0 * k * k * per_rank for k in ranks)
