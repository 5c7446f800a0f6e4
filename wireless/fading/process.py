"""Rayleigh and Rician fading in time, as a function of device and simulated time without state."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.fading.distribution import non_negative
from wireless.waves import cosine, total

_LIGHT_M_PER_S = 299_792_458.0
_RAYS = 64
_CHUNK = 1 << 9  # devices at a time: rays times devices stay in the processor's cache

Parts = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Real and imaginary parts."""


def doppler_hz(speed_m_s: ArrayLike, carrier_hz: float) -> NDArray[np.float64]:
    """Return the largest Doppler shift of moving devices, v f / c.

    Parameters
    ----------
    speed_m_s : array_like, shape (N,)
        Speeds in m/s, >= 0.
    carrier_hz : float
        Carrier frequency in Hz, > 0.

    Returns
    -------
    ndarray, shape (N,)
        Doppler shifts in Hz.

    Raises
    ------
    ValueError
        If a speed is negative or not finite, or the carrier not finite and positive.
    """
    if not 0 < carrier_hz < math.inf:
        raise ValueError(f"carrier_hz must be finite and positive, got {carrier_hz}")
    return np.asarray(non_negative(speed_m_s, "speed_m_s") * (carrier_hz / _LIGHT_M_PER_S))


def _rotated(turns: NDArray[np.float64]) -> Parts:
    """Return cosine and sine of phases in turns."""
    turns -= np.rint(turns)  # first, lest the quarter of a turn cost digits
    return cosine(turns), cosine(turns - 0.25)


def _rays(
    seed: int,
    device: NDArray[np.integer],
    drift: NDArray[np.float64],
    k_factor: NDArray[np.float64],
) -> Parts:
    """Add up the rays of devices that have drifted by f_D t turns, all of shape (N,)."""
    # One ray from each of M equal sectors of half a turn of arrival; cos(a + b) by addition.
    offset = streams.uniform(seed, "fading.angle", device) / (2 * _RAYS)
    along, across = _rotated(offset)
    along *= drift
    across *= drift
    ray = np.arange(_RAYS)[:, None]
    sector = np.pi * ray / _RAYS
    turns = streams.uniform(seed, "fading.phase", device, ray)
    turns += np.cos(sector) * along
    turns -= np.sin(sector) * across
    cos, sin = _rotated(turns)
    real, imaginary = total(cos), total(sin)
    scattered = np.sqrt(1 / (_RAYS * (k_factor + 1)))
    real *= scattered
    imaginary *= scattered
    if k_factor.any():
        angle = streams.uniform(seed, "fading.los.angle", device)
        phase = streams.uniform(seed, "fading.los.phase", device)
        cos, sin = _rotated(drift * cosine(angle) + phase)
        direct = np.sqrt(k_factor / (k_factor + 1))
        real += direct * cos
        imaginary += direct * sin
    return real, imaginary


def gain(
    seed: int,
    device: ArrayLike,
    time_s: ArrayLike,
    doppler_hz: ArrayLike,
    k_factor: ArrayLike = 0.0,
) -> NDArray[np.complex128]:
    """Return the complex gains h, of mean square 1, of devices at their times.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device : array_like of int, shape (N,)
        Numbers of the devices; unlike devices fade independently.
    time_s : array_like, shape () or (N,)
        Simulated times in seconds, finite.
    doppler_hz : array_like, shape () or (N,)
        Largest Doppler shifts f_D in Hz, >= 0 and constant in time: the process turns with
        f_D t, so that another shift at a later time is another process, not a slower walk on.
    k_factor : array_like, shape () or (N,), optional
        Rician factors K as ratios, >= 0; zero is Rayleigh.

    Returns
    -------
    ndarray of complex128, shape (N,)
        Gains. All arguments broadcast.

    Raises
    ------
    ValueError
        If a time is not finite, or a Doppler shift or K negative or not finite.

    Notes
    -----
    M = 64 rays of equal power and random phase arrive from one random direction in each of M equal
    sectors of half a turn (the other half would repeat their Doppler shifts), after the isotropic
    scattering of Clarke. Over devices, the autocorrelation of the scattered gain is exactly
    J0(2 pi f_D tau) at all times, and the power differs from the exponential distribution by at
    most 0.12 / M = 0.002 in probability: E|h|^4 = 2 - 1/M (own derivation). Over time, the mean
    power of every single device tends to 1, since all its rays have unlike Doppler shifts; rays of
    Gaussian amplitude would be exact at each time, but leave every device a mean of its own.
    The line-of-sight ray has a random direction and phase of its own.

    References
    ----------
    R. H. Clarke, "A statistical theory of mobile-radio reception", Bell System Technical Journal,
    1968. Random angles and phases in a sum of sinusoids: Y. R. Zheng and C. Xiao, "Simulation
    models with correct statistical properties for Rayleigh fading channels", IEEE Trans.
    Communications, 2003.
    """
    time = np.asarray(time_s, dtype=np.float64)
    if not np.isfinite(time).all():
        raise ValueError(f"time_s must be finite, got {time[~np.isfinite(time)].flat[0]}")
    number, when, shift, k = np.broadcast_arrays(
        np.asarray(device),
        time,
        non_negative(doppler_hz, "doppler_hz"),
        non_negative(k_factor, "k_factor"),
    )
    result = np.empty(number.shape, dtype=np.complex128)
    flat = result.reshape(-1)
    number, drift, k = number.ravel(), (shift * when).ravel(), k.ravel()
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        flat.real[part], flat.imag[part] = _rays(seed, number[part], drift[part], k[part])
    return result


def power(
    seed: int,
    device: ArrayLike,
    time_s: ArrayLike,
    doppler_hz: ArrayLike,
    k_factor: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Return the powers |h|^2, of mean 1, of devices at their times.

    Parameters and errors are those of `gain`.

    Returns
    -------
    ndarray, shape (N,)
        Powers relative to their mean.
    """
    h = gain(seed, device, time_s, doppler_hz, k_factor)
    return np.asarray(h.real**2 + h.imag**2)
