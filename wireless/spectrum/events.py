"""Transfers of one cohort from event to event."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wireless.link import Link
from wireless.spectrum.rule import FloatArray, Transfers, Whole

TIE = 1e-12
"""Transfers whose ends differ by less than this part of the time to them end together.

Those meant to end together are set apart by rounding, and each remainder would otherwise ask for a
division of its own.
"""

Divide = Callable[[FloatArray, FloatArray, Link, float], FloatArray]
"""`Rule.divide` of a rule that divides the band anew at every event."""


def simulate(
    divide: Divide,
    start: FloatArray,
    bits: FloatArray,
    link: Link,
    bandwidth_hz: float,
    whole: Whole | None = None,
) -> Transfers:
    """Divide the band among the senders that are ready whenever one becomes ready or finishes.

    Parameters
    ----------
    divide : callable
        Division of the band among the active senders, in order of readiness.
    start, bits : ndarray, shape (M,)
        Times in seconds at which the devices are ready, and their bits.
    link : Link
        Uplinks of the M devices.
    bandwidth_hz : float
        Width of the band in Hz.
    whole : callable, optional
        Rounding of each division, as in `Rule.transfers`.

    Returns
    -------
    Transfers
        Exact but for rounding: between two events all rates are constant.

    Raises
    ------
    ValueError
        If `whole` leaves nobody any band.
    """
    senders = np.flatnonzero(bits > 0)
    order = senders[np.argsort(start[senders], kind="stable")]
    ready, total, links = start[order], bits[order], link.take(order)
    left = total.copy()
    begin, finish, used, held, power = np.full((5, len(order)), np.nan)
    used[:] = held[:] = power[:] = 0.0
    events: list[tuple[float, float, int]] = []
    sending = np.zeros(0, dtype=np.intp)
    # Counted from the first start, times keep their digits; `clock` is the time that is reported.
    offset = ready - ready[:1]
    now, clock = 0.0, -np.inf
    arrived = 0
    while arrived < len(order) or len(sending):
        if not len(sending):
            now = float(offset[arrived])
        until = int(np.searchsorted(offset, now, side="right"))
        if until > arrived:
            clock = max(clock, float(ready[until - 1]))
            sending = np.concatenate([sending, np.arange(arrived, until)])
            arrived = until

        chosen = links.take(sending)
        band = divide(left[sending], total[sending], chosen, bandwidth_hz)
        if whole is not None:
            band = whole(band, bandwidth_hz)
        rate, holds = chosen.rate(band), band > 0
        gap = float(offset[arrived]) - now if arrived < len(order) else np.inf
        elapsed, ended = _next_event(left[sending], rate, gap)

        events.append((clock, float(band.sum()), int(holds.sum())))
        starts = sending[holds & np.isnan(begin[sending])]
        begin[starts] = clock
        used[sending] += band * elapsed
        held[sending] += np.where(np.isnan(begin[sending]), 0.0, elapsed)
        power[sending] += chosen.power_share(band) * elapsed
        left[sending] -= rate * elapsed
        now = float(offset[arrived]) if elapsed == gap else now + elapsed
        clock = max(clock, float(ready[arrived] if elapsed == gap else ready[0] + now))
        ended |= left[sending] <= 0
        finish[sending[ended]] = clock
        sending = sending[~ended]
        if not len(sending):
            events.append((clock, 0.0, 0))

    mean = np.divide(used, held, out=np.zeros_like(used), where=held > 0)
    idle = np.zeros_like(start)
    event_s, in_use, active = np.array(events).reshape(-1, 3).T
    # Of several events at one time the last one holds.
    lasting = np.diff(event_s, append=np.inf) > 0
    return Transfers(
        begin_s=_scatter(order, begin, start),
        finish_s=_scatter(order, finish, start),
        bandwidth_hz=_scatter(order, mean, idle),
        power_s=_scatter(order, power, idle),
        event_s=event_s[lasting],
        in_use_hz=in_use[lasting],
        active=active[lasting].astype(np.int64),
    )


def _next_event(
    left: FloatArray, rate: FloatArray, gap_s: float
) -> tuple[float, NDArray[np.bool_]]:
    """Return the seconds to the next event, and who ends there, given those to the next start."""
    lasts = np.divide(left, rate, out=np.full_like(left, np.inf), where=rate > 0)
    soonest = float(lasts.min())
    if gap_s < soonest:
        return gap_s, np.zeros(len(left), dtype=np.bool_)
    if soonest == np.inf:
        raise ValueError("whole must leave band to at least one of the devices that send")
    ended = lasts <= soonest * (1 + TIE)
    return min(float(lasts[ended].max()), gap_s), ended


def _scatter(order: NDArray[np.intp], value: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Put the senders' values back into the place of their device."""
    spread = otherwise.copy()
    spread[order] = value
    return spread


def timeline(begin: FloatArray, finish: FloatArray, bandwidth: FloatArray, link: Link) -> Transfers:
    """Report transfers that each hold one constant band.

    Parameters
    ----------
    begin, finish : ndarray, shape (M,)
        Times in seconds between which the devices hold their band.
    bandwidth : ndarray, shape (M,)
        Bandwidths in Hz; a device without any only waits.
    link : Link
        Uplinks of the M devices.

    Returns
    -------
    Transfers
    """
    sends = bandwidth > 0
    came, went, band = begin[sends], finish[sends], bandwidth[sends]
    event, at = np.unique(np.concatenate([came, went]), return_inverse=True)
    active = np.cumsum(np.bincount(at, np.repeat([1.0, -1.0], len(band)), len(event)))
    change = np.bincount(at, np.concatenate([band, -band]), len(event))
    in_use: FloatArray = np.cumsum(change, dtype=np.float64)
    # An idle band is empty exactly, whatever the sums before were rounded to.
    in_use[active == 0] = 0.0
    return Transfers(
        begin_s=begin.copy(),
        finish_s=finish.copy(),
        bandwidth_hz=bandwidth.copy(),
        power_s=link.power_share(bandwidth) * (finish - begin),
        event_s=event,
        in_use_hz=in_use,
        active=active.astype(np.int64),
    )
