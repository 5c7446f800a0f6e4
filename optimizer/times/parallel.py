"""Expected round time of transfers that end together, by the law of the band that they need."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import Toggles
from optimizer.times.bulk import Bulk
from optimizer.times.lattice import Lattice
from optimizer.times.needs import ALWAYS, Outline
from wireless.spectrum import equal_finish_time, solo_finish_time

LATTICE_DEVICES = 64
"""Largest fleet whose distribution of needs is carried whole."""

_COARSE = 32
_CELLS = 96
_FEW_CELLS = 256
_PAIRS = 32_000_000
_SCOUTS = 32_768
_TAIL = 64


@dataclass(frozen=True, slots=True, eq=False)
class Parallel:
    """Cohorts that end together; see `optimizer.times.base.TimeModel`.

    Parameters
    ----------
    problem : Problem
        The fleet.
    span_s : tuple of float
        Times (s) between which every cohort that is not empty ends, at any ranks.
    fits : dict
        Edges and law of the plan that was asked about last: a search asks for the mean of a plan,
        and if it likes the plan for what its devices add.
    """

    problem: Problem
    span_s: tuple[float, float]
    fits: dict[bytes, tuple[FloatArray, Bulk | Lattice]] = field(default_factory=dict)

    @classmethod
    def build(cls, problem: Problem) -> Self:
        """Find the span of times.

        Parameters
        ----------
        problem : Problem
            The fleet.

        Returns
        -------
        Parallel
        """
        p, cap = problem, problem.rank_cap
        last_s = equal_finish_time(
            p.download_s(cap) + p.compute_s(cap),
            p.upload_bits(cap),
            p.link,
            p.bandwidth_hz,
            cell=p.cell,
        )
        k = np.full(p.devices, p.min_rank)
        ready_s = p.download_s(k) + p.compute_s(k)
        first_s = solo_finish_time(ready_s, p.upload_bits(k), p.link, p.bandwidth_hz).min()
        # The last end of all needs cells on both sides to be found between.
        return cls(problem, (float(first_s), 1.25 * float(last_s)))

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the expected round time: see `TimeModel.mean_s`."""
        k, q = np.asarray(rank, dtype=np.float64), self.problem.takes_part(probability)
        return self._mean_s(*self._fitted(k, q), q)

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the round time along each device: see `TimeModel.toggles`."""
        p, row = self.problem, self._row()
        k, q = np.asarray(rank, dtype=np.float64), p.takes_part(probability)
        options = np.asarray(candidate, dtype=np.float64)
        edge_s, law = self._fitted(k, q)
        width_s = np.diff(edge_s)
        # Chances that the other bands are free.
        other = np.stack(
            [np.delete(law.probability, i, axis=0).prod(axis=0) for i in range(row.max() + 1)]
        )
        log_absent = np.log(np.maximum(1 - q, ALWAYS))
        nobody = np.exp(log_absent.sum() - log_absent)
        without_s, with_s = np.empty(p.devices), np.empty(options.shape)
        for device, without, present in law.toggles(p, edge_s, k, q, row, options):
            free_s = other[row[device]] * width_s
            without_s[device] = -edge_s[0] * nobody[device] - (free_s * without).sum(axis=-1)
            with_s[:, device] = -(free_s * present).sum(axis=-1)
        added_s = np.maximum(with_s - without_s, 0.0)
        return Toggles(
            self._mean_s(edge_s, law, q),
            p.overhead_s + edge_s[-1] + without_s,
            p.takes_part(added_s),
        )

    def _mean_s(self, edge_s: FloatArray, law: Bulk | Lattice, q: FloatArray) -> float:
        late = 1 - law.probability.prod(axis=0)
        nobody = float(np.prod(1 - q))
        late_s = float(np.diff(edge_s) @ late)
        return self.problem.overhead_s + float(edge_s[0]) * (1 - nobody) + late_s

    def _fitted(self, rank: FloatArray, q: FloatArray) -> tuple[FloatArray, Bulk | Lattice]:
        """Edges (G + 1,) that lie dense where the round is likely to end, and the law there."""
        plan = rank.tobytes() + q.tobytes()
        if plan not in self.fits:
            self.fits.clear()
            self.fits[plan] = self._fit(rank, q)
        return self.fits[plan]

    def _fit(self, rank: FloatArray, q: FloatArray) -> tuple[FloatArray, Bulk | Lattice]:
        p, row = self.problem, self._row()
        few = p.devices <= LATTICE_DEVICES
        fine = _FEW_CELLS if few else max(_COARSE, min(_CELLS, _PAIRS // p.devices))
        edge_s, every = np.geomspace(*self.span_s, _COARSE + 1), -(-p.devices // _SCOUTS)
        for cells in (_COARSE, fine):
            edge_s = _closer(edge_s, Outline.build(p, edge_s, rank, q, row, every), cells)
        return edge_s, (Lattice if few else Bulk).build(p, edge_s, rank, q, row)

    def _row(self) -> IntArray:
        return np.unique(self.problem.cell, return_inverse=True)[1]


def _closer(edge_s: FloatArray, law: Outline, cells: int) -> FloatArray:
    """Edges (cells + 1,) for a law known between other edges.

    Of five, two follow the probability that the round has ended, two the logarithm of time where it
    may end, and one that of all time, where it may end without some device. They move smoothly with
    the plan, and so does the integral.
    """
    x = np.log(edge_s)
    middle = (x[1:] + x[:-1]) / 2
    fine = np.linspace(x[0], x[-1], 32 * len(middle) + 1)

    def between(value: FloatArray) -> FloatArray:
        return np.stack([np.interp(fine, middle, row) for row in value])

    mean = np.exp(between(np.log(np.maximum(law.mean, 1e-12))))
    fits = ndtr((1 - mean) / np.exp(between(np.log(law.spread))))
    # Between cells the probability of being free may rise anywhere.
    fits = (between(np.exp(law.log_free)) * fits).prod(axis=0)
    likely = np.maximum(fits * (1 - fits), 0.0)[1:] ** 0.25 + 1e-6
    # Without a device the round ends earlier: cells that widen with the distance from its end
    # resolve what the device adds, be it much or little.
    tail = 1 / (2 + np.abs(np.arange(-_TAIL, _TAIL + 1)))
    tail /= tail.sum()
    tail[_TAIL - 1 : _TAIL + 2] += (0.25, 0.5, 0.25)
    moved = np.convolve(np.abs(np.diff(fits)), tail, mode="full")[_TAIL:-_TAIL] + 1e-6
    weight = 2 * likely / likely.sum() + 2 * moved / moved.sum() + 1 / len(moved)
    measure = np.concatenate(([0.0], np.cumsum(weight)))
    edges = np.exp(np.interp(np.linspace(0.0, measure[-1], cells + 1), measure, fine))
    edges[[0, -1]] = edge_s[[0, -1]]
    return np.asarray(edges)
