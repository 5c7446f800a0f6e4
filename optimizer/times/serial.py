"""Expected round time of transfers that follow one another, by the law of their chain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import Toggles
from optimizer.times.lindley import Grid, Lindley, lay_grid


@dataclass(frozen=True, slots=True, eq=False)
class Serial:
    """Chains of all cells, of which the last counts; see `optimizer.times.base.TimeModel`.

    Parameters
    ----------
    problem : Problem
        The fleet, on linear links.
    """

    problem: Problem

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the expected round time: see `TimeModel.mean_s`."""
        return self._mean_s(*self._bands(rank, probability))

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the round time along each device: see `TimeModel.toggles`."""
        grid, bands = self._bands(rank, probability)
        ready_s, work_s = self._transfers(candidate)
        without_s, with_s = np.empty(self.problem.devices), np.empty(ready_s.shape)
        for cell, device in enumerate(self._cells()):
            value_s, empty_s = _value(grid, bands[:cell] + bands[cell + 1 :])
            without_s[device], with_s[:, device] = bands[cell].toggles(
                ready_s[:, device], work_s[:, device], value_s, empty_s
            )
        return Toggles(
            self._mean_s(grid, bands),
            self.problem.overhead_s + without_s,
            self.problem.takes_part(with_s - without_s),
        )

    def _mean_s(self, grid: Grid, bands: list[Lindley]) -> float:
        value_s, empty_s = _value(grid, bands[1:])
        mass, empty = bands[0].distribution()
        return self.problem.overhead_s + float(mass @ value_s) + empty * empty_s

    def _bands(self, rank: ArrayLike, probability: ArrayLike) -> tuple[Grid, list[Lindley]]:
        p = self.problem
        q, (ready_s, work_s) = p.takes_part(probability), self._transfers(rank)
        first_s = float(self._transfers(np.full(p.devices, float(p.min_rank)))[0].min())
        first_s, cells = min(first_s, float(ready_s.min())), self._cells()
        grids = [lay_grid(first_s, ready_s[one], work_s[one], q[one]) for one in cells]
        grid = max(grids, key=lambda one: one.step_s)
        return grid, [Lindley.build(grid, ready_s[one], work_s[one], q[one]) for one in cells]

    def _cells(self) -> list[IntArray]:
        cell = self.problem.cell
        return [np.flatnonzero(cell == one) for one in np.unique(cell)]

    def _transfers(self, rank: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Readiness and solo transfer times (..., N) in s."""
        p = self.problem
        rate = p.link.rate(np.full(p.devices, p.bandwidth_hz))
        ready_s = p.download_s(rank) + p.compute_s(rank)
        return np.asarray(ready_s), np.asarray(p.upload_bits(rank) / rate)


def _value(grid: Grid, others: list[Lindley]) -> tuple[FloatArray, float]:
    """Expected end (M,) of a round by the end of one cell, and for an empty cell (s)."""
    over, empty = np.ones(grid.points), 1.0
    for one in others:
        mass, nobody = one.distribution()
        over *= nobody + np.cumsum(mass)
        empty *= nobody
    left = np.maximum(1 - over, 0.0) * grid.step_s
    value = grid.time_s + np.cumsum(left[::-1])[::-1]
    return value, float(value[0]) - empty * grid.first_s
