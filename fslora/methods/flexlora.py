"""FlexLoRA: products are averaged and cut to each device's rank by SVD (arXiv 2402.11505).

The server averages full products, dW = sum_n p_n B_n A_n, and keeps the nearest product of r ranks,
B A = U_r S_r V_r^T with B = U S and A = V^T, so that the first k columns of B and rows of A are the
nearest product of k ranks: what a device of rank k is sent. In delta form, B A + sum_n v_n
(B_n A_n - B A) is cut to r ranks: unbiased under independent sampling but for the cut, and for what
devices of less than r ranks were not sent, which the mean pulls to zero with their weights.

The sum is of r + sum_n k_n ranks. It is cut by QR of its stacked factors and an SVD of that size,
never by one of d_out x d_in.

Per layer k (d_in + d_out) numbers go up, and r (d_in + d_out) down: ranks are nested, so a
broadcast of all serves every device; unicast sends k.

Departures from the paper: aggregation weights are those of the policy; the scale is s for all
ranks; the state is cut to r ranks, where the paper keeps a full matrix on the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.products import Product, best_flops
from fslora.sketch import add_heads


@dataclass(frozen=True, slots=True)
class FlexLoRA(Method):
    """Averaged products, cut by SVD."""

    name = "flexlora"
    additive: ClassVar[bool] = False

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the products, and keep the best factors of r ranks."""
        if not updates:
            return
        adapter, total = state.adapter, sum(weight)
        for layer, name in enumerate(adapter.a):
            held = Product(adapter.b[name], adapter.a[name])
            trained = [
                (v, state.trained(update, layer, name))
                for update, v in zip(updates, weight, strict=True)
            ]
            best = Product.sum([(1.0 - total, held), *trained]).best(held.rank)
            adapter.b[name].copy_(best.b)
            adapter.a[name].copy_(best.a)
        add_heads(adapter, updates, weight)

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """The cut of the sum in every layer."""
        return sum(best_flops(*dims, rank + sum(ranks), rank) for dims in layout.layers.values())
