"""Sample averages of the round time, cheap enough to optimise over."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import (
    EXACT_DEVICES,
    BoolArray,
    all_cohorts,
    cohort_mass,
)
from wireless.spectrum import equal_finish_time, solo_finish_time
from wireless.streams import uniform

_BLOCK = 1_000_000
_NEVER = 1e6
_EVEN = 192


@dataclass(frozen=True, slots=True, eq=False)
class TabulatedRoundTime:
    """Expected round time over a fixed set of cohort draws, on a fixed grid of times.

    The bandwidth that a cohort needs in order to finish by time t is the sum of what its members
    need. Tabulated over a grid of t, the needs of all draws are one matrix product, and the time at
    which they fit into the band, with or without any device, is a search in a monotone row. The
    draws and the grid stay the same for all plans, so the estimate can be descended on.

    Parameters
    ----------
    problem : Problem
        The fleet.
    time_s : ndarray, shape (G,)
        Ascending grid (s) that holds every cohort's duration at any ranks.
    draw : ndarray, shape (J, N), or None
        Uniform numbers: device n is in cohort j when its number is below q_n. None enumerates all
        cohorts, as is done up to 12 devices.

    Notes
    -----
    The estimate is that of equal finish whatever the problem's allocation rule, with the bands of
    several cells pooled and each device's own download alone. It decides where the search looks;
    the plan found is judged by the rule itself. Source: own derivation.
    """

    problem: Problem
    time_s: FloatArray
    draw: FloatArray | None

    @classmethod
    def build(cls, problem: Problem, seed: int) -> Self:
        """Lay the grid and take the draws.

        Parameters
        ----------
        problem : Problem
            The fleet.
        seed : int
            Root seed.

        Returns
        -------
        TabulatedRoundTime
        """
        n = problem.devices
        cap = problem.rank_cap
        last_s = equal_finish_time(
            problem.download_s(cap) + problem.compute_s(cap),
            problem.upload_bits(cap),
            problem.link,
            problem.bandwidth_hz * problem.cells,
        )
        solo_s = np.stack(
            [
                solo_finish_time(
                    problem.download_s(k) + problem.compute_s(k),
                    problem.upload_bits(k),
                    problem.link,
                    problem.bandwidth_hz,
                )
                for k in (np.ones(n), problem.rank_cap)
            ]
        )
        first_s, last_s = solo_s.min() * (1 - 1e-6), max(solo_s.max(), last_s) * (1 + 1e-6)
        # Durations bend just above the solo time of a straggler: where devices are sparse, a point
        # for each of them; where they are dense, one for each cell of a finer even grid.
        even = np.geomspace(first_s, last_s, _EVEN)
        fine = np.geomspace(first_s, last_s, 2 * _EVEN)
        bend = np.sort(solo_s, axis=None)
        bend = bend[np.unique(np.searchsorted(fine, bend), return_index=True)[1]]
        grid = np.union1d(even, np.clip(bend, first_s, last_s))
        draw = None
        if n > EXACT_DEVICES:
            draws = min(max(400_000 // n, 128), 2048)
            draw = uniform(seed, "plan", np.arange(draws)[:, None], np.arange(n))
        return cls(problem, grid, draw)

    def need_hz(self, rank: ArrayLike) -> FloatArray:
        """Bandwidth with which each device finishes by each time of the grid.

        Parameters
        ----------
        rank : array_like, shape (N,)
            Ranks k_n.

        Returns
        -------
        ndarray, shape (N, G)
            Hz; a large finite number where the device cannot make it.
        """
        p = self.problem
        left_s = self.time_s[:, None] - p.download_s(rank) - p.compute_s(rank)
        left_s = np.where(left_s > 0, left_s, np.nan)
        rate = np.where(np.isnan(left_s), np.inf, p.upload_bits(rank) / left_s)
        need = p.link.bandwidth(rate)
        if p.cells > 1:
            # The bands are pooled, but nobody has more than one of them.
            need = np.where(need > p.bandwidth_hz, np.inf, need)
        # Finite, so that a device can be taken out of a sum again; far above the band, so that
        # the interpolation starts from next to no speed.
        need = np.minimum(need, _NEVER * p.bandwidth_hz * p.cells)
        return np.ascontiguousarray(need.T)

    def objective_s(self, need_hz: FloatArray, rank: ArrayLike, probability: FloatArray) -> float:
        """Estimated time to the target: rounds times expected round time.

        Parameters
        ----------
        need_hz : ndarray, shape (N, G)
            What `need_hz` gives for the ranks.
        rank : array_like, shape (N,)
            Ranks k_n.
        probability : ndarray, shape (N,)
            Sampling probabilities q_n.

        Returns
        -------
        float
            Seconds.
        """
        present, mass = self._cohorts(probability)
        load = present.astype(np.float64) @ need_hz
        nobody = np.zeros((2, 1, len(self.time_s)))
        time_s = self._finish_s(load, nobody, np.zeros((len(load), 1), dtype=np.bool_))[:, 0]
        mean_s = self.problem.overhead_s + float(mass @ time_s)
        return self.problem.rounds_of(rank, probability) * mean_s

    def toggles(
        self, need_hz: FloatArray, probability: FloatArray, candidate_hz: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Round time without each device, and what it adds at each candidate rank.

        Parameters
        ----------
        need_hz : ndarray, shape (N, G)
            Needs at the current ranks.
        probability : ndarray, shape (N,)
            Sampling probabilities q_n.
        candidate_hz : sequence of C ndarrays, shape (N, G)
            Needs at candidate ranks, one of which each device takes while the others keep theirs.

        Returns
        -------
        without_s : ndarray, shape (N,)
            Expected round time (s) without device n, overhead included.
        added_s : ndarray, shape (C, N)
            What device n adds (s) where it completes, times its completion.
        """
        present, mass = self._cohorts(probability)
        load = present.astype(np.float64) @ need_hz
        without_s = np.empty(self.problem.devices)
        added_s = np.empty((len(candidate_hz), self.problem.devices))
        step = max(1, _BLOCK // len(load))
        for first in range(0, self.problem.devices, step):
            block = slice(first, first + step)
            member, own = present[:, block], need_hz[block]
            # Row 1 corrects the load of cohorts that hold the device, row 0 of those that do not.
            change = np.stack([np.zeros_like(own), -own])
            base = mass @ self._finish_s(load, change, member)
            without_s[block] = self.problem.overhead_s + base
            for c, candidate in enumerate(candidate_hz):
                finish_s = self._finish_s(load, change + candidate[block], member)
                added_s[c, block] = mass @ finish_s - base
        return without_s, self.problem.takes_part(added_s)

    def _cohorts(self, probability: FloatArray) -> tuple[BoolArray, FloatArray]:
        probability = self.problem.takes_part(probability)
        if self.draw is None:
            present = all_cohorts(self.problem.devices)
            return present, cohort_mass(present, probability)
        present = self.draw < probability
        return present, np.full(len(present), 1 / len(present))

    def _finish_s(self, load: FloatArray, change: FloatArray, row: BoolArray) -> FloatArray:
        """Time at which load (J, G) + change[row] (2, n, G) fits the band, shape (J, n)."""
        grid, band = len(self.time_s), self.problem.bandwidth_hz * self.problem.cells
        n = change.shape[1]
        at_load = np.arange(len(load), dtype=np.int32)[:, None] * np.int32(grid)
        at_change = (row * np.int32(n) + np.arange(n, dtype=np.int32)) * np.int32(grid)
        load, change = load.ravel(), change.ravel()
        # First grid point that fits, by bisection; the last one always does.
        low = np.full(row.shape, -1, dtype=np.int32)
        high = np.full(row.shape, grid - 1, dtype=np.int32)
        for _ in range(grid.bit_length()):
            middle = (low + high) >> 1
            inside = np.maximum(middle, 0)
            fits = load[at_load + inside] + change[at_change + inside] <= band
            low, high = np.where(fits, low, middle), np.where(fits, inside, high)
        # Only nobody at all fits at the first point, which lies below every solo time.
        empty = high == 0
        low = np.maximum(high - 1, 0)
        before = load[at_load + low] + change[at_change + low]
        after = load[at_load + high] + change[at_change + high]
        # Between grid points 1/load is interpolated: it is linear in t for equal starts on links
        # whose rate is proportional to bandwidth.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (1 / band - 1 / before) / (1 / after - 1 / before)
        between = self.time_s[low] + share * (self.time_s[high] - self.time_s[low])
        return np.where(empty, 0.0, between)
