"""What the server learns from the updates that it merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optimizer.outcome import Outcome
from sim.schedules.base import Merge
from sim.steering import Steering
from sim.system import System
from sim.timeline import Round, UpdateRow

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
            None if weight is None else update.rank_kept,
        )
        for m, update in enumerate(updates)
    ]


def train_loss(rows: Sequence[UpdateRow]) -> float | None:
    """Mean of the losses of a merge under its aggregation weights; None if nobody trained."""
    if not rows:
        return None
    weight = np.array([row.weight for row in rows], dtype=np.float64)
    return float(np.average([row.loss for row in rows], weights=weight))


def round_row(
    system: System,
    steering: Steering,
    merge: Merge,
    rows: Sequence[UpdateRow],
    progress: float | None,
) -> Round:
    """Row of `rounds.csv` for a merge that was learnt from, without totals and evaluation.

    Parameters
    ----------
    system, steering
        What is simulated, and by whom devices were chosen: the plan is still that of the merge.
    merge, rows
        The merge, and its updates.
    progress
        Share of the way to the target, where it is estimated.
    """
    # What plans predict is rounds that wait for everybody.
    predicted = system.scenario.schedule.name == "synchronous"
    return Round(
        merge.round,
        merge.start_s,
        merge.end_s,
        merge.end_s - merge.start_s,
        steering.plan.expected_round_s if predicted else None,
        merge.cohort_s,
        merge.sampled,
        len(merge),
        train_loss=train_loss(rows),
        queue_s=steering.queue_s,
        progress=progress,
    )


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
    kept = [row.rank_kept for row in rows if row.rank_kept is not None]
    return Outcome(
        merge.round,
        merge.spent_s,
        merge.device,
        merge.rank,
        loss,
        norm,
        merge.busy_s,
        # A method lets all devices prune, or none.
        np.array(kept, dtype=np.int64) if kept else None,
    )
