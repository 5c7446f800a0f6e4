"""What devices need of the band in order to end by given times, under equal finish.

A cohort has ended by time t if its members' needs ``b_n(u_n / (t - tau_n))`` sum to no more than
the band. Need falls from infinity, before device n could end even alone, to next to nothing.
Source: own derivation.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray

ALWAYS = 1e-12
"""Least probability that a device is absent, so that it can be taken out of a product again."""

LEAST = 1e-3
"""Least standard deviation of what a cohort needs, as a share of the band."""

_PAIRS = 200_000
# Share of the band from which on a device is one of the few that need much.
_MUCH = 0.2


class Needs(NamedTuple):
    """What n devices need in G cells of a grid of times.

    Parameters
    ----------
    block : ndarray, shape (n, G)
        Share of each cell in which the device cannot end even alone.
    band : ndarray, shape (n, G)
        Need in the rest of the cell, as a share of the band, at most 1; 0 where there is no rest.
    """

    block: FloatArray
    band: FloatArray


def needs(problem: Problem, edge_s: FloatArray, device: IntArray, rank: FloatArray) -> Needs:
    """Needs of some devices at ranks (n,) in the cells between edges (G + 1,), in s.

    A device that becomes able to end inside a cell blocks up to then; its need is that at the
    middle of the rest. So both are continuous in its times.
    """
    link = problem.link.take(device)
    k = np.ones(problem.devices)
    k[device] = rank
    tau = (problem.download_s(k) + problem.compute_s(k))[device]
    bits = problem.upload_bits(k)[device]
    solo_s = tau + bits / link.rate(np.full(len(device), problem.bandwidth_hz))
    start, width = np.maximum(edge_s[:-1, None], solo_s), np.diff(edge_s)[:, None]
    rest = np.maximum(edge_s[1:, None] - start, 0.0)
    # Where there is no rest any time will do.
    left_s = np.where(rest > 0, start + rest / 2, solo_s) - tau
    band = np.minimum(link.bandwidth(bits / left_s) / problem.bandwidth_hz, 1.0)
    return Needs(1 - (rest / width).T, np.where(rest > 0, band, 0.0).T)


class Shares(NamedTuple):
    """How n devices take part in G cells of a grid of times, all of shape (n, G).

    Parameters
    ----------
    free : ndarray
        Probability that the device does not block the band.
    here : ndarray
        Probability that it takes part if it does not.
    few : ndarray of bool
        Whether it is one of the few that need much.
    """

    free: FloatArray
    here: FloatArray
    few: NDArray[np.bool_]


class Outline(NamedTuple):
    """What R fleets need in G cells of a grid of times, all of shape (R, G).

    Parameters
    ----------
    log_free : ndarray
        Logarithm of the probability that nobody blocks the band.
    mean, spread : ndarray
        Mean and standard deviation of what the others need, as shares of the band.
    """

    log_free: FloatArray
    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, total: FloatArray) -> Self:
        """Outline from the sums (3, R, G) of what `outlined` gives."""
        return cls(total[0], total[1], np.sqrt(np.maximum(total[2], LEAST**2)))

    @classmethod
    def build(
        cls,
        problem: Problem,
        edge_s: FloatArray,
        rank: FloatArray,
        q: FloatArray,
        row: IntArray,
        every: int = 1,
    ) -> Self:
        """Sum up a fleet, or every so-many-th device for all: see `optimizer.times.bulk.Bulk`."""
        total = np.zeros((3, int(row.max()) + 1, len(edge_s) - 1))
        for _, need, share, member in parts(problem, edge_s, rank, q, row, every):
            total += every * np.stack([member @ term for term in outlined(need, share)])
        return cls.of(total)


def outlined(need: Needs, share: Shares) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What each device adds to an outline, (n, G) each."""
    mean = share.here * need.band
    return np.log(share.free), mean, (1 - share.here) * mean * need.band


def parts(
    problem: Problem,
    edge_s: FloatArray,
    rank: FloatArray,
    q: FloatArray,
    row: IntArray,
    every: int = 1,
) -> Iterator[tuple[IntArray, Needs, Shares, FloatArray]]:
    """Yield devices (n,), needs, shares and bands (R, n) as ones and zeros, block by block."""
    bands, cells = np.arange(int(row.max()) + 1)[:, None], len(edge_s) - 1
    step = every * max(1, _PAIRS // cells)
    for first in range(0, problem.devices, step):
        some = np.arange(first, min(first + step, problem.devices), every)
        need = needs(problem, edge_s, some, rank[some])
        free = np.maximum(1 - q[some, None] * need.block, ALWAYS)
        here = q[some, None] * (1 - need.block) / free
        few = need.band > _MUCH
        yield some, need, Shares(free, here, few), (bands == row[some]).astype(np.float64)
