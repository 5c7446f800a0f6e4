"""A batch of cohorts as one list of senders, so that no absent device is ever computed with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.link import Link
from wireless.spectrum.rule import FloatArray, check


@dataclass(frozen=True, slots=True, eq=False)
class Cohorts:
    """The K senders of R groups, each of which shares a band; no group is empty.

    Parameters
    ----------
    start_s : ndarray, shape (K,)
        Times in seconds at which the senders are ready, counted from their group's earliest: so
        they are not negative and keep their digits.
    bits : ndarray, shape (K,)
        Bits to send, > 0.
    link : Link
        Uplinks of the K senders.
    group : ndarray of int, shape (K,)
        Group of each sender, ascending.
    first : ndarray of int, shape (R,)
        Position of each group's first sender.
    size : ndarray of int, shape (R,)
        Number of senders of each group.
    """

    start_s: FloatArray
    bits: FloatArray
    link: Link
    group: NDArray[np.intp]
    first: NDArray[np.intp]
    size: NDArray[np.intp]

    @classmethod
    def single(cls, start_s: FloatArray, bits: FloatArray, link: Link) -> "Cohorts":
        """Return one group, of everybody, all with bits; starts on any clock."""
        members = len(bits)
        return cls(
            start_s - start_s.min(),
            bits,
            link,
            np.zeros(members, np.intp),
            np.zeros(1, np.intp),
            np.array([members]),
        )

    def solo_s(self, bandwidth_hz: float) -> FloatArray:
        """Return how long each transfer would last over the whole band, (K,) seconds."""
        return np.asarray(self.bits / self.link.rate(np.full(len(self.bits), bandwidth_hz)))

    def by_readiness(self) -> "Cohorts":
        """Return the same groups, in each of them first ready first; ties keep their order."""
        order = np.lexsort((self.start_s, self.group))
        return Cohorts(
            self.start_s[order],
            self.bits[order],
            self.link.take(order),
            self.group,
            self.first,
            self.size,
        )


Finish = Callable[[Cohorts, float], FloatArray]
"""When each group ends under some rule, (R,) seconds after its earliest start, given the band."""


def batch_time(
    finish: Finish,
    start_s: ArrayLike,
    bits: ArrayLike,
    link: Link,
    bandwidth_hz: float,
    present: ArrayLike | None,
    cell: ArrayLike | None,
) -> FloatArray:
    """Compress a batch to its senders, solve, and wait for everybody: see `Rule.round_time`."""
    start, sent = np.asarray(start_s, np.float64), np.asarray(bits, np.float64)
    check(start, sent, bandwidth_hz)
    if present is None and cell is None and start.shape == sent.shape == (len(link),):
        return _one_time(finish, start, sent, link, bandwidth_hz)
    member = np.asarray(True if present is None else present, dtype=np.bool_)
    shape = np.broadcast_shapes(start.shape, sent.shape, member.shape, (len(link),))
    start, sent = np.broadcast_to(start, shape), np.broadcast_to(sent, shape)
    member = np.broadcast_to(member, shape)
    batch, devices = int(np.prod(shape[:-1], dtype=np.intp)), shape[-1]

    waited = np.where(member, start, -np.inf).max(axis=-1, initial=-np.inf).reshape(batch)
    ended = np.where(np.isfinite(waited), waited, 0.0)
    sends = (member & (sent > 0)).reshape(batch, devices)
    cohort, device = np.nonzero(sends)
    if len(cohort):
        tau, u = start.reshape(batch, devices)[sends], sent.reshape(batch, devices)[sends]
        group = cohort
        if cell is not None:
            number = _cell_numbers(cell, devices)
            group = cohort * (int(number.max()) + 1) + number[device]
            order = np.argsort(group, kind="stable")
            cohort, device, group = cohort[order], device[order], group[order]
            tau, u = tau[order], u[order]
        first = np.concatenate(([0], np.flatnonzero(np.diff(group)) + 1))
        size = np.diff(np.append(first, len(group)))
        origin = np.minimum.reduceat(tau, first)
        rank = np.repeat(np.arange(len(first)), size)
        groups = Cohorts(tau - origin[rank], u, link.take(device), rank, first, size)
        np.maximum.at(ended, cohort[first], origin + finish(groups, bandwidth_hz))
    return ended.reshape(shape[:-1])


def _one_time(
    finish: Finish, start: FloatArray, sent: FloatArray, link: Link, bandwidth_hz: float
) -> FloatArray:
    """Return when one cohort ends, everybody present, without the bookkeeping of a batch."""
    if not len(start):
        return np.zeros(())
    ended, sends = start.max(), sent > 0
    if not sends.all():
        start, sent, link = start[sends], sent[sends], link.take(sends)
    if len(start):
        cohort = Cohorts.single(start, sent, link)
        ended = np.maximum(ended, start.min() + finish(cohort, bandwidth_hz)[0])
    return np.asarray(ended)


def _cell_numbers(cell: ArrayLike, devices: int) -> NDArray[np.intp]:
    """Return the cells, counted from 0, (M,)."""
    label = np.asarray(cell)
    if label.shape != (devices,) or label.dtype.kind not in "iu":
        raise ValueError(
            f"cell must be {devices} integers, got shape {label.shape} of {label.dtype}"
        )
    return np.asarray(np.unique(label, return_inverse=True)[1], dtype=np.intp)


def serial_finish(cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
    """Return when each group ends if its senders have the whole band one after the other.

    Parameters
    ----------
    cohorts : Cohorts
        The groups.
    bandwidth_hz : float
        Width of the band in Hz.

    Returns
    -------
    ndarray, shape (R,)
        Seconds after each group's earliest start.

    Notes
    -----
    max over i of tau_i + sum_{j >= i} s_j, in order of readiness, s_j the time alone in the band.
    On linear links s_j = w_j / B and every rule that never idles while somebody has bits left
    ends then: the work left falls by B a second whoever sends (own derivation).
    """
    ordered = cohorts.by_readiness()
    solo = ordered.solo_s(bandwidth_hz)
    finish = np.empty(len(ordered.first))
    # Groups of like size side by side, padded to the largest: at most half is padding.
    magnitude = np.frexp(ordered.size)[1]
    for power in np.unique(magnitude):
        rows = np.flatnonzero(magnitude == power)
        column = np.arange(ordered.size[rows].max())
        inside = column < ordered.size[rows, None]
        place = np.where(inside, ordered.first[rows, None] + column, 0)
        to_come = np.where(inside, solo[place], 0.0)[:, ::-1].cumsum(axis=1)[:, ::-1]
        finish[rows] = np.where(inside, ordered.start_s[place] + to_come, 0.0).max(axis=1)
    return finish
