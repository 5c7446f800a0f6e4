"""The rows of a timeline, put together by the parts that devices had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Phases of a device's part in their order, and those of the server alone.
PHASES = ("downlink", "compute", "uplink")
SERVER_PHASES = ("plan", "wait", "downlink", "aggregate")
OUTCOMES = ("done", "dropped", "late", "cancelled", "lost")
DOWNLINK, COMPUTE, UPLINK = range(3)
DONE, DROPPED, LATE, CANCELLED, LOST = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What P parts of devices left in a timeline: for each its rows, in their order.

    A part begins with a row that cannot follow the one before it: another device's, another
    round's, after a row that ends a part, or of a phase that comes earlier.

    Parameters
    ----------
    row
        (R,) rows of the timeline, device by device and part by part.
    first, length
        (P,) where in `row` each part begins, and how many rows it has.
    downlinks, computes
        (P,) how many of those are downloads and computations, 0 or 1; the others are attempts.
    device, round
        (P,) whose part it is, sent out in which round.
    last
        (P,) the row of the timeline that is its last one.
    phase, outcome
        (P,) of that row, by their places in `PHASES` and `OUTCOMES`.
    closed
        (P,) whether that row ends the part.
    end_s, energy_j
        (P,) the end of that row, and the energy of all its rows.
    """

    row: IntArray
    first: IntArray
    length: IntArray
    downlinks: IntArray
    computes: IntArray
    device: IntArray
    round: IntArray
    last: IntArray
    phase: IntArray
    outcome: IntArray
    closed: NDArray[np.bool_]
    end_s: FloatArray
    energy_j: FloatArray

    def __len__(self) -> int:
        """Return the number of parts P."""
        return len(self.first)

    @property
    def attempts(self) -> IntArray:
        """How many attempts of an upload each has, (P,)."""
        return self.length - self.downlinks - self.computes

    @classmethod
    def of(cls, timeline: pd.DataFrame, chosen: NDArray[np.bool_]) -> Self:
        """The parts of devices in a timeline.

        Parameters
        ----------
        timeline
            The table.
        chosen
            Rows of devices' own parts: those with a device, a known phase and outcome, and that are
            not receptions of a broadcast.
        """
        rows = np.flatnonzero(chosen)
        device = timeline["device"].to_numpy()[rows].astype(np.int64)
        order = np.argsort(device, kind="stable")
        row, device = rows[order], device[order]
        number = timeline["round"].to_numpy()[row].astype(np.int64)
        phase = codes(timeline["phase"], PHASES)[row]
        outcome = codes(timeline["outcome"], OUTCOMES)[row]
        closes = (outcome != DONE) & (outcome != LOST) | (phase == UPLINK) & (outcome != LOST)
        begins = np.ones(len(row), dtype=np.bool_)
        begins[1:] = (
            closes[:-1]
            | (np.diff(device) != 0)
            | (np.diff(number) != 0)
            | (np.diff(phase) < 0)
            | (np.diff(phase) == 0) & (phase[1:] != UPLINK)
        )
        first = np.flatnonzero(begins)
        length = np.diff(np.append(first, len(row)))
        last = first + length - 1
        energy = np.nan_to_num(timeline["energy_j"].to_numpy(dtype=np.float64)[row])
        return cls(
            row,
            first,
            length,
            _count(phase == DOWNLINK, first),
            _count(phase == COMPUTE, first),
            device[first],
            number[first],
            row[last],
            phase[last],
            outcome[last],
            closes[last],
            timeline["end_s"].to_numpy(dtype=np.float64)[row[last]],
            _sum(np.maximum(energy, 0.0), first, length),
        )


def codes(words: pd.Series[str], known: tuple[str, ...]) -> IntArray:
    """Places of words among known ones; -1 for others."""
    return np.asarray(pd.Index(known).get_indexer(pd.Index(words)), dtype=np.int64)


def _count(chosen: NDArray[np.bool_], first: NDArray[np.intp]) -> IntArray:
    if not len(first):
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(chosen.astype(np.int64), first)


def _sum(values: FloatArray, first: NDArray[np.intp], length: NDArray[np.intp]) -> FloatArray:
    """Sums of parts, one row after the other as whoever spends does."""
    total = np.zeros(len(first))
    for place in range(int(length.max(initial=0))):
        more = np.flatnonzero(length > place)
        total[more] += values[first[more] + place]
    return total
