"""FedIT, also called FedAvg-LoRA (arXiv 2305.05644): every device trains all r ranks.

In delta form with weights v_n the factors are averaged apart, A <- A + sum_n v_n dA_n and
B <- B + sum_n v_n dB_n, unbiased for every sampling of the devices; the product of two means is not
the mean of the products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fslora.methods.base import GlobalState, Method, Update
from fslora.sketch import add_changes


@dataclass(frozen=True, slots=True)
class FedIT(Method):
    """Full-rank factors, averaged."""

    name = "fedit"
    up = "r * (d_in + d_out)"
    sums = True

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the changes of both factors."""
        add_changes(state.adapter, updates, weight)
