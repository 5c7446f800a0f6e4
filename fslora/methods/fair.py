"""LoRA-FAIR: averaged factors, B corrected towards the mean of the products (arXiv 2411.14961).

Device n trains all r ranks from the common factors. The server averages them, A' = A + sum_n v_n
dA_n and B' likewise, and corrects B' by the dB that brings the product nearest to the mean of the
products, P = B A + sum_n v_n (B_n A_n - B A):

    dB = argmin |P - (B' + dB) A'|^2 + lambda mu |dB|^2 = E A'^T (A' A'^T + lambda mu I)^-1,

with mu = tr(A' A'^T) / r, so that lambda has no unit, and E = P - B' A' = sum_n v_n dB_n (dA_n -
sum_m v_m dA_m) as in FedEx-LoRA (own derivation), of which only r x r products are needed. Devices
go on from A' and B' + dB. P is unbiased under independent sampling; its projection is not.

Per layer r (d_in + d_out) numbers go up and as many down.

Departures from the paper, of which only a summary could be read: the distance is that of Frobenius,
which has a closed form, where the paper may take another; aggregation weights are those of the
policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.methods.fedex import residual
from fslora.sketch import add_changes


@dataclass(frozen=True, slots=True)
class LoRAFAIR(Method):
    """Averaged factors with a corrected B.

    Parameters
    ----------
    penalty_weight
        lambda, >= 0; zero for the nearest product.
    """

    penalty_weight: float = 0.01
    name: ClassVar[str] = "lora-fair"
    up: ClassVar[str] = "r * (d_in + d_out)"
    additive: ClassVar[bool] = False

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the factors, and correct B."""
        if not updates:
            return
        import torch

        adapter = state.adapter
        add_changes(adapter, updates, weight)
        for name, a in adapter.a.items():
            left_out = residual(updates, weight, name)
            right = left_out.b @ (left_out.a @ a.T)
            gram = a @ a.T
            size = gram.diagonal().mean()
            gram += self.penalty_weight * size * torch.eye(len(a), dtype=a.dtype, device=a.device)
            # A pseudo-inverse, as rows of A that nobody has moved may depend on each other.
            adapter.b[name] += right @ torch.linalg.pinv(gram, hermitian=True)

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """Means, r x r products per device, and a solution for every row of B."""
        per_device = 2.0 * rank * (rank + 2) * layout.numbers_per_rank
        solve = 2.0 * rank**2 * layout.numbers_per_rank + rank**3 * len(layout.layers)
        return len(ranks) * per_device + solve
