"""The probability that the cohorts of a large fleet fit into the band by given times.

At any time some devices cannot end even alone: they block the band. Of those who can, the few that
need much of it are summed up on a lattice, by the Fourier transforms of their Bernoulli draws; the
many that need little have a gamma law with their first three moments and the right probability of
being nobody. Source: own derivation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import ndtr

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.needs import ALWAYS, LEAST, Outline, needs, outlined, parts

# Of the few: lattice of shares, length of the transform, and probabilities between which the
# logarithm of the transform is interpolated; above the last, device by device.
_LATTICE, _LENGTH, _LEVELS = 64, 256, np.array([0.0, 0.03, 0.1, 0.3])
_DAMP = 1e-7 ** (1 / _LENGTH)
_TOO_MANY = 40.0
# Of all: largest u, and number of them, at which the law is tabulated.
_REACH, _POINTS = 8.0, 193


@dataclass(frozen=True, slots=True, eq=False)
class Bulk:
    """Probabilities that cohorts fit into R bands, in G cells of a grid of times.

    Parameters
    ----------
    outline : Outline
        Who blocks, and what the others need on average.
    law : ndarray, shape (R, G, S)
        Probability that the others leave a share x of the band, ``x = spread sinh(u)`` at u evenly
        from -8 to 8.
    """

    outline: Outline
    law: FloatArray

    @classmethod
    def build(
        cls, problem: Problem, edge_s: FloatArray, rank: FloatArray, q: FloatArray, row: IntArray
    ) -> Self:
        """Sum up a fleet.

        Parameters
        ----------
        problem : Problem
            The fleet.
        edge_s : ndarray, shape (G + 1,)
            Edges (s) of the cells, ascending.
        rank, q : ndarray, shape (N,)
            Ranks, and probabilities of taking part.
        row : ndarray of int, shape (N,)
            Band of each device, from 0 on.

        Returns
        -------
        Bulk
        """
        bands, cells = int(row.max()) + 1, len(edge_s) - 1
        total, few = np.zeros((7, bands, cells)), _Few(bands * cells)
        for some, need, share, member in parts(problem, edge_s, rank, q, row):
            b, p = need.band, np.where(share.few, 0.0, share.here)
            mean = p * b
            square = (1 - p) * mean * b
            zero = np.log1p(-np.minimum(p, 1 - ALWAYS))
            terms = (*outlined(need, share), zero, mean, square, (1 - 2 * p) * square * b)
            total += np.stack([member @ term for term in terms])
            device, column = np.nonzero(share.few)
            place = row[some][device] * cells + column
            few.add(place, share.here[share.few], b[share.few])
        outline = Outline.of(total[:3])
        left = 1 - outline.spread[..., None] * np.sinh(np.linspace(-_REACH, _REACH, _POINTS))
        law = np.zeros(left.shape)
        mass = few.distribution().reshape(bands, cells, -1)
        for m in range(_LATTICE + 1):
            here = mass[..., m] > 1e-9
            cumulants = [x[here][:, None] for x in total[3:]]
            below = _gamma_law(left[here] - m / _LATTICE, *cumulants)
            law[here] += mass[here][:, m : m + 1] * below
        return cls(outline, law)

    def toggles(
        self,
        problem: Problem,
        edge_s: FloatArray,
        rank: FloatArray,
        q: FloatArray,
        row: IntArray,
        candidate: FloatArray,
    ) -> Iterator[tuple[IntArray, FloatArray, FloatArray]]:
        """Take each device out and put it in, block by block.

        Parameters
        ----------
        problem, edge_s, rank, q, row
            Those of `build`.
        candidate : ndarray, shape (C, N)
            Ranks that each device takes in turn.

        Yields
        ------
        device : ndarray of int, shape (n,)
            Some devices.
        without : ndarray, shape (n, G)
            Probability that the cohort fits into the device's band if it is absent.
        present : ndarray, shape (C, n, G)
            The same if it is present.

        Notes
        -----
        A device of need b that is there with probability p makes the law K of all from the law K'
        of the others, ``K(x) = (1 - p) K'(x) + p K'(x + b)``. So ``K'(x) = (K(x) - p K(x + b)) /
        (1 - p)`` but for p^2, and from the other side ``(K(x - b) - (1 - p) K(x - 2 b)) / p`` but
        for (1 - p)^2.
        """
        for some, own, share, _ in parts(problem, edge_s, rank, q, row):
            free = np.exp(np.minimum(self.outline.log_free[row[some]] - np.log(share.free), 0.0))
            rare = share.here <= 0.5
            odds = np.where(rare, share.here, 1 - share.here)
            first = np.where(rare, 0.0, -own.band)
            second = np.where(rare, own.band, -2 * own.band)

            def others(
                band: FloatArray,
                at: IntArray = row[some, None],
                first: FloatArray = first,
                second: FloatArray = second,
                odds: FloatArray = odds,
            ) -> FloatArray:
                fits = self._leaves(at, band + first) - odds * self._leaves(at, band + second)
                return np.clip(fits / (1 - odds), 0.0, 1.0)

            present = np.empty((len(candidate), *free.shape))
            for c, other in enumerate(candidate[:, some]):
                need = needs(problem, edge_s, some, other)
                present[c] = free * (1 - need.block) * others(need.band)
            yield some, free * others(np.zeros_like(free)), present

    @property
    def probability(self) -> FloatArray:
        """Probability (R, G) that a cohort fits."""
        return np.asarray(np.exp(self.outline.log_free) * self.law[..., _POINTS // 2])

    def _leaves(self, row: IntArray, share: FloatArray) -> FloatArray:
        """Probability (n, G) that those of rows (n, 1) who do not block leave shares (n, G)."""
        column = np.arange(share.shape[1])
        u = np.arcsinh(share / self.outline.spread[row, column])
        place = (np.clip(u, -_REACH, _REACH) + _REACH) * ((_POINTS - 1) / (2 * _REACH))
        low = np.minimum(place.astype(np.int64), _POINTS - 2)
        law, at = self.law.ravel(), (row * share.shape[1] + column) * _POINTS + low
        below = law[at]
        return np.asarray(below + (place - low) * (law[at + 1] - below))


class _Few:
    """Sums of needs in K places, as Fourier transforms along a damped circle.

    Devices that are rare are counted by place, need and probability, between lattice points and
    levels; the others are multiplied in one by one. Damping keeps what wraps around below 1e-7.
    """

    def __init__(self, places: int) -> None:
        self._count = np.zeros(places * (_LATTICE + 2) * len(_LEVELS))
        self._members = np.zeros(places)
        self._often: list[tuple[IntArray, FloatArray, FloatArray]] = []

    def add(self, place: IntArray, p: FloatArray, band: FloatArray) -> None:
        """Add devices in places (k,) with probabilities and needs (k,)."""
        self._members += np.bincount(place, p, len(self._members))
        often = p > _LEVELS[-1]
        self._often.append((place[often], p[often], band[often]))
        place, p, band = place[~often], p[~often], band[~often]
        low = (band * _LATTICE).astype(np.int64)
        level = np.searchsorted(_LEVELS[1:-1], p, side="right")
        up = band * _LATTICE - low
        rise = (p - _LEVELS[level]) / (_LEVELS[level + 1] - _LEVELS[level])
        at = (place * (_LATTICE + 2) + low) * len(_LEVELS) + level
        for step, part in ((0, 1 - up), (len(_LEVELS), up)):
            for more, share in ((0, 1 - rise), (1, rise)):
                self._count += np.bincount(at + step + more, part * share, len(self._count))

    def distribution(self) -> FloatArray:
        """Probability (K, M) of each sum up to the whole band; zero where there are too many."""
        turn = np.exp(-2j * np.pi * np.arange(_LENGTH // 2 + 1) / _LENGTH)
        power = (_DAMP * turn) ** np.arange(_LATTICE + 2)[:, None]
        table = np.log1p(_LEVELS[:, None] * (power[:, None] - 1))
        count = self._count.reshape(len(self._members), -1)
        log = count @ table.reshape(count.shape[1], -1)
        feasible = self._members <= _TOO_MANY
        for place, p, band in self._often:
            some = feasible[place]
            place, p, band = place[some], p[some, None], band[some]
            low = np.minimum((band * _LATTICE).astype(np.int64), _LATTICE)
            up = (band * _LATTICE - low)[:, None]
            factor = 1 - p + p * ((1 - up) * power[low] + up * power[low + 1])
            np.add.at(log, place, np.log(factor))
        log[~feasible] = -700.0
        mass = np.fft.irfft(np.exp(log), _LENGTH)[:, : _LATTICE + 1]
        return np.asarray(np.maximum(mass / _DAMP ** np.arange(_LATTICE + 1), 0.0))


def _gamma_law(
    left: FloatArray,
    log_zero: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    third: FloatArray,
) -> FloatArray:
    """Probability that a sum of independent needs with these cumulants is at most `left`.

    Given that the sum is not zero, the Wilson-Hilferty cube root makes a gamma law with the same
    mean, variance and skewness, Pearson's type III, all but normal.
    """
    some = np.maximum(-np.expm1(log_zero), ALWAYS)
    center = mean / some
    second = (variance + mean**2) / some
    spread = np.sqrt(np.maximum(second - center**2, LEAST**2))
    moment = (third + 3 * variance * mean + mean**3) / some
    skew = (moment - 3 * center * second + 2 * center**3) / spread**3
    skew = np.where(np.abs(skew) < 1e-3, 1e-3, np.clip(skew, -3.0, 3.0))
    # Many ask for less than nothing, of which there is none.
    law, fits = np.zeros(left.shape), left >= 0
    row = np.nonzero(fits)[0]
    slope, shift = (skew / (2 * spread))[row, 0], (1 - center * skew / (2 * spread))[row, 0]
    root = np.cbrt(np.maximum(shift + slope * left[fits], 0.0))
    below = ndtr((6 / skew)[row, 0] * (root - 1) + (skew / 6)[row, 0])
    law[fits] = 1 - some[row, 0] * (1 - below)
    return law
