"""What training has told the simulation, so that it need not be trained again.

The simulation of time repeats itself to the bit and costs little; training costs much. A resumed
run therefore plays the simulation from its start and, up to the round of its checkpoint, takes
losses, norms and evaluations from here in the place of training.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.errors import InputError

_REMEDY = (
    "code, data or machine have changed; resume with those it was written with, or remove the "
    "folder checkpoint to start afresh"
)
_METRIC = "evaluations.metric."
_NONE = -1


class Told(NamedTuple):
    """What training told about an update; see `sim.timeline.UpdateRow`."""

    loss: float
    update_norm: float
    rank_kept: int | None = None


class Memory:
    """What updates told, and evaluations of the global state, by round.

    Rounds are noted in ascending order; round 0 is what is measured before the first one.

    Parameters
    ----------
    until
        Last round that is answered from memory; -1 for a run from its start, which trains them all.
    """

    def __init__(self, until: int = -1) -> None:
        self.until = until
        # Columns that grow at their end: 28 bytes per update.
        self._round, self._end = array("q"), array("q")
        self._device, self._rank, self._kept = array("i"), array("i"), array("i")
        self._loss, self._norm = array("d"), array("d")
        self._evaluated, self._eval_loss = array("q"), array("d")
        self._metrics: dict[str, array[float]] = {}

    @property
    def last(self) -> int:
        """Last round that anything is remembered of; -1 for none."""
        return max([-1, *self._round[-1:], *self._evaluated[-1:]])

    def note_updates(
        self,
        round_index: int,
        device: Iterable[int],
        rank: Iterable[int],
        told: Iterable[Told],
    ) -> None:
        """Remember the updates of a round that was trained.

        Parameters
        ----------
        round_index
            Its number, above all noted before.
        device, rank
            (M,) who trained, and at which rank, in the order of the updates.
        told
            (M,) about each.
        """
        self._check_order(round_index, self._round)
        rows = list(zip(map(int, device), map(int, rank), told, strict=True))
        for who, width, (loss, norm, kept) in rows:
            self._device.append(who)
            self._rank.append(width)
            self._loss.append(loss)
            self._norm.append(norm)
            self._kept.append(_NONE if kept is None else kept)
        self._round.append(round_index)
        self._end.append(len(self._device))

    def updates(
        self, round_index: int, device: Iterable[int], rank: Iterable[int]
    ) -> list[Told] | None:
        """What training told about the updates of a round.

        Parameters
        ----------
        round_index
            Its number.
        device, rank
            (M,) whose updates the simulation asks for, at which ranks, in order; empty if nobody
            completed the round.

        Returns
        -------
        list of Told, or None
            About each update; None if the round has to be trained.

        Raises
        ------
        InputError
            If other updates are remembered.
        """
        if round_index > self.until:
            return None
        row = bisect_left(self._round, round_index)
        known = slice(0, 0)
        if row < len(self._round) and self._round[row] == round_index:
            known = slice(self._end[row - 1] if row else 0, self._end[row])
        asked = list(zip(map(int, device), map(int, rank), strict=True))
        there = list(zip(self._device[known], self._rank[known], strict=True))
        if len(asked) != len(there):
            raise InputError(
                f"round {round_index} has {len(asked)} updates, but the checkpoint remembers "
                f"{len(there)}: {_REMEDY}"
            )
        for mine, theirs in zip(asked, there, strict=True):
            if mine != theirs:
                raise InputError(
                    f"round {round_index} has an update of device {mine[0]} at rank {mine[1]}, but "
                    f"the checkpoint remembers device {theirs[0]} at rank {theirs[1]}: {_REMEDY}"
                )
        columns = (self._loss[known], self._norm[known], self._kept[known])
        return [
            Told(loss, norm, None if kept == _NONE else kept)
            for loss, norm, kept in zip(*columns, strict=True)
        ]

    def note_evaluation(self, round_index: int, loss: float, metrics: Mapping[str, float]) -> None:
        """Remember an evaluation after a round, above all noted before; metrics by their names."""
        self._check_order(round_index, self._evaluated)
        if not self._evaluated:
            self._metrics = {name: array("d") for name in metrics}
        if metrics.keys() != self._metrics.keys():
            raise ValueError(f"metrics {[*metrics]} after {[*self._metrics]}")
        self._evaluated.append(round_index)
        self._eval_loss.append(loss)
        for name, value in metrics.items():
            self._metrics[name].append(value)

    def evaluation(self, round_index: int) -> tuple[float, dict[str, float]] | None:
        """Loss and metrics by name after a round; None if the round has to be evaluated.

        Raises
        ------
        InputError
            If the round was trained, but not evaluated.
        """
        if round_index > self.until:
            return None
        row = bisect_left(self._evaluated, round_index)
        if row == len(self._evaluated) or self._evaluated[row] != round_index:
            raise InputError(
                f"round {round_index} is evaluated, but the checkpoint remembers no evaluation of "
                f"it: {_REMEDY}"
            )
        return self._eval_loss[row], {name: values[row] for name, values in self._metrics.items()}

    def check_end(self, round_index: int) -> None:
        """Refuse that the run ends with a round.

        Raises
        ------
        InputError
            If the checkpoint stands after a later one.
        """
        if round_index < self.until:
            raise InputError(
                f"the run ends after round {round_index}, but the checkpoint stands after round "
                f"{self.until}: {_REMEDY}"
            )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is remembered.

        Returns
        -------
        dict
            `updates.round` (T,), `updates.end` (T,) number of updates up to the end of each round,
            `updates.device`, `.rank`, `.loss`, `.norm` and `.kept` (U,), `evaluations.round` (E,),
            `evaluations.loss` (E,), and per metric, by its place and name,
            `evaluations.metric.PLACE.NAME` (E,).
        """
        return {name: np.array(column) for name, column in self._columns().items()}

    @classmethod
    def from_arrays(cls, until: int, arrays: Mapping[str, NDArray[np.generic]]) -> Memory:
        """What `arrays` gave, to be answered up to round `until`."""
        memory = cls(until)
        # A file need not keep the order of its arrays; that of the metrics shows in the summary.
        metrics = (name.removeprefix(_METRIC) for name in arrays if name.startswith(_METRIC))
        named = (place_and_name.split(".", 1) for place_and_name in metrics)
        for _, metric in sorted((int(place), metric) for place, metric in named):
            memory._metrics[metric] = array("d")
        for name, column in memory._columns().items():
            column.frombytes(arrays[name].tobytes())
        return memory

    def _columns(self) -> dict[str, array[int] | array[float]]:
        return {
            "updates.round": self._round,
            "updates.end": self._end,
            "updates.device": self._device,
            "updates.rank": self._rank,
            "updates.loss": self._loss,
            "updates.norm": self._norm,
            "updates.kept": self._kept,
            "evaluations.round": self._evaluated,
            "evaluations.loss": self._eval_loss,
            **{
                f"{_METRIC}{place}.{name}": values
                for place, (name, values) in enumerate(self._metrics.items())
            },
        }

    def _check_order(self, round_index: int, noted: Sequence[int]) -> None:
        if round_index <= max([self.until, *noted[-1:]]):
            raise ValueError(f"round {round_index} is noted out of order")
