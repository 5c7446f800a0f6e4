"""FSLoRA: federated sketching LoRA (arXiv 2501.19389).

Device n trains the submatrices A_I, B_I of k_n ranks, drawn anew per layer and round and shared by
A and B, with the layer scale s r/k_n, so that the sketch S has mean I. The server adds v_n times
the changes back into the ranks they came from: X <- X + sum_n v_n delta_n with v_n = a_n / q_n
(independent sampling, arXiv 2505.23555), unbiased for every q.

Per layer a device sends k (d_in + d_out) numbers; heads go whole. The index set follows from a key
that server and device share, so it costs no traffic. The server broadcasts the full factors,
r (d_in + d_out) numbers, before it knows who will take part.

The step size of a sketched device is settled in `LocalTraining.step_factor`: by default each held
rank walks as it would in the full adapter, and the server multiplies the change by r/k. At first
order in the learning rate the mean change over sketches is that of the full adapter either way.
Clipping a device's gradient norm bounds its step and, where it binds, biases the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fslora.lora import Adapter
from fslora.methods.base import GlobalState, Job, Method, Slice, Update
from fslora.sketch import add_changes, draw_indices


@dataclass(frozen=True, slots=True)
class FSLoRA(Method):
    """Random sketches of the global factors."""

    name = "fslora"

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:
        """k random ranks per layer with gain r/k."""
        indices = draw_indices(job.key, len(adapter.a), rank, job.rank)
        return Slice(indices, rank / job.rank)

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Scatter-add v_n delta_n; ranks nobody updated keep their bits."""
        add_changes(state.adapter, updates, weight)
