"""Equal finish from a table of the bandwidth that each device needs to end by each time."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import EXACT_DEVICES, BoolArray
from wireless.spectrum import equal_finish_time, solo_finish_time

_PAIRS = 1_000_000
_NEVER = 1e6
_EVEN = 192
_KEPT = 40_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Ends of cohorts under equal finish, by table; see `optimizer.times.sampled.Ends`.

    The bandwidth that a cohort needs in order to finish by time t is the sum of what its members
    need. Tabulated over a grid of t, the needs of all cohorts are one matrix product, and the time
    at which they fit into the band, with or without any device, is a search in a monotone row.

    Parameters
    ----------
    problem : Problem
        The fleet.
    time_s : ndarray, shape (G,)
        Ascending grid (s) that holds every cohort's end at any ranks.
    kept_hz : ndarray, shape (R, N, G), or None
        Needs (Hz) at whole ranks once they have been asked for, zero before; None keeps none.

    Notes
    -----
    Source: own derivation.
    """

    problem: Problem
    time_s: FloatArray
    kept_hz: FloatArray | None

    @classmethod
    def build(cls, problem: Problem) -> Self:
        """Lay the grid.

        Parameters
        ----------
        problem : Problem
            The fleet.

        Returns
        -------
        Table
        """
        n, cap = problem.devices, problem.rank_cap
        last_s = equal_finish_time(
            problem.download_s(cap) + problem.compute_s(cap),
            problem.upload_bits(cap),
            problem.link,
            problem.bandwidth_hz,
            cell=problem.cell,
        )
        solo_s = np.stack(
            [
                solo_finish_time(
                    problem.download_s(k) + problem.compute_s(k),
                    problem.upload_bits(k),
                    problem.link,
                    problem.bandwidth_hz,
                )
                for k in (np.ones(n), cap)
            ]
        )
        first_s, last_s = solo_s.min() * (1 - 1e-6), max(solo_s.max(), last_s) * (1 + 1e-6)
        # Few devices are enumerated, and then the grid is all the error there is.
        points = 4 * _EVEN if n <= EXACT_DEVICES else _EVEN
        # Durations bend just above the solo time of a straggler: where devices are sparse, a point
        # for each of them; where they are dense, one for each cell of a finer even grid.
        even = np.geomspace(first_s, last_s, points)
        fine = np.geomspace(first_s, last_s, 2 * points)
        bend = np.sort(solo_s, axis=None)
        bend = bend[np.unique(np.searchsorted(fine, bend), return_index=True)[1]]
        grid = np.union1d(even, np.clip(bend, first_s, last_s))
        shape = (problem.rank, n, len(grid))
        kept = np.zeros(shape) if np.prod(shape, dtype=np.float64) <= _KEPT else None
        return cls(problem, grid, kept)

    def end_s(self, device: IntArray, rank: FloatArray, present: BoolArray) -> FloatArray:
        """Return when cohorts of some devices end: see `Ends.end_s`."""
        load = present.astype(np.float64) @ self._need_hz(device, rank)
        return self._whole(load)[1]

    def toggles(
        self,
        device: IntArray,
        rank: FloatArray,
        candidate: FloatArray,
        present: BoolArray,
        mass: FloatArray,
        floor_s: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return mean ends without and with each device: see `Ends.toggles`."""
        own_hz = self._need_hz(device, rank)
        other_hz = [self._need_hz(device, k) for k in candidate]
        load = present.astype(np.float64) @ own_hz
        whole, whole_s = self._whole(load)
        without_s, with_s = np.empty(len(device)), np.empty((len(candidate), len(device)))
        step = max(1, _PAIRS // len(load))
        for first in range(0, len(device), step):
            block = slice(first, first + step)
            member, own = present[:, block], own_hz[block]
            # The other members alone: what the cohort is itself where the device is absent.
            fit = np.repeat(whole[:, None], len(own), axis=1)
            end_s = np.repeat(whole_s[:, None], len(own), axis=1)
            less = _Search(self, load, -own, *np.nonzero(member))
            fit[member] = less.down(whole[less.cohort])
            end_s[member] = less.time_s(fit[member])
            without_s[block] = mass @ np.maximum(end_s, floor_s[:, None])
            cohort, place = (x.ravel() for x in np.indices(member.shape))
            row = place + len(own) * member.ravel()
            for c, need_hz in enumerate(other_hz):
                need = need_hz[block]
                more = _Search(self, load, np.concatenate((need, need - own)), cohort, row)
                # Nobody ends before it could alone, nor before the others do.
                alone = self._first_fit(need)
                end_s = more.time_s(more.up(np.maximum(fit, alone).ravel())).reshape(fit.shape)
                with_s[c, block] = mass @ np.maximum(end_s, floor_s[:, None])
        return without_s, with_s

    def _need_hz(self, device: IntArray, rank: FloatArray) -> FloatArray:
        """Bandwidth (n, G) with which some devices, at ranks (N,), finish by each time."""
        k = np.asarray(rank, dtype=np.float64)[device]
        if self.kept_hz is None:
            return self._computed_hz(device, k)
        whole = (k == np.floor(k)) & (k >= 1) & (k <= len(self.kept_hz))
        level = np.where(whole, k, 1.0).astype(np.intp) - 1
        unknown = whole & (self.kept_hz[level, device, 0] == 0)
        fresh = self._computed_hz(device[unknown], k[unknown])
        self.kept_hz[level[unknown], device[unknown]] = fresh
        need = self.kept_hz[level, device]
        if not whole.all():
            need[~whole] = self._computed_hz(device[~whole], k[~whole])
        return need

    def _computed_hz(self, device: IntArray, rank: FloatArray) -> FloatArray:
        p = self.problem
        k = np.ones(p.devices)
        k[device] = rank
        left_s = self.time_s[:, None] - (p.download_s(k) + p.compute_s(k))[device]
        left_s = np.where(left_s > 0, left_s, np.nan)
        rate = np.where(np.isnan(left_s), np.inf, p.upload_bits(k)[device] / left_s)
        # Finite, so that a device can be taken out of a sum again; far above the band, so that
        # the interpolation starts from next to no speed.
        need = np.minimum(p.link.take(device).bandwidth(rate), _NEVER * p.bandwidth_hz)
        return np.ascontiguousarray(need.T)

    def _first_fit(self, need_hz: FloatArray) -> IntArray:
        """First grid points at which rows (..., G) fit into the band; the last at the latest."""
        late = np.count_nonzero(need_hz > self.problem.bandwidth_hz, axis=-1)
        return np.asarray(np.minimum(late, len(self.time_s) - 1), dtype=np.int64)

    def _whole(self, load_hz: FloatArray) -> tuple[IntArray, FloatArray]:
        """First fits (J,) and ends (J,) in s of cohorts whose needs are (J, G)."""
        fit = self._first_fit(load_hz)
        row = np.arange(len(fit))
        nobody = np.zeros((1, len(self.time_s)))
        return fit, _Search(self, load_hz, nobody, row, np.zeros_like(row)).time_s(fit)


class _Search:
    """Where load[cohort] + change[row] fits into the band, for K pairs of a cohort and a row.

    Parameters
    ----------
    table : Table
        Grid and band.
    load_hz, change_hz : ndarray, shapes (J, G) and (R, G)
        Needs of cohorts, and what is added to them.
    cohort, row : ndarray of int, shape (K,)
        The pairs.
    """

    def __init__(
        self,
        table: Table,
        load_hz: FloatArray,
        change_hz: FloatArray,
        cohort: IntArray,
        row: IntArray,
    ) -> None:
        self.cohort = cohort
        self._grid, self._band = table.time_s, table.problem.bandwidth_hz
        # Neighbouring pairs are mostly one cohort's, at about one time: rows side by side.
        self._load, self._change = load_hz.ravel(), change_hz.T.ravel()
        self._at_load, self._at_change = cohort * len(self._grid), row
        self._stride = len(change_hz)

    def up(self, start: IntArray) -> IntArray:
        """First fits (K,) not before `start`, by steps that double, then by halving."""
        last = len(self._grid) - 1
        low, high = start - 1, start.copy()
        left = np.flatnonzero((self._hz(high) > self._band) & (high < last))
        step = 1
        while len(left):
            low[left] = high[left]
            high[left] = np.minimum(high[left] + step, last)
            late = (self._hz(high[left], left) > self._band) & (high[left] < last)
            left, step = left[late], 2 * step
        return self._between(low, high)

    def down(self, start: IntArray) -> IntArray:
        """First fits (K,) not after `start`, by halving."""
        return self._between(np.full_like(start, -1), start.copy())

    def time_s(self, fit: IntArray) -> FloatArray:
        """Ends (K,) in s, given the first fits."""
        before = np.maximum(fit - 1, 0)
        slow, fast, band = self._hz(before), self._hz(fit), self._band
        # Between grid points 1/load is interpolated: it is linear in t for equal starts on links
        # whose rate is proportional to bandwidth.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (1 / band - 1 / slow) / (1 / fast - 1 / slow)
        start_s = self._grid[before]
        end_s = start_s + np.minimum(share, 1.0) * (self._grid[fit] - start_s)
        # Only nobody at all fits at the first point, which lies below every solo time.
        return np.where(fit == 0, 0.0, end_s)

    def _hz(self, at: IntArray, some: IntArray | slice = slice(None)) -> FloatArray:
        load = self._load[self._at_load[some] + at]
        return np.asarray(load + self._change[self._at_change[some] + at * self._stride])

    def _between(self, low: IntArray, high: IntArray) -> IntArray:
        left = np.flatnonzero(high - low > 1)
        while len(left):
            middle = (low[left] + high[left]) >> 1
            late = self._hz(middle, left) > self._band
            low[left[late]], high[left[~late]] = middle[late], middle[~late]
            left = left[high[left] - low[left] > 1]
        return high
