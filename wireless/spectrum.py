"""Sharing one uplink band among a cohort by equal finish (static FDMA).

Device n is ready at tau_n and has u_n bits to send. The band B is divided once, so that everybody
ends together: T solves sum_n b_n(u_n / (T - tau_n)) = B, with b_n the bandwidth that a rate needs.
No other static division of the band ends earlier.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.link import Link

_EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """A static division of the band among M devices.

    Parameters
    ----------
    bandwidth_hz : ndarray, shape (M,)
        Bandwidth of each device.
    finish_s : float
        Time at which the last device ends.
    """

    bandwidth_hz: NDArray[np.float64]
    finish_s: float


def _check(start_s: NDArray[np.float64], bits: NDArray[np.float64], bandwidth_hz: float) -> None:
    """Refuse values that have no meaning before they turn into NaN."""
    if not np.isfinite(start_s).all():
        raise ValueError("start_s must be finite")
    if not (np.isfinite(bits) & (bits >= 0)).all():
        raise ValueError("bits must be finite and not negative")
    if not 0 < bandwidth_hz < np.inf:
        raise ValueError(f"bandwidth_hz must be finite and positive, got {bandwidth_hz}")


def solo_finish_time(
    start_s: ArrayLike, bits: ArrayLike, link: Link, bandwidth_hz: float
) -> NDArray[np.float64]:
    """Return when each device would end if it had the whole band to itself.

    Parameters
    ----------
    start_s : array_like, shape (..., M)
        Times in seconds at which the devices are ready to send.
    bits : array_like, shape (..., M)
        Bits that each device sends.
    link : Link
        Uplinks of the M devices.
    bandwidth_hz : float
        Width of the band in Hz.

    Returns
    -------
    ndarray, shape (..., M)
        Finish times in seconds.

    Raises
    ------
    ValueError
        If a start is not finite, a number of bits negative, or the band not positive.
    """
    start, sent = np.asarray(start_s, np.float64), np.asarray(bits, np.float64)
    _check(start, sent, bandwidth_hz)
    finish: NDArray[np.float64] = start + sent / link.rate(np.full(len(link), bandwidth_hz))
    return finish


def equal_finish_time(
    start_s: ArrayLike,
    bits: ArrayLike,
    link: Link,
    bandwidth_hz: float,
    present: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return when each of a batch of cohorts ends under equal finish.

    Each cohort's time depends on that cohort alone, to the last bit, whatever the batch.

    Parameters
    ----------
    start_s : array_like, shape (..., M)
        Times in seconds at which the devices are ready to send.
    bits : array_like, shape (..., M)
        Bits that each device sends. A device with none only has to be waited for.
    link : Link
        Uplinks of the M devices.
    bandwidth_hz : float
        Width of the band in Hz.
    present : array_like of bool, shape (..., M), optional
        Members of each cohort; everybody if not given.

    Returns
    -------
    ndarray, shape (...)
        Finish times in seconds; zero for an empty cohort.

    Raises
    ------
    ValueError
        If a start is not finite, a number of bits negative, or the band not positive.

    Notes
    -----
    Newton's method on 1 / sum b_n(T), which is exact for equal starts on linear links and
    converges from below on all linear links; on other links the bracket between the longest solo
    finish and max tau + sum of solo times (b_n is convex) guards it (own derivation).
    """
    start, sent = np.asarray(start_s, np.float64), np.asarray(bits, np.float64)
    _check(start, sent, bandwidth_hz)
    member = np.asarray(True if present is None else present, dtype=np.bool_)
    shape = np.broadcast_shapes(start.shape, sent.shape, member.shape, (len(link),))
    start, sent = np.broadcast_to(start, shape), np.broadcast_to(sent, shape)
    member = np.broadcast_to(member, shape)

    waited = np.where(member, start, -np.inf).max(axis=-1, initial=-np.inf)
    sends = member & (sent > 0)
    transfer = _transfer_finish(start, sent, link, bandwidth_hz, sends)
    return np.where(member.any(axis=-1), np.maximum(waited, transfer), 0.0)


def _transfer_finish(
    start: NDArray[np.float64],
    sent: NDArray[np.float64],
    link: Link,
    bandwidth_hz: float,
    sends: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Solve for T over the devices that send; minus infinity where nobody does."""
    # The senders of all cohorts in one ragged list, so that no absent device is ever inverted.
    flat = sends.reshape(math.prod(sends.shape[:-1]), sends.shape[-1])
    cohort, device = np.nonzero(flat)
    solution = np.full(len(flat), -np.inf)
    if not len(cohort):
        return solution.reshape(sends.shape[:-1])
    size = flat.sum(axis=1)
    occupied = np.flatnonzero(size)
    row = np.repeat(np.arange(len(occupied)), size[occupied])
    first = np.concatenate(([0], np.cumsum(size[occupied])[:-1]))
    links = link.take(device)
    # Counted from each cohort's earliest start, times are positive and keep their digits.
    origin = np.minimum.reduceat(start[sends], first)
    tau, u = start[sends] - origin[row], sent[sends]

    solo = u / links.rate(np.full(len(row), bandwidth_hz))
    low = np.maximum.reduceat(tau + solo, first)
    high = np.maximum.reduceat(tau, first) + np.bincount(row, solo)
    # Start from the linear links that match at an even split: weighted mean start + W / B.
    even = bandwidth_hz / size[occupied][row]
    share = u / links.rate(even) * even / bandwidth_hz
    work = np.bincount(row, share)
    time = np.clip(np.bincount(row, share * tau) / work + work, low, high)

    # Newton needs 3 to 7 steps; bisection after the twentieth some 60 at most.
    for iteration in range(120):
        left = time[row] - tau
        # A transfer too short to show beside its start time divides by zero; the bracket has it.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            band, slope = links.bandwidth_and_slope(u / left)
            used = np.bincount(row, band)
            fall = np.bincount(row, slope * u / left**2)
            guess = time + (used - bandwidth_hz) * (used / bandwidth_hz) / fall
        low = np.where(used >= bandwidth_hz, time, low)
        high = np.where(used >= bandwidth_hz, high, time)
        # Not a number, where the time is infeasible by a rounding, counts as outside.
        inside = (guess >= low) & (guess <= high) & (iteration < 20)
        guess = np.where(inside, guess, low + (high - low) / 2)
        # The error is squared by the step that is still taken.
        done = inside & (np.abs(used - bandwidth_hz) <= 1e-9 * bandwidth_hz)
        done |= np.abs(guess - time) <= 2 * _EPSILON * time
        done |= high - low <= 2 * _EPSILON * high
        solution[occupied[done]] = origin[done] + guess[done]
        if done.all():
            return solution.reshape(sends.shape[:-1])
        keep = ~done[row]
        links, tau, u = links.take(keep), tau[keep], u[keep]
        row = (np.cumsum(~done) - 1)[row[keep]]
        occupied, origin = occupied[~done], origin[~done]
        time, low, high = guess[~done], low[~done], high[~done]
    raise FloatingPointError("equal finish overflows: start_s, bits and rates are too far apart")


def equal_finish(
    start_s: ArrayLike, bits: ArrayLike, link: Link, bandwidth_hz: float
) -> Allocation:
    """Divide the band among one cohort so that everybody ends together.

    Parameters
    ----------
    start_s : array_like, shape (M,)
        Times in seconds at which the devices are ready to send.
    bits : array_like, shape (M,)
        Bits that each device sends.
    link : Link
        Uplinks of the M devices.
    bandwidth_hz : float
        Width of the band in Hz.

    Returns
    -------
    Allocation
        Bandwidths, whose sum does not exceed the band, and the common finish (zero for an empty
        cohort). Should a device without bits start after everybody else could have ended, the
        others are slowed down to end with it.

    Raises
    ------
    ValueError
        If a start is not finite, a number of bits negative, or the band not positive.
    """
    start, sent = np.broadcast_arrays(np.asarray(start_s, np.float64), np.asarray(bits, np.float64))
    if start.shape != (len(link),):
        raise ValueError(f"one cohort of {len(link)} devices expected, got shape {start.shape}")
    finish = float(equal_finish_time(start, sent, link, bandwidth_hz))
    sends = sent > 0
    if not sends.any():
        return Allocation(np.zeros(len(link)), finish)
    links, tau, u = link.take(sends), start[sends], sent[sends]
    with np.errstate(divide="ignore"):
        rate = u / (finish - tau)
    # Rounded to a float, the finish may ask for a rate that no bandwidth within the band gives.
    rate = np.minimum(rate, links.rate(np.full(len(links), bandwidth_hz)))
    rate = np.minimum(rate, np.nextafter(links.limit_bps, 0))
    band, slope = links.bandwidth_and_slope(rate)
    # A surplus from that rounding is taken back as an infinitely smaller delay would: a link near
    # its limit gives it without ending later, which scaling alone would take from everybody.
    fall = slope * rate**2 / u
    surplus = max(band.sum() - bandwidth_hz, 0.0)
    band = np.maximum(band - surplus * fall / fall.sum(), band / 2)
    band *= min(1.0, bandwidth_hz / band.sum())
    bandwidth = np.zeros(len(link))
    bandwidth[sends] = band
    finish = float(np.max(tau + u / links.rate(band), initial=start.max()))
    return Allocation(bandwidth, finish)
