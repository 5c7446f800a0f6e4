"""FSLoRA: federated sketching LoRA (arXiv 2501.19389).

Device n trains the submatrices A_I, B_I of k_n ranks, drawn anew per layer and round and shared by
A and B, with the layer scale s r/k_n, so that the sketch S has mean I. The server adds v_n times
the changes back into the ranks they came from: X <- X + sum_n v_n delta_n with v_n = a_n / q_n
(independent sampling, arXiv 2505.23555), unbiased for every q.

Per layer a device sends k (d_in + d_out) numbers; heads go whole. The index set follows from a key
that server and device share, so it costs no traffic. The server broadcasts the full factors,
r (d_in + d_out) numbers, before it knows who will take part.

Other rules for the index sets, `indices`: `cyclic`, a window that rolls over the ranks, one on
every round, the same for all devices, so that S has mean I over r rounds, not in each;
`importance`, drawn with chances pi_j in proportion to |b_j| |a_j| as far as that goes and with the
diagonal 1/pi_j in S, mean I as well (own derivation); `top`, the k ranks of largest norm with
gain 1, which is biased, and keeps training the ranks that it has chosen at first. Server and device
work them out from the same global state.

The step size of a sketched device is settled in `LocalTraining.step_factor`: by default each held
rank walks as it would in the full adapter, and the server multiplies the change by r/k. At first
order in the learning rate the mean change over sketches is that of the full adapter either way.
Clipping a device's gradient norm bounds its step and, where it binds, biases the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fslora.lora import Adapter
from fslora.methods.base import GlobalState, Job, Method, Slice, Update
from fslora.sketch import (
    add_changes,
    draw_indices,
    draw_unequal,
    inclusion,
    rank_norms,
    rolling_indices,
    top_indices,
)

Indices = Literal["random", "cyclic", "importance", "top"]
"""Rules for the index sets."""


@dataclass(frozen=True, slots=True)
class FSLoRA(Method):
    """Sketches of the global factors.

    Parameters
    ----------
    indices
        How index sets are chosen: `random`, `cyclic`, `importance` or `top`.
    """

    indices: Indices = "random"
    name: ClassVar[str] = "fslora"
    sums: ClassVar[bool] = True

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:
        """k ranks per layer by the rule, with a gain of r/k in the mean."""
        layers, k, gain = len(adapter.a), job.rank, rank / job.rank
        if self.indices == "random" or k == rank:
            return Slice(draw_indices(job.key, layers, rank, k), gain)
        if self.indices == "cyclic":
            return Slice(rolling_indices(job.round, layers, rank, k), gain)
        norms = rank_norms(adapter)
        if self.indices == "top":
            return Slice(top_indices(norms, k), 1.0)
        chance = inclusion(norms, k)
        chosen = draw_unequal(job.key, chance)
        gains = 1.0 / np.take_along_axis(chance, chosen, axis=1)
        return Slice(chosen, gain, gains=gains)

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Scatter-add v_n delta_n; ranks nobody updated keep their bits."""
        add_changes(state.adapter, updates, weight)
