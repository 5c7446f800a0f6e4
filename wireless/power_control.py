"""Open-loop uplink power control: full power only where the path loss asks for it.

TS 38.213, clause 7.1.1, without its closed-loop and modulation terms: a device that sends over M
resource blocks at numerology mu uses min(P_max, P_0 + 10 lg(2^mu M) + alpha PL) dBm. As 2^mu M is
the bandwidth over 180 kHz, P_0 is the power wanted in 180 kHz whatever the numerology. The power
thus grows with the band, at constant density, up to the bandwidth at which P_max is reached: the
knee.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.link import Link


def _open_loop_dbm(p0_dbm: ArrayLike, alpha: float, path_loss_db: ArrayLike) -> NDArray[np.float64]:
    """Power in dBm wanted in one block of 180 kHz, without the device's maximum."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    wanted: NDArray[np.float64] = np.asarray(p0_dbm, np.float64) + alpha * np.asarray(
        path_loss_db, np.float64
    )
    return wanted


def headroom_db(
    p_max_dbm: ArrayLike,
    p0_dbm: ArrayLike,
    alpha: float,
    path_loss_db: ArrayLike,
    bandwidth_hz: ArrayLike,
    block_hz: float = 180e3,
) -> NDArray[np.float64]:
    """Return how far the wanted power is below the maximum; negative where it is above.

    Parameters
    ----------
    p_max_dbm : array_like, shape (N,)
        Maximum powers in dBm.
    p0_dbm : array_like, shape (N,) or scalar
        Powers in dBm wanted at the receiver in one block at alpha = 1.
    alpha : float
        Share of the path loss that is compensated, in [0, 1].
    path_loss_db : array_like, shape (N,)
        Long-term losses that the device measures, antenna gains taken off, in dB.
    bandwidth_hz : array_like, shape (N,)
        Bandwidths in Hz, >= 0.
    block_hz : float
        Width in Hz of the block of P_0; 180 kHz in the standard.

    Returns
    -------
    ndarray, shape (N,)
        Headroom in dB, ``inf`` for no bandwidth.

    Raises
    ------
    ValueError
        If alpha is outside [0, 1].

    References
    ----------
    TS 38.213, clauses 7.1.1 and 7.7.1.
    """
    blocks = np.asarray(bandwidth_hz, dtype=np.float64) / block_hz
    with np.errstate(divide="ignore"):
        width_db = 10 * np.log10(blocks)
    return np.asarray(
        np.asarray(p_max_dbm) - _open_loop_dbm(p0_dbm, alpha, path_loss_db) - width_db
    )


def power_dbm(
    p_max_dbm: ArrayLike,
    p0_dbm: ArrayLike,
    alpha: float,
    path_loss_db: ArrayLike,
    bandwidth_hz: ArrayLike,
    block_hz: float = 180e3,
) -> NDArray[np.float64]:
    """Return the transmit powers, min(P_max, P_0 + alpha PL + 10 lg(bandwidth / block)).

    Parameters and errors are those of `headroom_db`.

    Returns
    -------
    ndarray, shape (N,)
        Powers in dBm, ``-inf`` for no bandwidth.
    """
    headroom = headroom_db(p_max_dbm, p0_dbm, alpha, path_loss_db, bandwidth_hz, block_hz)
    return np.asarray(np.asarray(p_max_dbm) - np.maximum(headroom, 0.0))


def knee_hz(
    p_max_dbm: ArrayLike,
    p0_dbm: ArrayLike,
    alpha: float,
    path_loss_db: ArrayLike,
    block_hz: float = 180e3,
) -> NDArray[np.float64]:
    """Return the bandwidths at which the powers reach their maximum.

    Parameters and errors are those of `headroom_db`.

    Returns
    -------
    ndarray, shape (N,)
        Bandwidths in Hz, where the headroom is zero.
    """
    headroom = headroom_db(p_max_dbm, p0_dbm, alpha, path_loss_db, block_hz, block_hz)
    return np.asarray(block_hz * 10 ** (headroom / 10))


@dataclass(frozen=True, slots=True, eq=False)
class PowerControlledLink:
    """Links whose power density is constant below a knee, and whose power is above it.

    Below the knee b_k the SNR, and with it the efficiency, is that at the knee, so with R the rate
    of the inner link the rate of b hertz is R(b_k) b/b_k up to b_k and R(b) from there on.

    Parameters
    ----------
    inner : Link
        The N links at full power, concave in the bandwidth.
    knee_hz : ndarray, shape (N,)
        Bandwidths b_k in Hz at which full power is reached, as of `knee_hz`.

    Raises
    ------
    ValueError
        If the knees are not N finite positive numbers.

    Notes
    -----
    The rate is continuous, and concave (own derivation): R is concave with R(0) = 0, so beyond b_k
    its slope is at most that of the chord from the origin, R(b_k)/b_k, which is the slope before.
    Under link adaptation R(b_k) may divide the time between two bandwidths around b_k; the density
    is then kept on average.
    """

    inner: Link
    knee_hz: NDArray[np.float64]
    _knee_bps: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the knees and compute the rates there."""
        knee = np.asarray(self.knee_hz, dtype=np.float64)
        if knee.shape != (len(self.inner),):
            raise ValueError(f"knee_hz must have shape ({len(self.inner)},), got {knee.shape}")
        valid = np.isfinite(knee) & (knee > 0)
        if not valid.all():
            raise ValueError(f"knee_hz must be finite and positive, got {knee[~valid][0]}")
        self._set(self.inner, knee, self.inner.rate(knee))

    def _set(self, inner: Link, knee: NDArray[np.float64], rate: NDArray[np.float64]) -> None:
        """Fill the fields."""
        for name, value in (("inner", inner), ("knee_hz", knee), ("_knee_bps", rate)):
            object.__setattr__(self, name, value)

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Highest rates of all bandwidths, in bit/s, shape (N,)."""
        return self.inner.limit_bps

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
        share = np.minimum(bandwidth / self.knee_hz, 1.0)
        return np.where(share < 1, self._knee_bps * share, self.inner.rate(bandwidth))

    def power_share(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the shares of full power that bandwidths in Hz take, min(b / b_k, 1), (..., N)."""
        return np.asarray(np.minimum(np.asarray(bandwidth_hz) / self.knee_hz, 1.0))

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N)."""
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N)."""
        rate = np.asarray(rate_bps, dtype=np.float64)
        bandwidth, slope = self.inner.bandwidth_and_slope(rate)
        below = rate <= self._knee_bps
        flat = self.knee_hz / self._knee_bps
        # The chord is the steeper from a rounding above the knee on, where the inner inverse may
        # still be a rounding below it.
        bandwidth = np.where(below, rate * flat, np.maximum(bandwidth, self.knee_hz))
        return bandwidth, np.where(below, flat, slope)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        # Without __init__, which would compute the rates at the knees once more.
        chosen = object.__new__(type(self))
        chosen._set(self.inner.take(index), self.knee_hz[index], self._knee_bps[index])
        return chosen

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.inner)
