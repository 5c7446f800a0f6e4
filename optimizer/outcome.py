"""What a round taught the server."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One finished round, as far as the M devices that completed it reported.

    Parameters
    ----------
    round : int
        Number of the round.
    duration_s : float
        Duration (s) of the round, overhead included.
    device : ndarray of int, shape (M,)
        Devices whose updates arrived.
    rank : ndarray of int, shape (M,)
        Ranks at which they trained.
    loss : ndarray, shape (M,)
        Mean training losses.
    update_norm : ndarray, shape (M,)
        Norms of their updates.
    busy_s : ndarray, shape (M,)
        Seconds from the start of the round until each update had arrived.
    rank_kept : ndarray of int, shape (M,), optional
        Ranks that each trains from now on at most, if devices prune themselves.
    """

    round: int
    duration_s: float
    device: NDArray[np.int64]
    rank: NDArray[np.int64]
    loss: NDArray[np.float64]
    update_norm: NDArray[np.float64]
    busy_s: NDArray[np.float64]
    rank_kept: NDArray[np.int64] | None = None
