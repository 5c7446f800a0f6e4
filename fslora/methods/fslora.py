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

from fslora.lora import Adapter, Layout
from fslora.methods.base import Job, Slice, Update
from fslora.sketch import draw_indices, scatter_add


class FSLoRA:
    """Random sketches of the global factors."""

    name = "fslora"

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Any k from 1 to r."""
        return 1 <= sketch_rank <= rank

    def slice(self, job: Job, layout: Layout, rank: int) -> Slice:
        """k random ranks per layer with gain r/k."""
        indices = draw_indices(job.key, len(layout.layers), rank, job.rank)
        return Slice(indices, rank / job.rank)

    def merge(self, adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Scatter-add v_n delta_n; ranks nobody updated keep their bits."""
        for update, v in zip(updates, weight, strict=True):
            for layer, name in enumerate(adapter.a):
                scatter_add(
                    adapter.a[name],
                    adapter.b[name],
                    update.slice.indices[layer],
                    update.delta_a[name],
                    update.delta_b[name],
                    v * update.factor_gain,
                )
            for name, delta in update.delta_head.items():
                adapter.head[name].add_(delta, alpha=v)

    def numbers_up(self, layout: Layout, sketch_rank: int) -> int:
        """k (d_in + d_out) per layer and the heads."""
        return layout.numbers(sketch_rank)

    def numbers_down(self, layout: Layout, rank: int) -> int:
        """r (d_in + d_out) per layer and the heads."""
        return layout.numbers(rank)
