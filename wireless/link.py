"""Uplinks of N devices: the rate that bandwidth buys, and the bandwidth that a rate needs.

Three models share one interface, `Link`:

=================== ====================================== ==================
model               rate of b hertz                        limit, b -> inf
=================== ====================================== ==================
LinearLink          e b                                    none
PowerLimitedLink    b log2(1 + a/b)                        a / ln 2
ErgodicRayleighLink mean over h ~ exp(1) of                a / ln 2
                    b log2(1 + a h/b)
=================== ====================================== ==================

The last two are both (a / ln 2) g(b/a) for a curve g that does not depend on the device and rises
from 0 to 1, concave. One table per curve therefore inverts the links of every device (own
derivation): in the coordinates (ln x, logit g) both curves are nearly straight over all x, so
linear interpolation lands within 1e-6 and a single Newton step reaches machine precision. Unlike
the Lambert W form of the power-limited inverse, this loses no digits near the limit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1


class Link(Protocol):
    """The uplinks of N devices; the last axis of every argument is the device axis."""

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Rates that unlimited bandwidth would reach, in bit/s, shape (N,)."""
        ...

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        ...

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N).

        Zero for rate zero, ``inf`` at or above the limit.
        """
        ...

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N).

        Both are ``inf`` at or above the limit; together they cost one inversion.
        """
        ...

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        ...

    def __len__(self) -> int:
        """Return the number of devices N."""
        ...


def _positive_vector(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Check that a field is a one-dimensional array of finite positive numbers."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {vector.shape}")
    valid = np.isfinite(vector) & (vector > 0)
    if not valid.all():
        raise ValueError(f"{name} must be finite and positive, got {vector[~valid][0]}")
    return vector


@dataclass(frozen=True, slots=True, eq=False)
class LinearLink:
    """Links of constant spectral efficiency, rate = e b.

    Parameters
    ----------
    efficiency_bps_hz : ndarray, shape (N,)
        Spectral efficiencies in bit/s/Hz.

    Raises
    ------
    ValueError
        If the efficiencies are not a vector of finite positive numbers.
    """

    efficiency_bps_hz: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Validate the efficiencies."""
        vector = _positive_vector(self.efficiency_bps_hz, "efficiency_bps_hz")
        object.__setattr__(self, "efficiency_bps_hz", vector)

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Infinity for every device, shape (N,)."""
        return np.full(len(self), np.inf)

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        return np.asarray(bandwidth_hz, dtype=np.float64) * self.efficiency_bps_hz

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N)."""
        return np.asarray(rate_bps, dtype=np.float64) / self.efficiency_bps_hz

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N)."""
        bandwidth = self.bandwidth(rate_bps)
        return bandwidth, np.broadcast_to(1 / self.efficiency_bps_hz, bandwidth.shape)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        return type(self)(self.efficiency_bps_hz[index])

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.efficiency_bps_hz)


class _Point(NamedTuple):
    """A curve g at x: value, 1 - value without cancellation, first and second derivative."""

    value: NDArray[np.float64]
    rest: NDArray[np.float64]
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


def _awgn(x: NDArray[np.float64]) -> _Point:
    """Evaluate g(x) = x ln(1 + 1/x), x > 0."""
    y = 1 / x
    log = np.log1p(y)
    # y - ln(1+y) cancels for small y; with s = y/(2+y), ln(1+y) = 2 artanh(s) gives
    # y - ln(1+y) = s y - 2 (s^3/3 + s^5/5 + ...), ten terms of which suffice up to y = 0.3.
    s = np.minimum(y, 0.3) / (2 + np.minimum(y, 0.3))
    series = np.zeros_like(s)
    for power in range(21, 1, -2):
        series = series * s**2 + 1 / power
    excess = s * y - 2 * s**3 * series
    small = y < 0.3
    return _Point(
        value=x * log,
        rest=np.where(small, x * excess, 1 - x * log),
        slope=np.where(small, y * (y / (1 + y)) - excess, log - 1 / (1 + x)),
        curvature=-1 / (x * (1 + x) ** 2),
    )


def _rayleigh(x: NDArray[np.float64]) -> _Point:
    """Evaluate g(x) = x e^x E1(x), x > 0.

    For small x from E1 itself. For large x, where e^x overflows and 1 - g and g' cancel, from the
    continued fraction e^x E1(x) = 1/(x + 1 - c), c = 1/(x + 3 - d), d = 4/(x + 5 - 9/(x + 7 - ...))
    (the even part of DLMF 6.9.1), in which g, 1 - g, g' and g'' are products without cancellation.
    """
    value, rest, slope, curvature = (np.empty_like(x) for _ in range(4))
    near = x < 4
    z = x[near]
    scaled = np.exp(z) * exp1(z)
    value[near] = z * scaled
    rest[near] = 1 - z * scaled
    slope[near] = scaled * (1 + z) - 1
    curvature[near] = scaled * (2 + z) - 1 - 1 / z
    z = x[~near]
    d = np.zeros_like(z)
    for k in range(32, 1, -1):
        d = k**2 / (z + (2 * k + 1) - d)
    c = 1 / (z + 3 - d)
    scaled = 1 / (z + 1 - c)
    value[~near] = z * scaled
    rest[~near] = (1 - c) * scaled
    slope[~near] = c * scaled
    curvature[~near] = -c * scaled * (2 - d) / z
    return _Point(value, rest, slope, curvature)


class _Curve:
    """An increasing concave curve g from (0, inf) onto (0, 1), with its inverse.

    Parameters
    ----------
    evaluate : callable
        g and its derivatives at an array of positive numbers.
    """

    def __init__(self, evaluate: Callable[[NDArray[np.float64]], _Point]) -> None:
        self.evaluate = evaluate
        # ln x from -700 to 37, beyond which g rounds to 1. The bend of logit g against ln x dies
        # off like 1/(ln x)^2, hence knots that spread out away from the middle.
        self._log_x = 4 * np.sinh(np.linspace(np.arcsinh(-700 / 4), np.arcsinh(37 / 4), 8000))
        point = evaluate(np.exp(self._log_x))
        self._logit = np.log(point.value) - np.log(point.rest)

    def invert(self, value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x with g(x) = value in (0, 1), and dx/dvalue."""
        rest = 1 - value
        start = np.exp(np.interp(np.log(value) - np.log(rest), self._logit, self._log_x))
        point = self.evaluate(start)
        # Newton on logit g against ln x; whichever of g and 1 - g is small carries the digits.
        miss = np.where(value < 0.5, point.value - value, rest - point.rest)
        odds = np.log1p(miss / (value * point.rest))
        step = start * np.expm1(-odds * point.value * point.rest / (start * point.slope))
        return start + step, 1 / (point.slope + point.curvature * step)


@dataclass(frozen=True, slots=True, eq=False)
class _CurvedLink:
    """Links of limited transmit power: rate = (a / ln 2) g(b/a)."""

    snr_bandwidth_hz: NDArray[np.float64]

    _curve: ClassVar[_Curve]

    def __post_init__(self) -> None:
        """Validate the SNR bandwidths."""
        vector = _positive_vector(self.snr_bandwidth_hz, "snr_bandwidth_hz")
        object.__setattr__(self, "snr_bandwidth_hz", vector)

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Rates that unlimited bandwidth would reach, a / ln 2, in bit/s, shape (N,)."""
        limit: NDArray[np.float64] = self.snr_bandwidth_hz / np.log(2)
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
        share = np.asarray(rate_bps, dtype=np.float64) / self.limit_bps
        inside = (share > 0) & (share < 1)
        x, slope = self._curve.invert(np.where(inside, share, 0.5))
        # At rate zero both curves start vertically: the first bit/s costs no bandwidth.
        outside = np.where(share >= 1, np.inf, 0.0)
        return (
            np.where(inside, self.snr_bandwidth_hz * x, outside),
            np.where(inside, np.log(2) * slope, outside),
        )

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        return type(self)(self.snr_bandwidth_hz[index])

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

    Raises
    ------
    ValueError
        If the values are not a vector of finite positive numbers.
    """

    _curve: ClassVar[_Curve] = _Curve(_awgn)


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

    Raises
    ------
    ValueError
        If the values are not a vector of finite positive numbers.
    """

    _curve: ClassVar[_Curve] = _Curve(_rayleigh)
