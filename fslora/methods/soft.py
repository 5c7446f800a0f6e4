"""SOFT: near-orthogonal factors, of which a device sends the best ranks (arXiv 2505.00333).

Every device gets and trains all r ranks, on its loss plus a penalty that keeps the rows a_j of A
and the columns b_j of B near-orthogonal,

    R = lambda sum over layers of sum_{i != j} (a_i . a_j)^2 + sum_{i != j} (b_i . b_j)^2.

Where the rows of either factor are orthogonal, leaving out all ranks but those in I costs

    |B A - B_I A_I|^2 = sum_{i, j not in I} (b_i . b_j) (a_i . a_j) = sum_{j not in I} e_j^2

with e_j = |b_j| |a_j| (own derivation), so the k largest e_j are the ranks that an SVD would keep,
found without one. A device of rank k sends the changes of the k ranks that have the largest e_j
when it has trained, the same ranks of A and of B. The server adds each into its own place,
X_j <- X_j + sum_n v_n dX_nj over those who sent rank j; ranks nobody sent keep their bits.

The choice follows from what was trained, so the mean under independent sampling is biased by it,
whatever the v_n: a change that is left out is lost, and ranks that have grown are sent again and
again while small ones stay as they are. At k = r nothing is left out, and without the penalty it is
FedIT.

Per layer k (d_in + d_out) numbers go up with k ceil(log2 r) bits that name the ranks, as the server
cannot know them, and r (d_in + d_out) numbers go down, by unicast too. Only the upload is smaller:
compute, memory and download are those of rank r. The penalty's products count in the compute time;
the r x r matrices that it keeps for its gradient, and the norms, do not count.

Of the paper only the abstracts and the first lines of the introduction could be read. They say:
near-orthogonal factors, an importance per rank from norms, no SVD, a rank r that is fixed before
training, and factors that are aggregated apart. Ours are the penalty's form and weight, what is
scored and when, that devices train all r ranks, k ranks in every layer, and changes with the
policy's weights in place of means. |A A^T - I|^2 with its diagonal would draw all norms to 1, and
leave nothing to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fslora.lora import Adapter, Layout
from fslora.methods.base import GlobalState, Method, Slice, Update, first_ranks, of_ranks
from fslora.sketch import add_changes, rank_norms, top_indices

if TYPE_CHECKING:
    from torch import Tensor

    from fslora.methods.base import Job
    from fslora.stacked import Stack


@dataclass(frozen=True, slots=True)
class SOFT(Method):
    """The best ranks of near-orthogonal factors.

    Parameters
    ----------
    orthogonality
        lambda, >= 0; zero for no penalty.
    """

    orthogonality: float = 0.1
    name: ClassVar[str] = "soft"
    up_bits: ClassVar[str] = "k * ceil(log2(r))"
    holds_all: ClassVar[bool] = True
    trains_all: ClassVar[bool] = True

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:  # noqa: ARG002
        """All r ranks, whatever k is."""
        return first_ranks(len(adapter.a), rank)

    def penalty(self, factors: Stack) -> Tensor | None:
        """R, over all devices of a stack; ranks that are padding have no part in it."""
        if not self.orthogonality:
            return None
        import torch

        below = [
            (rows @ rows.mT).tril(-1).square().sum()
            for name, a in factors.a.items()
            for rows in (a, factors.b[name].mT)
        ]
        # A sum over i > j is half of that over i != j.
        return 2.0 * self.orthogonality * torch.stack(below).sum()

    def penalty_flops(self, layout: Layout, rank: int) -> float:
        """Both factors' r x r products, and twice as much for their gradients."""
        return 6.0 * rank**2 * layout.numbers_per_rank if self.orthogonality else 0.0

    def sent(self, update: Update, sketch_rank: int, start: Adapter) -> Update:
        """The k ranks of largest |b_j| |a_j| when the device has trained."""
        ended = Adapter(
            {name: start.a[name] + delta for name, delta in update.delta_a.items()},
            {name: start.b[name] + delta for name, delta in update.delta_b.items()},
            {},
        )
        return of_ranks(update, top_indices(rank_norms(ended), sketch_rank))

    def index_bits(self, rank: int) -> int:
        """Enough to tell r ranks apart."""
        return (rank - 1).bit_length()

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Scatter-add v_n delta_n; ranks nobody sent keep their bits."""
        add_changes(state.adapter, updates, weight)
