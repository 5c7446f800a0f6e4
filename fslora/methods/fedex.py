"""FedEx-LoRA: averaged factors, what their product lacks goes into the base (arXiv 2410.09432).

Device n trains all r ranks from the common factors. The server averages them, A' = A + sum_n v_n
dA_n and B' likewise, and adds to the frozen weights what the product of the means leaves out of the
mean of the products, so that the step is exact: W + s B A moves by s sum_n v_n (B_n A_n - B A),
unbiased under independent sampling. What is left out is of second order (own derivation),

    sum_n v_n (B_n A_n - B A) - (B' A' - B A) = sum_n v_n dB_n (dA_n - sum_m v_m dA_m),

of at most r ranks per device, which neither needs a d x d matrix nor cancels.

Per layer r (d_in + d_out) numbers go up; down go the factors, r (d_in + d_out), and the residual by
its factors, M r (d_in + d_out) for the M devices merged, or the changed weight itself where that is
less. Every device hears every broadcast; with unicast it is sent all residuals that it has missed.

Departure from the paper: aggregation weights are those of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.products import Product
from fslora.sketch import add_changes


@dataclass(frozen=True, slots=True)
class FedExLoRA(Method):
    """Averaged factors with an exact product."""

    name = "fedex-lora"
    up = "r * (d_in + d_out)"
    merged = "K * (d_in + d_out)"
    additive: ClassVar[bool] = False
    merges_into_base: ClassVar[bool] = True

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the factors, and add the residual to the base."""
        if not updates:
            return
        for name in state.adapter.a:
            state.base.add(name, residual(updates, weight, name), state.scale)
        add_changes(state.adapter, updates, weight)

    def merged_numbers(self, layout: Layout, rank: int, ranks: Sequence[int]) -> int:  # noqa: ARG002
        """The residual by its factors."""
        return sum(ranks) * layout.numbers_per_rank

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:  # noqa: ARG002
        """Means, and the product of the residual's factors."""
        dense = sum(d_in * d_out for d_in, d_out in layout.layers.values())
        return sum(ranks) * (2.0 * dense + 4.0 * layout.numbers_per_rank)


def residual(updates: Sequence[Update], weight: Sequence[float], name: str) -> Product:
    """What the product of a layer's averaged factors lacks of the mean of the products."""
    mean = sum(v * update.delta_a[name] for update, v in zip(updates, weight, strict=True))
    return Product.sum(
        (v, Product(update.delta_b[name], update.delta_a[name] - mean))
        for update, v in zip(updates, weight, strict=True)
    )
