"""Work-conserving: equal finish over the active devices, solved again at every event.

All devices that are sending would end together if nobody joined, so they send at constant rates
and all keep the same part of their bits when somebody does. Between two starts a single number,
the time left, therefore describes a cohort.

It never ends after the static equal finish: at every start the static reservations of the active
devices still fit in the band and would finish what they have left in time. A link that reaches its
limit within the band may leave band over, because the others are slowed down to end with it (own
derivations).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import LinearLink, Link
from wireless.spectrum.cohorts import Cohorts, serial_finish
from wireless.spectrum.dynamic import DynamicRule
from wireless.spectrum.rule import FloatArray, unfinished
from wireless.spectrum.solver import finish_together
from wireless.spectrum.static import equal_finish


@dataclass(frozen=True, slots=True)
class WorkConserving(DynamicRule):
    """Equal finish among the active, anew at every event; see `wireless.spectrum.Rule`."""

    name: ClassVar[str] = "work-conserving"

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band so that all active devices end together: see `Rule.divide`."""
        left, _ = unfinished(left_bits, total_bits, link, bandwidth_hz)
        if isinstance(link, LinearLink):
            work = link.bandwidth(left)
            return np.asarray(bandwidth_hz * (work / work.sum()))
        return equal_finish(np.zeros(len(left)), left, link, bandwidth_hz).bandwidth_hz

    def finish_s(self, cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
        """Serve one after the other on linear links, else go from start to start."""
        finish = serial_finish if isinstance(cohorts.link, LinearLink) else _finish
        return finish(cohorts, bandwidth_hz)


def _finish(cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
    """Go from start to start, all groups side by side, and solve for the time left at each.

    The solution is bracketed by the time left of those already active and the time alone of those
    who join: no less than the longest, no more than the sum (b_n is convex).
    """
    ordered = cohorts.by_readiness()
    start, left, links = ordered.start_s, ordered.bits.copy(), ordered.link
    group, first, size = ordered.group, ordered.first, ordered.size
    place = np.arange(len(group)) - first[group]
    solo = ordered.solo_s(bandwidth_hz)
    gap = np.append(np.diff(start), np.inf)
    gap[first + size - 1] = np.inf
    # Position of the group's first active sender, and bounds and guess of the time left.
    oldest = np.zeros(len(first), dtype=np.intp)
    low, high, guess = np.zeros((3, len(first)))
    finish = np.zeros(len(first))

    for step in range(int(size.max())):
        rows = np.flatnonzero(size > step)
        joins = first[rows] + step
        alone = oldest[rows] == step
        senders = step + 1 - oldest[rows]
        low[rows] = np.maximum(low[rows], solo[joins])
        high[rows] += solo[joins]
        share = bandwidth_hz / senders
        guess[rows] += np.where(
            alone, solo[joins], left[joins] / links.take(joins).rate(share) / senders
        )
        # Several that start at once are solved for once.
        rows, joins, alone = (array[gap[joins] > 0] for array in (rows, joins, alone))
        time = guess.copy()
        shared = rows[~alone]
        if len(shared):
            busy = np.zeros(len(first), dtype=np.bool_)
            busy[shared] = True
            active = np.flatnonzero(busy[group] & (place >= oldest[group]) & (place <= step))
            time[shared] = finish_together(
                np.zeros(len(active)),
                left[active],
                links.take(active),
                (np.cumsum(busy) - 1)[group[active]],
                bandwidth_hz,
                low[shared],
                high[shared],
                np.clip(guess[shared], low[shared], high[shared]),
            )
        finish[rows] = start[joins] + time[rows]
        rest = np.maximum(time[rows] - gap[joins], 0.0)
        low[rows] = high[rows] = guess[rows] = rest
        oldest[rows] = np.where(rest > 0, oldest[rows], step + 1)
        kept = np.ones(len(first))
        kept[rows] = rest / time[rows]
        held = (place >= oldest[group]) & (place <= step)
        left[held] *= kept[group[held]]
    return finish
