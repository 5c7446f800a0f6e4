"""Equal finish: the band is divided once so that everybody ends together (static FDMA).

Device n is ready at tau_n and has u_n bits to send; T solves sum_n b_n(u_n / (T - tau_n)) = B, with
b_n the bandwidth that a rate needs. No other static division of the band ends earlier. On links
whose rate stops growing at some bandwidth, T may be the longest solo finish with band to spare.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from wireless.link import Link
from wireless.spectrum.cohorts import Cohorts, batch_time
from wireless.spectrum.events import timeline
from wireless.spectrum.rule import FloatArray, Transfers, Whole, one_cohort, unfinished
from wireless.spectrum.solver import finish_together


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

    bandwidth_hz: FloatArray
    finish_s: float


@dataclass(frozen=True, slots=True)
class EqualFinish:
    """Static division that lets everybody end together; see `wireless.spectrum.Rule`.

    `divide` is the division for devices that are all ready now. Should a device without bits start
    after everybody else could have ended, `transfers` slows the others down to end with it.
    """

    name: ClassVar[str] = "equal-finish"
    reserves: ClassVar[bool] = True

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band so that all end together: see `Rule.divide`."""
        left, _ = unfinished(left_bits, total_bits, link, bandwidth_hz)
        return equal_finish(np.zeros(len(left)), left, link, bandwidth_hz).bandwidth_hz

    def round_time(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        present: ArrayLike | None = None,
        cell: ArrayLike | None = None,
    ) -> FloatArray:
        """Return when each cohort ends: see `Rule.round_time`."""
        return equal_finish_time(start_s, bits, link, bandwidth_hz, present, cell)

    def transfers(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        whole: Whole | None = None,
    ) -> Transfers:
        """Follow one cohort's transfers, each in its reservation: see `Rule.transfers`."""
        start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
        division = equal_finish(start, sent, link, bandwidth_hz)
        band, sends = division.bandwidth_hz, sent > 0
        finish = np.where(sends, division.finish_s, start)
        if whole is not None:
            band = whole(band, bandwidth_hz)
            if not (band[sends] > 0).all():
                raise ValueError("whole must leave some band to every device that sends")
            rate = link.rate(band)
            finish = start + np.divide(sent, rate, out=np.zeros_like(sent), where=sends)
        return timeline(start, finish, band, link)


def equal_finish_time(
    start_s: ArrayLike,
    bits: ArrayLike,
    link: Link,
    bandwidth_hz: float,
    present: ArrayLike | None = None,
    cell: ArrayLike | None = None,
) -> FloatArray:
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
    cell : array_like of int, shape (M,), optional
        Cell of each device, each with a band of its own; one for all if not given.

    Returns
    -------
    ndarray, shape (...)
        Finish times in seconds, of the last cell; zero for an empty cohort.

    Raises
    ------
    ValueError
        If a start is not finite, a number of bits negative, the band not positive, or `cell` not
        a vector of integers.
    """
    return batch_time(_finish, start_s, bits, link, bandwidth_hz, present, cell)


def _finish(cohorts: Cohorts, bandwidth_hz: float) -> FloatArray:
    """Return when each group ends, (R,) seconds."""
    whole = cohorts.link.rate(np.full(len(cohorts.bits), bandwidth_hz))
    return _solve(cohorts, bandwidth_hz, whole)


def _solve(cohorts: Cohorts, bandwidth_hz: float, whole_bps: FloatArray) -> FloatArray:
    """Bracket and guess each group's T, given the rates over the whole band (K,), then solve."""
    tau, u, group, first = cohorts.start_s, cohorts.bits, cohorts.group, cohorts.first
    solo = u / whole_bps
    low = np.maximum.reduceat(tau + solo, first)
    high = np.asarray(np.maximum.reduceat(tau, first) + np.bincount(group, solo), np.float64)
    # Start from the linear links that match at an even split: weighted mean start + W / B.
    even = bandwidth_hz / cohorts.size[group]
    share = u / cohorts.link.rate(even) * even / bandwidth_hz
    work = np.bincount(group, share)
    mean = np.bincount(group, share * tau) / work
    guess = np.minimum(np.maximum(mean + work, low), high)
    return finish_together(tau, u, cohorts.link, group, bandwidth_hz, low, high, guess)[0]


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
    start, sent = one_cohort(start_s, bits, link, bandwidth_hz)
    sends = sent > 0
    if not sends.any():
        return Allocation(np.zeros(len(link)), float(start.max()) if len(start) else 0.0)
    links, tau, u = link.take(sends), start[sends], sent[sends]
    whole = links.rate(np.full(len(links), bandwidth_hz))
    ended = tau.min() + _solve(Cohorts.single(tau, u, links), bandwidth_hz, whole)[0]
    finish = np.maximum(start.max(), ended)
    with np.errstate(divide="ignore"):
        rate = u / (finish - tau)
    # Rounded to a float, the finish may ask for a rate that no bandwidth within the band gives.
    rate = np.minimum(np.minimum(rate, whole), np.nextafter(links.limit_bps, 0))
    band, slope = links.bandwidth_and_slope(rate)
    band = np.minimum(band, bandwidth_hz)
    # A surplus from that rounding is taken back as an infinitely smaller delay would: a link near
    # its limit gives it without ending later, which scaling alone would take from everybody.
    fall = slope * rate**2 / u
    fall = np.where(np.isinf(fall).any(), np.isinf(fall), fall)
    surplus = max(band.sum() - bandwidth_hz, 0.0)
    band = np.maximum(band - surplus * fall / fall.sum(), band / 2)
    band *= min(1.0, bandwidth_hz / band.sum())
    bandwidth = np.zeros(len(link))
    bandwidth[sends] = band
    finish = float(np.max(tau + u / links.rate(band), initial=start.max()))
    return Allocation(bandwidth, finish)
