"""How far a run is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """State after a round.

    Parameters
    ----------
    round
        The last finished round.
    done
        Share of the run that is over, 0 to 1, by rounds or by simulated time.
    time_s
        Simulated time.
    eval_loss
        Last held-out loss; None without training.
    """

    round: int
    done: float
    time_s: float
    eval_loss: float | None
