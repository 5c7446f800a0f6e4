"""RoLoRA: rounds train B and A in turn, the other factor frozen (arXiv 2409.02346, 2502.01755).

In rounds 1, 3, ... all devices train B beside the common A, in rounds 2, 4, ... A beside the common
B; the server averages the trained factor, X <- X + sum_n v_n (X_n - X). With the other factor in
common the products add up exactly, so the method is unbiased under independent sampling. The first
round has to train B: while B is zero the gradient of A vanishes.

Per layer a device sends r d_out numbers in the rounds of B and r d_in in those of A. What it lacks
is the factor that was averaged the round before, the other one, so r d_in and r d_out go down.
Every device hears every broadcast; with unicast a device that skipped a round lacks more, which is
not counted.

Departures from the paper, of which only abstract and notes could be read: aggregation weights are
those of the policy, an empty cohort does not stop the alternation, and a device of rank k < r
trains the first k ranks at the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fslora.lora import Adapter
from fslora.methods.base import GlobalState, Job, Method, Part, Slice, Update, first_ranks
from fslora.sketch import add_changes


@dataclass(frozen=True, slots=True)
class RoLoRA(Method):
    """Factors in turn, each averaged."""

    name = "rolora"
    up = "k * (d_out if round % 2 else d_in)"
    down = "r * (d_in if round % 2 else d_out)"
    sums = True
    phases = 2

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:  # noqa: ARG002
        """The first k ranks, one factor frozen."""
        return first_ranks(len(adapter.a), job.rank, self.frozen((job.round - 1) % self.phases))

    def frozen(self, phase: int) -> Part:
        """A in the first round of two, B in the second."""
        return "b" if phase else "a"

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the changes of the trained factor."""
        add_changes(state.adapter, updates, weight)

    def vectors_up(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:
        """What is trained."""
        return (d_in,) if phase else (d_out,)

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:
        """What was trained in the round before."""
        return (d_out,) if phase else (d_in,)
