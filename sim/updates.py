"""What the server learns from the updates that it merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optimizer.outcome import Outcome
from sim.schedules.base import Merge
from sim.timeline import UpdateRow

if TYPE_CHECKING:
    from fslora.methods import Update


def update_norm(update: Update) -> float:
    """Frobenius norm of the change of a device's factors, as the server adds it."""
    import torch

    parts = [*update.delta_a.values(), *update.delta_b.values()]
    norms = torch.stack([torch.linalg.vector_norm(part) for part in parts])
    return update.factor_gain * float(torch.linalg.vector_norm(norms.double()))


def update_rows(
    round_index: int, updates: Sequence[Update], weight: NDArray[np.float64] | None
) -> list[UpdateRow]:
    """Rows of `updates.csv` for the updates of a merge.

    Parameters
    ----------
    round_index
        Number of the merge; 0 for what an oracle measures.
    updates
        What the devices sent.
    weight
        (M,) aggregation weights; None if nothing is merged.
    """
    return [
        UpdateRow(
            round_index,
            update.device,
            len(update.slice.indices[0]),
            None if weight is None else float(weight[m]),
            update.loss,
            update_norm(update),
        )
        for m, update in enumerate(updates)
    ]


def train_loss(rows: Sequence[UpdateRow]) -> float | None:
    """Mean of the losses of a merge under its aggregation weights; None if nobody trained."""
    if not rows:
        return None
    weight = np.array([row.weight for row in rows], dtype=np.float64)
    return float(np.average([row.loss for row in rows], weights=weight))


def outcome(merge: Merge, rows: Sequence[UpdateRow]) -> Outcome:
    """What the server makes of a merge, without planning and waiting.

    Parameters
    ----------
    merge
        The merge.
    rows
        Its updates, in the order of its devices; nan where there is none.
    """
    loss, norm = np.full((2, len(merge)), np.nan)
    if rows:
        loss = np.array([row.loss for row in rows], dtype=np.float64)
        norm = np.array([row.update_norm for row in rows], dtype=np.float64)
    return Outcome(merge.round, merge.spent_s, merge.device, merge.rank, loss, norm, merge.busy_s)
