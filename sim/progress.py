"""How far a run is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """State after a round.

    Parameters
    ----------
    round, rounds
        The last finished round, and the most there will be.
    time_s
        Simulated time.
    eval_loss
        Last held-out loss.
    """

    round: int
    rounds: int
    time_s: float
    eval_loss: float
