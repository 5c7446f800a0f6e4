"""FLoRA: fresh factors every round, stacked and merged into the base (arXiv 2409.05976).

Device n starts from B = 0 and a fresh A, trains k_n ranks and sends them. Stacked, weighted B_n
side by side and A_n one below the other, they are the factors of the weighted sum of products,
which the server and every device add to the frozen weights: W <- W + s sum_n v_n B_n A_n. As each
product is the whole change of its device, the sum is unbiased under independent sampling, and
exact.

Per layer k (d_in + d_out) numbers go up; down goes the stack, sum_n k_n (d_in + d_out) over the
cohort merged last, or the changed weight itself where that is less. A follows from the seed of the
run and the round and is not sent. Every device hears every broadcast; with unicast it is sent all
stacks that it has missed.

Departures from the paper: one A for all devices of a round, cut to their ranks, in place of one of
each device's own, and one scale s for all ranks; aggregation weights are those of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.products import Product
from fslora.sketch import add_heads


@dataclass(frozen=True, slots=True)
class FLoRA(Method):
    """Products, stacked and merged into the base."""

    name = "flora"
    down = "0"
    merged = "K * (d_in + d_out)"
    additive: ClassVar[bool] = False
    merges_into_base: ClassVar[bool] = True

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Add the stack to the base, and begin afresh."""
        if not updates:
            return
        adapter = state.adapter
        for layer, name in enumerate(adapter.a):
            # Zero, but for what a run has started from, which goes into the base as well.
            held = Product(adapter.b[name], adapter.a[name])
            stack = [
                (v, state.change(u, layer, name)) for u, v in zip(updates, weight, strict=True)
            ]
            state.base.add(name, Product.sum([(1.0, held), *stack]), state.scale)
            adapter.a[name].copy_(state.fresh_rows(name, held.rank))
            adapter.b[name].zero_()
        add_heads(adapter, updates, weight)

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Nothing beside the stack."""
        return ()

    def merged_numbers(self, layout: Layout, rank: int, ranks: Sequence[int]) -> int:  # noqa: ARG002
        """The stack: all ranks that were merged."""
        return sum(ranks) * layout.numbers_per_rank

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:  # noqa: ARG002
        """Weighting the stack, and adding its product to the base."""
        dense = sum(d_in * d_out for d_in, d_out in layout.layers.values())
        return sum(ranks) * (2.0 * dense + layout.numbers_per_rank)
