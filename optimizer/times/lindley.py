"""The distribution of the end of a round whose transfers follow one another.

On linear links the devices of one band, in order of readiness, make the chain
``F <- max(F, tau) + s`` with probability q each, s the solo transfer time. Carried along a lattice
of times, its distribution is exact but for the spacing. Carried back, the function V_i(x) says when
the round ends on average if the chain stands at x before device i, so that all devices' toggles
are means of V. Source: own derivation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincc

from optimizer.problem import IntArray
from optimizer.rounds import FloatArray

STAGES = 256
"""Most stages of a chain; up to as many devices, each is its own."""

#: Points of the lattice where each device is a stage of its own, and in longer chains.
_POINTS, _LONG_POINTS = 2048, 1024
_QUANTILES = 48
_PAIRS = 500_000
_ALWAYS = 1e-12
_NEGLIGIBLE = 1e-13


class Grid(NamedTuple):
    """Lattice of times ``first_s + m * step_s``, m < points.

    Parameters
    ----------
    first_s, step_s : float
        Earliest time and spacing (s).
    points : int
        Number of times.
    """

    first_s: float
    step_s: float
    points: int

    @property
    def time_s(self) -> FloatArray:
        """The times, (points,) s."""
        return np.asarray(self.first_s + self.step_s * np.arange(self.points), dtype=np.float64)

    def at(self, value: FloatArray, time_s: FloatArray) -> FloatArray:
        """Interpolate values (points,) at times; beyond the lattice they rise by 1 a second."""
        place = np.maximum((time_s - self.first_s) / self.step_s, 0.0)
        low = np.minimum(place.astype(np.int64), self.points - 2)
        share = np.minimum(place - low, 1.0)
        beyond = np.maximum(place - (self.points - 1), 0.0) * self.step_s
        below = value[low]
        return np.asarray(below + share * (value[low + 1] - below) + beyond)


def lay_grid(first_s: float, ready_s: FloatArray, work_s: FloatArray, q: FloatArray) -> Grid:
    """Lay a lattice that holds the chain but for less than one part in a billion.

    Parameters
    ----------
    first_s : float
        Earliest readiness (s) of any device at any rank.
    ready_s, work_s, q : ndarray, shape (N,)
        Readiness and solo transfer times (s), and probabilities of taking part.

    Returns
    -------
    Grid
    """
    spread = np.sqrt(q * (1 - q) @ work_s**2)
    # Bernstein's inequality, at exp(-20).
    more = min(q @ work_s + 6.4 * spread + 13.4 * work_s.max(), work_s.sum() * (1 + 1e-9))
    points = _POINTS if len(q) <= STAGES else _LONG_POINTS
    return Grid(first_s, (float(ready_s.max()) + more - first_s) / (points - 1), points)


@dataclass(frozen=True, slots=True, eq=False)
class Lindley:
    """One band's chain on a lattice of M times, in S stages of devices with like readiness.

    Parameters
    ----------
    grid : Grid
        The lattice.
    ready_s, work_s, q : ndarray, shape (n,)
        Readiness and solo transfer times (s), and probabilities of taking part.
    stage : ndarray of int, shape (n,)
        Stage of each device.
    nobody : ndarray, shape (S,)
        Probability that nobody of a stage takes part.
    ready_mean_s : ndarray, shape (S,)
        Readiness (s) of a stage, the mean of its members'.
    law : ndarray, shape (S, M + 1)
        Fourier transform of the distribution of a stage's work, given that it has a member.
    before : ndarray, shape (S + 1, M)
        Distribution of the chain before each stage, and after the last. An empty cohort stands at
        the first time, which nobody is ready before.
    """

    grid: Grid
    ready_s: FloatArray
    work_s: FloatArray
    q: FloatArray
    stage: IntArray
    nobody: FloatArray
    ready_mean_s: FloatArray
    law: np.ndarray[tuple[int, ...], np.dtype[np.complex128]]
    before: FloatArray

    @classmethod
    def build(cls, grid: Grid, ready_s: FloatArray, work_s: FloatArray, q: FloatArray) -> "Lindley":
        """Carry the distribution forward.

        Parameters
        ----------
        grid : Grid
            The lattice.
        ready_s, work_s, q : ndarray, shape (n,)
            As above.

        Returns
        -------
        Lindley
        """
        stage = _stages(ready_s, q)
        count = int(stage.max()) + 1

        def total(x: FloatArray) -> FloatArray:
            return np.bincount(stage, x, count).astype(np.float64)

        with np.errstate(divide="ignore"):
            nobody = np.exp(total(np.log1p(-q)))
        size, some = total(q), 1 - nobody
        mean = total(q * work_s) / some
        square = (total(q * (1 - q) * work_s**2) + total(q * work_s) ** 2) / some
        variance = np.where(np.bincount(stage) > 1, np.maximum(square - mean**2, 0.0), 0.0)
        law = np.fft.rfft(_lattice_law(grid, mean, variance), 2 * grid.points)
        ready_mean_s = np.maximum(total(q * ready_s) / size, grid.first_s)
        before = np.empty((count + 1, grid.points))
        before[0] = np.eye(1, grid.points)
        for i in range(count):
            late = np.fft.rfft(_no_sooner(grid, before[i], ready_mean_s[i]), 2 * grid.points)
            ends = np.fft.irfft(late * law[i], 2 * grid.points)
            ends[grid.points - 1] += ends[grid.points :].sum()
            before[i + 1] = nobody[i] * before[i] + some[i] * ends[: grid.points]
        return cls(grid, ready_s, work_s, q, stage, nobody, ready_mean_s, law, before)

    @property
    def empty(self) -> float:
        """Probability that the cohort has no device of this band."""
        return float(np.prod(self.nobody))

    def distribution(self) -> tuple[FloatArray, float]:
        """Probability (M,) of each time at which a cohort ends, and that of an empty one."""
        end = self.before[-1].copy()
        end[0] -= self.empty
        return np.maximum(end, 0.0), self.empty

    def toggles(
        self, ready_s: FloatArray, work_s: FloatArray, value_s: FloatArray, empty_s: float
    ) -> tuple[FloatArray, FloatArray]:
        """Mean value of the end without each device and with it.

        A device keeps its place in the order, even where its readiness would move it.

        Parameters
        ----------
        ready_s, work_s : ndarray, shape (C, n)
            Readiness and solo transfer times (s) that each device has instead, one at a time.
        value_s : ndarray, shape (M,)
            Value (s) of ending at each time, which rises by 1 a second beyond the lattice.
        empty_s : float
            Value (s) of an empty cohort.

        Returns
        -------
        without_s : ndarray, shape (n,)
        with_s : ndarray, shape (C, n)
        """
        without_s, with_s = np.empty(len(self.q)), np.empty(ready_s.shape)
        count = len(self.nobody)
        absent = np.log(np.maximum(1 - self.q, _ALWAYS))
        # Of a stage, and of the others, nobody but perhaps the device itself.
        alone = np.exp(np.bincount(self.stage, absent, count)[self.stage] - absent)
        empty = np.exp(absent.sum() - absent) * (value_s[0] - empty_s)
        order, size = np.argsort(self.stage, kind="stable"), np.bincount(self.stage)
        for i, device in reversed(list(enumerate(np.split(order, np.cumsum(size)[:-1])))):
            busy = self._busy(i, value_s)
            place, weight = self._points(i, exactly=len(device) == 1)
            without_s[device] = self._mean(place, weight, alone[device], value_s, busy)
            without_s[device] -= empty[device]
            step = max(1, _PAIRS // len(place))
            for some in np.split(device, range(step, len(device), step)):
                for c in range(len(ready_s)):
                    start_s = np.maximum(place, ready_s[c, some, None])
                    with_s[c, some] = self._mean(
                        start_s + work_s[c, some, None], weight, alone[some], value_s, busy
                    )
            value_s = self.nobody[i] * value_s + (1 - self.nobody[i]) * busy
        return without_s, with_s

    def _mean(
        self,
        time_s: FloatArray,
        weight: FloatArray,
        alone: FloatArray,
        value_s: FloatArray,
        busy_s: FloatArray,
    ) -> FloatArray:
        """Mean value (n,) from times (..., K): of nobody else in the stage, or of somebody."""
        first = self.grid.at(value_s, time_s) @ weight
        if np.all(alone == 1.0):
            return np.broadcast_to(first, alone.shape)
        return np.asarray(alone * first + (1 - alone) * (self.grid.at(busy_s, time_s) @ weight))

    def _busy(self, stage: int, value_s: FloatArray) -> FloatArray:
        """Mean value (M,) if a stage has a member, by where the chain stands before it."""
        beyond = value_s[-1] + self.grid.step_s * np.arange(1, self.grid.points + 1)
        ahead = np.fft.rfft(np.concatenate((value_s, beyond))) * np.conj(self.law[stage])
        after = np.fft.irfft(ahead, 2 * self.grid.points)[: self.grid.points]
        return self.grid.at(after, np.maximum(self.grid.time_s, self.ready_mean_s[stage]))

    def _points(self, stage: int, *, exactly: bool) -> tuple[FloatArray, FloatArray]:
        """Where (K,) the chain stands before a stage (s), and how likely: a summary or all."""
        mass, time_s = self.before[stage], self.grid.time_s
        here = np.flatnonzero(mass > _NEGLIGIBLE)
        mass, time_s = mass[here], time_s[here]
        if exactly or len(here) <= _QUANTILES:
            return time_s, mass
        middle = np.cumsum(mass) - mass / 2
        part = (middle * (_QUANTILES / mass.sum())).astype(np.int64)
        part = np.unique(part, return_inverse=True)[1]
        weight = np.bincount(part, mass).astype(np.float64)
        return np.asarray(np.bincount(part, mass * time_s) / weight), weight


def _stages(ready_s: FloatArray, q: FloatArray) -> IntArray:
    """Stage (n,) of each device: none earlier than another of a later stage."""
    order = np.argsort(ready_s, kind="stable")
    level = np.arange(len(order))
    if len(order) > STAGES:
        # Even steps in readiness and in expected members together.
        t, mass = ready_s[order], np.cumsum(q[order])
        part = (t - t[0]) / max(t[-1] - t[0], np.finfo(np.float64).tiny) + mass / mass[-1]
        part = np.minimum((part * (STAGES / 2)).astype(np.int64), STAGES - 1)
        level = np.unique(part, return_inverse=True)[1]
    stage = np.empty_like(level)
    stage[order] = level
    return stage


def _no_sooner(grid: Grid, mass: FloatArray, time_s: float) -> FloatArray:
    """Distribution (M,) of max(F, time), the time between two of the lattice."""
    place = (time_s - grid.first_s) / grid.step_s
    low = min(int(place), grid.points - 2)
    moved, late = mass[: low + 1].sum(), mass.copy()
    late[: low + 1] = 0.0
    late[low] += moved * (1 - (place - low))
    late[low + 1] += moved * (place - low)
    return late


def _lattice_law(grid: Grid, mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Distributions (S, M) on multiples of the spacing, of gamma laws or, without variance, points.

    Each time is split between its neighbours so that the mean stays: the weights are second
    differences of ``E[(W - x)^+]``.
    """
    x = grid.step_s * np.arange(grid.points + 1)
    over = np.maximum(mean[:, None] - x, 0.0)
    wide = variance > (0.05 * grid.step_s) ** 2
    reach = 12 * np.sqrt(variance)[:, None] + 12 * grid.step_s
    row, column = np.nonzero(wide[:, None] & (np.abs(x - mean[:, None]) < 3 * reach))
    shape, scale = mean[row] ** 2 / variance[row], variance[row] / mean[row]
    y = x[column]
    over[row, column] = mean[row] * gammaincc(shape + 1, y / scale) - y * gammaincc(
        shape, y / scale
    )
    over = np.concatenate((mean[:, None] + grid.step_s, over), axis=1)
    law = np.maximum(over[:, :-2] - 2 * over[:, 1:-1] + over[:, 2:], 0.0) / grid.step_s
    return np.asarray(law / law.sum(axis=1, keepdims=True))
