"""FFA-LoRA: A is drawn once and frozen, only B is trained (arXiv 2403.12313).

All devices share A_0; device n trains B_n, and the server adds B <- B + sum_n v_n (B_n - B). The
products add up exactly, sum_n v_n (B_n - B) A_0, whatever the weights, so the method is unbiased
under independent sampling. A follows from the seed that the run starts from and is never sent.

Per layer r d_out numbers go up and r d_out down.

Departures from the paper, of which only abstract and reviews could be read: aggregation weights
are those of the policy, and a device of rank k < r trains the first k columns of B, beside the
first k rows of A_0 and at the same scale s, so that the product stays exact. Differential privacy,
for which the paper is made, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fslora.lora import Adapter
from fslora.methods.base import GlobalState, Job, Method, Part, Slice, Update, first_ranks
from fslora.sketch import add_changes


@dataclass(frozen=True, slots=True)
class FFALoRA(Method):
    """One factor, averaged."""

    name = "ffa-lora"
    up = "k * d_out"
    down = "r * d_out"
    sums = True

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:  # noqa: ARG002
        """The first k ranks, A frozen."""
        return first_ranks(len(adapter.a), job.rank, "a")

    def frozen(self, phase: int) -> Part:  # noqa: ARG002
        """A is never trained."""
        return "a"

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the changes of B."""
        add_changes(state.adapter, updates, weight)

    def vectors_up(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Columns of B."""
        return (d_out,)

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Columns of B."""
        return (d_out,)
