"""HAFL: devices compute with all ranks and train their most salient ones (arXiv 2411.06581).

Device n holds all r ranks of A and B, trains those in J_n, the k_n most salient ones of every
layer, and sends them; the others stay as they are. Each rank is averaged over its owners alone, the
devices that have trained it, not over zeros of those that have not:

    X_j <- X_j + (sum_n v_n) sum_{n: j in J_n} v_n dX_nj / sum_{n: j in J_n} v_n;

a rank without owners keeps its bits. Where all devices train all ranks it is FedIT. The ratio is
normalised over the cohort and J_n is chosen by what is large, without FSLoRA's r/k, so the mean
under independent sampling is biased for the ranks that not everybody trains.

The server scores ranks by how much a merge has moved them, |w dw| in the place of the gradient's
|w dL/dw|, which it does not have (own choice), smoothed as in AdaLoRA (arXiv 2303.10512):

    S_j <- beta S_j + (1 - beta) (mean_i |b_ij dB_ij| + mean_i |a_ji dA_ji|),  beta = 0.85,

for the ranks that have had owners; the others keep theirs. All scores are zero at first, and |w dw|
stays zero for a while where B was: equal scores are put in an order of each job's own key, so that
devices do not all take the same ranks. A rank that nobody trained while scores were zero is trained
again only by devices of rank r; there is no further exploration.

Per layer k (d_in + d_out) numbers go up; both sides know J_n. Down go r (d_in + d_out) and the r
scores, by unicast as well as by broadcast, since a device computes with all ranks. Ranks that it
does not train cost it no gradient of their own: two products less per token, and no moments.

Departures from the paper, of which only the abstracts could be read: it is the freezing variant of
its second version, without quantization; the score and who computes it are as said above;
aggregation weights are those of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fslora.lora import Adapter, Layout
from fslora.methods.base import GlobalState, Job, Method, Slice, Update, first_ranks, of_ranks
from fslora.sketch import add_holder_means

if TYPE_CHECKING:
    from torch import Tensor

#: Share of a score that is left after a merge.
_SMOOTHING = 0.85


@dataclass(frozen=True, slots=True)
class HAFL(Method):
    """The most salient ranks trained, the others held."""

    name = "hafl"
    down = "r * (d_in + d_out + 1)"
    additive: ClassVar[bool] = False
    holds_all: ClassVar[bool] = True

    def kept(self, adapter: Adapter, counts: NDArray[np.int64]) -> dict[str, Tensor]:  # noqa: ARG002
        """Scores of the ranks, (layers, r)."""
        any_factor = next(iter(adapter.a.values()))
        return {"salience": any_factor.new_zeros((len(adapter.a), len(any_factor)))}

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:
        """All ranks, of which the k with the highest scores are trained."""
        score = adapter.kept["salience"].double().cpu().numpy()
        luck = np.random.default_rng(job.key).random(score.shape)
        trained = np.zeros(score.shape, dtype=np.bool_)
        np.put_along_axis(trained, np.lexsort((luck, -score), axis=1)[:, : job.rank], True, axis=1)
        return replace(first_ranks(len(adapter.a), rank), trained=trained)

    def sent(self, update: Update, sketch_rank: int, start: Adapter) -> Update:  # noqa: ARG002
        """The ranks that were trained."""
        assert update.slice.trained is not None
        return of_ranks(update, np.nonzero(update.slice.trained)[1].reshape(-1, sketch_rank))

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average each rank over its owners, and score those that have had some."""
        if not updates:
            return
        adapter = state.adapter
        before = [
            (a.clone(), b.clone())
            for a, b in zip(adapter.a.values(), adapter.b.values(), strict=True)
        ]
        add_holder_means(adapter, updates, weight)
        for layer, name in enumerate(adapter.a):
            a, b = before[layer]
            moved_a = (a * (adapter.a[name] - a)).abs().mean(1)
            moved_b = (b * (adapter.b[name] - b)).abs().mean(0)
            score = adapter.kept["salience"][layer]
            owned = np.unique(np.concatenate([u.slice.indices[layer] for u in updates]))
            score[owned] = score[owned].lerp((moved_a + moved_b)[owned], 1 - _SMOOTHING)

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Rows, columns, and scores."""
        return d_in, d_out, 1

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """Sums, and the scores."""
        return 2.0 * sum(layout.numbers(k) for k in ranks) + 4.0 * rank * layout.numbers_per_rank
