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
from numpy.typing import ArrayLike, NDArray

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
    who join: no less than the longest, no more than the sum (b_n is convex). It is guessed by one
    step of Newton's method on the logarithm of what all need against that of time, in which those
    already active are a straight line: only who joins is evaluated.
    """
    ordered = cohorts.by_readiness()
    start, left, links = ordered.start_s, ordered.bits.copy(), ordered.link
    first, size = ordered.first, ordered.size
    solo = ordered.solo_s(bandwidth_hz)
    gap = np.append(np.diff(start), np.inf)
    gap[first + size - 1] = np.inf
    # The group's first active sender; bounds and guess of the time left; and by how many percent
    # the active need less of the band if they have one percent more time.
    oldest = first.copy()
    low, high, time, fall = np.zeros((4, len(first)))
    finish = np.zeros(len(first))

    for step in range(int(size.max())):
        rows = np.flatnonzero(size > step)
        joins = first[rows] + step
        low[rows] = np.maximum(low[rows], solo[joins])
        high[rows] += solo[joins]
        time[rows], fall[rows] = _joined(
            time[rows], fall[rows], left[joins], links.take(joins), solo[joins], bandwidth_hz
        )
        # Several that start at once are solved for once.
        waits = gap[joins] > 0
        rows, joins = rows[waits], joins[waits]
        time[rows] = np.clip(time[rows], low[rows], high[rows])
        shared = rows[oldest[rows] < first[rows] + step]
        if len(shared):
            active, group = _windows(oldest[shared], first[shared] + step)
            time[shared], falls = finish_together(
                np.zeros(len(active)),
                left[active],
                links.take(active),
                group,
                bandwidth_hz,
                low[shared],
                high[shared],
                time[shared],
            )
            fall[shared] = falls * time[shared] / bandwidth_hz
        finish[rows] = start[joins] + time[rows]
        rest = np.maximum(time[rows] - gap[joins], 0.0)
        kept = rest / time[rows]
        low[rows] = high[rows] = time[rows] = rest
        lasts = rest > 0
        oldest[rows[~lasts]] = joins[~lasts] + 1
        active, group = _windows(oldest[rows[lasts]], joins[lasts])
        left[active] *= kept[lasts][group]
    return finish


def _joined(
    time_s: FloatArray,
    fall: FloatArray,
    bits: FloatArray,
    link: Link,
    solo_s: FloatArray,
    bandwidth_hz: float,
) -> tuple[FloatArray, FloatArray]:
    """Guess times left and falls, both (R,), once one more sender has joined each group."""
    longer = np.maximum(time_s, solo_s)
    rate = bits / longer
    band, slope = link.bandwidth_and_slope(rate)
    # Need of a band that is full; alone, by the sender itself, but for a rounding.
    others, own = (time_s / longer) ** fall, np.minimum(band / bandwidth_hz, 1.0)
    both = others + own
    with np.errstate(over="ignore", invalid="ignore"):
        falls = (fall * others + slope * rate / bandwidth_hz) / both
    # At a link's limit more time frees band without end; any finite fall will do for a guess.
    falls = np.where(np.isfinite(falls), falls, 1.0)
    return longer * both ** (1 / falls), falls


def _windows(
    first: NDArray[np.intp], last: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions from each first to each last, both (R,), and to which of the R they belong."""
    size = last - first + 1
    group = np.repeat(np.arange(len(size)), size)
    return np.arange(len(group)) + (first - np.cumsum(size) + size)[group], group
