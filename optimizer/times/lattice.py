"""The probability that the cohorts of a small fleet fit into the band by given times.

The whole distribution of the cohort's need is carried along a lattice of shares of the band, device
by device, each need split between its neighbours so that the mean stays. Carried back, V_i(x) is
the probability that the devices from i on fit beside a need x: so all toggles are means of V.
Source: own derivation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.needs import needs

_POINTS = 257


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Probabilities that cohorts fit into R bands, in G cells of a grid of times.

    Parameters
    ----------
    before : ndarray, shape (N + R, G, M)
        Distribution of the need before each device and after the last of each band, band by band.
        Needs above the band are left out.
    probability : ndarray, shape (R, G)
        Probability that a cohort fits.
    """

    before: FloatArray
    probability: FloatArray

    @classmethod
    def build(
        cls, problem: Problem, edge_s: FloatArray, rank: FloatArray, q: FloatArray, row: IntArray
    ) -> Self:
        """Carry the distributions: see `optimizer.times.bulk.Bulk.build`."""
        need = needs(problem, edge_s, np.arange(problem.devices), rank)
        states, fits = [], []
        for band in range(int(row.max()) + 1):
            mass = np.eye(1, _POINTS).repeat(len(edge_s) - 1, axis=0)
            states.append(mass)
            for n in np.flatnonzero(row == band):
                # Forward, shifts are those of the reversed lattice.
                moved = _raised(mass[:, ::-1], need.band[n])[:, ::-1]
                mass = (1 - q[n]) * mass + (q[n] * (1 - need.block[n]))[:, None] * moved
                states.append(mass)
            fits.append(mass.sum(axis=-1))
        return cls(np.stack(states), np.stack(fits))

    def toggles(
        self,
        problem: Problem,
        edge_s: FloatArray,
        rank: FloatArray,
        q: FloatArray,
        row: IntArray,
        candidate: FloatArray,
    ) -> Iterator[tuple[IntArray, FloatArray, FloatArray]]:
        """Take each device out and put it in: see `optimizer.times.bulk.Bulk.toggles`."""
        device = np.arange(problem.devices)
        own = needs(problem, edge_s, device, rank)
        other = [needs(problem, edge_s, device, k) for k in candidate]
        last = len(self.before)
        for band in range(int(row.max()), -1, -1):
            value = np.ones(self.before.shape[1:])
            last -= 1
            for n in np.flatnonzero(row == band)[::-1]:
                last -= 1
                mass = self.before[last]
                present = [
                    (1 - need.block[n]) * (mass * _raised(value, need.band[n])).sum(axis=-1)
                    for need in other
                ]
                yield (
                    device[n : n + 1],
                    (mass * value).sum(axis=-1)[None],
                    np.stack(present)[:, None],
                )
                after = (1 - own.block[n])[:, None] * _raised(value, own.band[n])
                value = (1 - q[n]) * value + q[n] * after


def _raised(value: FloatArray, band: FloatArray) -> FloatArray:
    """Values (G, M) at needs that are higher by shares (G,) of the band; zero above the band."""
    place = band * (_POINTS - 1)
    low = np.minimum(place.astype(np.int64), _POINTS - 2)
    share = (place - low)[:, None]
    padded = np.concatenate((value, np.zeros(value.shape)), axis=1)
    # Whole stretches are copied, which is much faster than point by point.
    stretch = sliding_window_view(padded, _POINTS + 1, axis=1)[np.arange(len(value)), low]
    return np.asarray((1 - share) * stretch[:, :-1] + share * stretch[:, 1:])
