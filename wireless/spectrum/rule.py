"""What a rule for sharing the uplink band does, and how its transfers are reported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.link import Link

FloatArray = NDArray[np.float64]

Whole = Callable[[FloatArray, float], FloatArray]
"""Rounds bandwidths (M,) in Hz, of a band in Hz, to whole resource blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class Transfers:
    """The transfers of one cohort of M devices, and the band in use between E events.

    Parameters
    ----------
    begin_s : ndarray, shape (M,)
        Times in seconds at which the devices first hold some of the band. A device without bits
        begins and finishes when it is ready.
    finish_s : ndarray, shape (M,)
        Times in seconds at which they have sent everything.
    bandwidth_hz : ndarray, shape (M,)
        Mean bandwidths between begin and finish; zero for a device without bits.
    power_s : ndarray, shape (M,)
        Seconds at full power that take as much energy as the transfers: the time during which the
        devices hold some of the band, times the share of full power that they send with.
    event_s : ndarray, shape (E,)
        Times, ascending, from which on the next two hold, up to the next event.
    in_use_hz : ndarray, shape (E,)
        Band in use; zero from the last event on.
    active : ndarray of int, shape (E,)
        Number of devices that hold some of it.
    """

    begin_s: FloatArray
    finish_s: FloatArray
    bandwidth_hz: FloatArray
    power_s: FloatArray
    event_s: FloatArray
    in_use_hz: FloatArray
    active: NDArray[np.int64]

    @property
    def end_s(self) -> float:
        """Time in seconds at which the last device finishes; zero for an empty cohort."""
        return float(self.finish_s.max()) if len(self.finish_s) else 0.0


class Rule(Protocol):
    """A way to share one uplink band among the devices that have something to send.

    Attributes
    ----------
    name : str
        Name that scenarios use.
    reserves : bool
        Whether the band is divided once, before the transfers begin, knowing when each device
        will be ready. Otherwise it is divided anew whenever a device becomes ready or finishes.
    """

    name: ClassVar[str]
    reserves: ClassVar[bool]

    def divide(
        self, left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
    ) -> FloatArray:
        """Divide the band among the devices that are ready and unfinished at one moment.

        Parameters
        ----------
        left_bits : array_like, shape (M,)
            Bits that each has still to send, > 0, in the order in which they became ready.
        total_bits : array_like, shape (M,)
            Bits of each whole transfer, > 0.
        link : Link
            Uplinks of the M devices.
        bandwidth_hz : float
            Width of the band in Hz.

        Returns
        -------
        ndarray, shape (M,)
            Bandwidths in Hz; their sum does not exceed the band by more than a rounding.

        Raises
        ------
        ValueError
            If a number of bits or the band is not finite and positive, or the shapes differ.
        """
        ...

    def round_time(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        present: ArrayLike | None = None,
        cell: ArrayLike | None = None,
    ) -> FloatArray:
        """Return when the last transfer of each of a batch of cohorts ends.

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
            Cell of each device; one for all if not given. Every cell has a band of its own, of
            `bandwidth_hz`, and the round ends with the last cell.

        Returns
        -------
        ndarray, shape (...)
            Times in seconds; zero for an empty cohort.

        Raises
        ------
        ValueError
            If a start is not finite, a number of bits negative, the band not positive, or `cell`
            not a vector of integers.
        """
        ...

    def transfers(
        self,
        start_s: ArrayLike,
        bits: ArrayLike,
        link: Link,
        bandwidth_hz: float,
        whole: Whole | None = None,
    ) -> Transfers:
        """Follow the transfers of one cohort.

        Parameters
        ----------
        start_s : array_like, shape (M,)
            Times in seconds at which the devices are ready to send.
        bits : array_like, shape (M,)
            Bits that each device sends. A device with none only has to be waited for.
        link : Link
            Uplinks of the M devices.
        bandwidth_hz : float
            Width of the band in Hz.
        whole : callable, optional
            Rounds every division of the band to whole resource blocks: takes the bandwidths (M,)
            and the width of the band, both in Hz, and returns bandwidths (M,).

        Returns
        -------
        Transfers
            Who sends from when to when, with how much of the band.

        Raises
        ------
        ValueError
            If a start is not finite, a number of bits negative, the band not positive, the shapes
            differ, or `whole` leaves nobody any band.
        """
        ...


def check(start_s: FloatArray, bits: FloatArray, bandwidth_hz: float) -> None:
    """Refuse values that have no meaning before they turn into NaN."""
    if not np.isfinite(start_s).all():
        raise ValueError(f"start_s must be finite, got {start_s[~np.isfinite(start_s)][0]}")
    valid = np.isfinite(bits) & (bits >= 0)
    if not valid.all():
        raise ValueError(f"bits must be finite and not negative, got {bits[~valid][0]}")
    check_band(bandwidth_hz)


def check_band(bandwidth_hz: float) -> None:
    """Refuse a band without a width."""
    if not 0 < bandwidth_hz < np.inf:
        raise ValueError(f"bandwidth_hz must be finite and positive, got {bandwidth_hz}")


def one_cohort(
    start_s: ArrayLike, bits: ArrayLike, link: Link, bandwidth_hz: float
) -> tuple[FloatArray, FloatArray]:
    """Return the starts and bits of one cohort, both (M,), checked."""
    start, sent = np.broadcast_arrays(np.asarray(start_s, np.float64), np.asarray(bits, np.float64))
    if start.shape != (len(link),):
        raise ValueError(f"one cohort of {len(link)} devices expected, got shape {start.shape}")
    check(start, sent, bandwidth_hz)
    return start, sent


def unfinished(
    left_bits: ArrayLike, total_bits: ArrayLike, link: Link, bandwidth_hz: float
) -> tuple[FloatArray, FloatArray]:
    """Return the arguments of `Rule.divide`, both (M,), checked."""
    left, total = np.asarray(left_bits, np.float64), np.asarray(total_bits, np.float64)
    for name, value in (("left_bits", left), ("total_bits", total)):
        if value.shape != (len(link),):
            raise ValueError(f"{name} must have shape ({len(link)},), got {value.shape}")
        valid = np.isfinite(value) & (value > 0)
        if not valid.all():
            raise ValueError(f"{name} must be finite and positive, got {value[~valid][0]}")
    check_band(bandwidth_hz)
    return left, total


def solo_finish_time(
    start_s: ArrayLike, bits: ArrayLike, link: Link, bandwidth_hz: float
) -> FloatArray:
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
    check(start, sent, bandwidth_hz)
    finish: FloatArray = start + sent / link.rate(np.full(len(link), bandwidth_hz))
    return finish
