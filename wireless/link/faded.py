"""Links with a peak efficiency, and links by tabulated curves."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.checks import check_share
from wireless.link.base import FullPower, Link, positive_vector
from wireless.link.spline import CurveTable, MonotoneCurve


@dataclass(frozen=True, slots=True, eq=False)
class CappedLink(FullPower):
    """Links whose efficiency stops rising at a peak, rate = min(e b, rate of another link).

    Parameters
    ----------
    inner : Link
        The N links without the peak.
    efficiency_bps_hz : float
        Peak efficiency e in bit/s/Hz, > 0.

    Raises
    ------
    ValueError
        If the peak is not finite and positive.
    """

    inner: Link
    efficiency_bps_hz: float

    def __post_init__(self) -> None:
        """Validate the peak."""
        if not 0 < self.efficiency_bps_hz < math.inf:
            raise ValueError(
                f"efficiency_bps_hz must be finite and positive, got {self.efficiency_bps_hz}"
            )

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Rates that unlimited bandwidth would reach, in bit/s, shape (N,)."""
        return self.inner.limit_bps

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
        return np.minimum(self.efficiency_bps_hz * bandwidth, self.inner.rate(bandwidth))

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N)."""
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N)."""
        bandwidth, slope = self.inner.bandwidth_and_slope(rate_bps)
        least = np.asarray(rate_bps, dtype=np.float64) / self.efficiency_bps_hz
        capped = least >= bandwidth
        return np.where(capped, least, bandwidth), np.where(
            capped, 1 / self.efficiency_bps_hz, slope
        )

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        return type(self)(self.inner.take(index), self.efficiency_bps_hz)

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.inner)


@dataclass(frozen=True, slots=True, eq=False)
class FadedLink(FullPower):
    """Links by tabulated curves, rate = share a psi(b/a) with one psi per kind of channel.

    Parameters
    ----------
    snr_bandwidth_hz : ndarray, shape (N,)
        a = P g / N0 in Hz with the mean gain g: the bandwidth over which the mean SNR is one.
    curve : ndarray of int, shape (N,)
        Number of each device's curve.
    curves : tuple of MonotoneCurve
        The curves psi of x = b/a.
    share : float
        Share of the band or the time that carries data, in (0, 1], by which rates shrink.

    Raises
    ------
    ValueError
        If a field has another shape, a value is out of range or a curve does not exist.
    """

    snr_bandwidth_hz: NDArray[np.float64]
    curve: NDArray[np.integer]
    curves: tuple[MonotoneCurve, ...]
    share: float = 1.0

    def __post_init__(self) -> None:
        """Validate the fields."""
        vector = positive_vector(self.snr_bandwidth_hz, "snr_bandwidth_hz")
        object.__setattr__(self, "snr_bandwidth_hz", vector)
        check_share(self.share)
        curve = np.asarray(self.curve)
        if curve.dtype.kind not in "iu" or curve.shape != vector.shape:
            raise ValueError(
                f"curve must be {len(vector)} integers, got {curve.dtype} of shape {curve.shape}"
            )
        if curve.size and not 0 <= curve.min() <= curve.max() < len(self.curves) <= 2**16:
            raise ValueError(
                f"curve must number the {len(self.curves)} curves, got {curve.min()} to "
                f"{curve.max()}"
            )
        # Two bytes make `take` cheap and let the stable sort by curve be a radix sort.
        object.__setattr__(self, "curve", curve.astype(np.uint16, copy=False))

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Highest rates of all bandwidths, in bit/s, shape (N,)."""
        limit: NDArray[np.float64] = (
            self.snr_bandwidth_hz * self.share * _table(self.curves).limit[self.curve]
        )
        return limit

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        x = np.asarray(bandwidth_hz, dtype=np.float64) / self.snr_bandwidth_hz
        value = _table(self.curves).value(x, self.curve)
        value *= self.snr_bandwidth_hz * self.share
        return value

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N).

        Zero for rate zero, ``inf`` above the limit and at a limit that no bandwidth reaches.
        """
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N).

        Both are ``inf`` where no bandwidth reaches the rate; together they cost one inversion.
        """
        rate = np.asarray(rate_bps, dtype=np.float64)
        table, scale = _table(self.curves), self.snr_bandwidth_hz * self.share
        limit = scale * table.limit[self.curve]
        if (rate < limit).all():
            x, slope = table.invert(rate / scale, self.curve)
            return self.snr_bandwidth_hz * x, slope / self.share
        above = (rate > limit) | ((rate == limit) & ~table.attained[self.curve])
        x, slope = table.invert(np.where(above, 0.0, rate) / scale, self.curve)
        return (
            np.where(above, np.inf, self.snr_bandwidth_hz * x),
            np.where(above, np.inf, slope / self.share),
        )

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        # Without __init__, which would validate what is valid already.
        chosen = object.__new__(type(self))
        object.__setattr__(chosen, "snr_bandwidth_hz", self.snr_bandwidth_hz[index])
        object.__setattr__(chosen, "curve", self.curve[index])
        object.__setattr__(chosen, "curves", self.curves)
        object.__setattr__(chosen, "share", self.share)
        return chosen

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.snr_bandwidth_hz)


@lru_cache(maxsize=8)
def _table(curves: tuple[MonotoneCurve, ...]) -> CurveTable:
    """Return the table that all links by the same curves share."""
    return CurveTable(curves)
