"""What the server learns from the updates of a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fslora.methods import Update
from optimizer.outcome import Outcome
from sim.dispatch import Opened
from sim.system import System
from sim.timeline import UpdateRow


def update_norm(update: Update) -> float:
    """Frobenius norm of the change of a device's factors, as the server adds it."""
    parts = [*update.delta_a.values(), *update.delta_b.values()]
    norms = torch.stack([torch.linalg.vector_norm(part) for part in parts])
    return update.factor_gain * float(torch.linalg.vector_norm(norms.double()))


def update_rows(
    round_index: int, updates: Sequence[Update], weight: NDArray[np.float64] | None
) -> list[UpdateRow]:
    """Rows of `updates.csv` for the updates of a round.

    Parameters
    ----------
    round_index
        Number of the round; 0 for what an oracle measures.
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
    """Mean of the losses of a round under its aggregation weights; None if nobody trained."""
    if not rows:
        return None
    weight = np.array([row.weight for row in rows], dtype=np.float64)
    return float(np.average([row.loss for row in rows], weights=weight))


def outcome(system: System, opened: Opened, rows: Sequence[UpdateRow]) -> Outcome:
    """What the server makes of a round; times by formula, without planning and waiting.

    Parameters
    ----------
    system
        What is simulated.
    opened
        The round.
    rows
        Its updates, in the order of its cohort.
    """
    busy_s = np.zeros(len(opened.jobs))
    for members, transfers in opened.transfers:
        busy_s[members] = system.broadcast_s + transfers.finish_s
    return Outcome(
        opened.round,
        system.broadcast_s + opened.finish_s + system.scenario.schedule.overhead_s,
        opened.cohort.device,
        opened.cohort.rank,
        np.array([row.loss for row in rows], dtype=np.float64),
        np.array([row.update_norm for row in rows], dtype=np.float64),
        busy_s,
    )
