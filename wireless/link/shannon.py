"""Links of Shannon's capacity at limited power, exact: static and under Rayleigh fading."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.checks import check_share
from wireless.link.base import FullPower, positive_vector
from wireless.link.curves import ExactCurve, awgn, rayleigh


@dataclass(frozen=True, slots=True, eq=False)
class _CurvedLink(FullPower):
    """Links of limited transmit power: rate = share (a / ln 2) g(b/a)."""

    snr_bandwidth_hz: NDArray[np.float64]
    share: float = 1.0

    _curve: ClassVar[ExactCurve]

    def __post_init__(self) -> None:
        """Validate the SNR bandwidths and the share."""
        vector = positive_vector(self.snr_bandwidth_hz, "snr_bandwidth_hz")
        object.__setattr__(self, "snr_bandwidth_hz", vector)
        check_share(self.share)

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Rates that unlimited bandwidth would reach, share a / ln 2, in bit/s, shape (N,)."""
        limit: NDArray[np.float64] = self.snr_bandwidth_hz * self.share / np.log(2)
        return limit

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
        x = np.clip(bandwidth / self.snr_bandwidth_hz, 1e-300, 1e100)
        return np.where(bandwidth == 0, 0.0, self.limit_bps * self._curve.evaluate(x).value)

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N).

        Zero for rate zero, ``inf`` at or above the limit.
        """
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N).

        Both are ``inf`` at or above the limit; together they cost one inversion.
        """
        part = np.asarray(rate_bps, dtype=np.float64) / self.limit_bps
        inside = (part > 0) & (part < 1)
        if inside.all():
            x, slope = self._curve.invert(part)
            return self.snr_bandwidth_hz * x, np.log(2) / self.share * slope
        x, slope = self._curve.invert(np.where(inside, part, 0.5))
        # At rate zero both curves start vertically: the first bit/s costs no bandwidth.
        outside = np.where(part >= 1, np.inf, 0.0)
        return (
            np.where(inside, self.snr_bandwidth_hz * x, outside),
            np.where(inside, np.log(2) / self.share * slope, outside),
        )

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        return type(self)(self.snr_bandwidth_hz[index], self.share)

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.snr_bandwidth_hz)


@dataclass(frozen=True, slots=True, eq=False)
class PowerLimitedLink(_CurvedLink):
    """Links of constant transmit power over a static channel, rate = b log2(1 + a/b).

    Shannon capacity with an SNR gap; spreading the power over more bandwidth lowers the SNR.

    Parameters
    ----------
    snr_bandwidth_hz : ndarray, shape (N,)
        a = P g / (N0 gap) in Hz: the bandwidth over which the effective SNR is one.
    share : float
        Share of the band or the time that carries data, in (0, 1], by which rates shrink.

    Raises
    ------
    ValueError
        If the values are not a vector of finite positive numbers, or the share is out of range.
    """

    _curve: ClassVar[ExactCurve] = ExactCurve(awgn)


@dataclass(frozen=True, slots=True, eq=False)
class ErgodicRayleighLink(_CurvedLink):
    """Links of constant transmit power, averaged over Rayleigh fading unknown to the sender.

    rate = E b log2(1 + a h/b) over h ~ exp(1) = (a / ln 2) x e^x E1(x) with x = b/a
    (own derivation).

    Parameters
    ----------
    snr_bandwidth_hz : ndarray, shape (N,)
        a = P g / (N0 gap) in Hz with the mean gain g: the bandwidth over which the mean
        effective SNR is one.
    share : float
        Share of the band or the time that carries data, in (0, 1], by which rates shrink.

    Raises
    ------
    ValueError
        If the values are not a vector of finite positive numbers, or the share is out of range.
    """

    _curve: ClassVar[ExactCurve] = ExactCurve(rayleigh)
