"""FedSA-LoRA: both factors are trained, A is averaged, B stays on the device (arXiv 2410.01463).

Device n starts from the common A and from its own B_n, as it left it when it trained last, zero at
first; it trains both and sends A_n. The server averages A <- A + sum_n v_n (A_n - A), unbiased
under independent sampling. What a device computes with is s B_n A; there is no global model, so
evaluations are means over devices' own. Heads are averaged.

Per layer r d_in numbers go up and r d_in down; a device stores r d_out.

Departures from the paper, whose code and abstract were read: aggregation weights are those of the
policy; heads are common, where the published GLUE runs keep them on the devices. An update that
does not count is not trained, so its device keeps the B that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.methods.base import GlobalState, Method, Part, Update
from fslora.sketch import add_heads


@dataclass(frozen=True, slots=True)
class FedSALoRA(Method):
    """A averaged, B personal."""

    name = "fedsa-lora"
    up = "r * d_in"
    down = "r * d_in"
    sums = True
    personal: ClassVar[tuple[Part, ...]] = ("b",)

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r: a device's B has all its columns."""
        return sketch_rank == rank

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the changes of A and of the heads."""
        for update, v in zip(updates, weight, strict=True):
            for name, change in update.delta_a.items():
                state.adapter.a[name].add_(change, alpha=v * update.factor_gain)
        add_heads(state.adapter, updates, weight)

    def vectors_up(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Rows of A."""
        return (d_in,)

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Rows of A."""
        return (d_in,)
