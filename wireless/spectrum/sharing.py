"""Sharing the band by fixed weights, divided anew at every event, for a batch of cohorts."""

import numpy as np

from wireless.link import LinearLink
from wireless.spectrum.cohorts import Cohorts, serial_finish
from wireless.spectrum.events import TIE
from wireless.spectrum.rule import FloatArray


def weighted_finish(cohorts: Cohorts, weight: FloatArray, bandwidth_hz: float) -> FloatArray:
    """Return when each group ends if its active senders hold band in proportion to their weights.

    Parameters
    ----------
    cohorts : Cohorts
        The groups.
    weight : ndarray, shape (K,)
        Weights of the senders, > 0.
    bandwidth_hz : float
        Width of the band in Hz.

    Returns
    -------
    ndarray, shape (R,)
        Seconds after each group's earliest start.

    Notes
    -----
    Known as discriminatory processor sharing. On linear links the band is never idle while
    somebody has bits left, so the end is that of `serial_finish`. On other links all groups go
    from event to event side by side, at most twice as many steps as the largest has senders.
    """
    if isinstance(cohorts.link, LinearLink):
        return serial_finish(cohorts, bandwidth_hz)
    start, left, links = cohorts.start_s, cohorts.bits.copy(), cohorts.link
    group, first = cohorts.group, cohorts.first
    where, now = np.arange(len(first)), np.zeros(len(first))
    finish = np.empty(len(first))
    while len(where):
        late = start > now[group]
        active = np.flatnonzero(~late)
        active_group = group[active]
        share = weight[active] / np.bincount(active_group, weight[active])[active_group]
        rate = links.take(active).rate(share * bandwidth_hz)
        lasts = left[active] / rate
        boundary = np.flatnonzero(np.diff(active_group, prepend=-1))
        soonest = np.minimum.reduceat(lasts, boundary)
        next_start = np.minimum.reduceat(np.where(late, start, np.inf), first)
        gap = next_start - now
        elapsed = np.minimum(soonest, gap)[active_group]
        rest = left[active] - rate * elapsed
        left[active] = np.where((lasts <= elapsed * (1 + TIE)) | (rest <= 0), 0.0, rest)

        keep = left > 0
        size = np.bincount(group, keep, len(where)).astype(np.intp)
        alive = size > 0
        now = np.where(gap <= soonest, next_start, now + soonest)
        finish[where[~alive]] = now[~alive]
        if not alive.any():
            break
        if not keep.all():
            start, left, weight, links = start[keep], left[keep], weight[keep], links.take(keep)
            group = (np.cumsum(alive) - 1)[group[keep]]
            where, now = where[alive], now[alive]
            first = np.concatenate(([0], np.cumsum(size[alive])[:-1]))
        # Where nobody is active, the next start comes.
        now = np.maximum(now, np.minimum.reduceat(start, first))
    return finish
