"""Which site serves a device, and the power that all other cells add to its noise.

Interference is a mean over time, as the rates are: transfers last far longer than the fading of the
interferers. It enters a link as N0 + I in place of N0. Since the rate is convex in I, the mean rate
over any swings of I that are independent of the signal is no less (Jensen).

Only the sites of the layout disturb. Of the interference at a site of the endless grid, 19 of them
bear 89 % where power falls with distance to the 3.76, and 72 % where with its cube (own derivation,
by the Epstein zeta function of the triangular lattice).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def serving(gain_db: ArrayLike) -> NDArray[np.intp]:
    """Return the site with the strongest long-term gain to each device.

    Parameters
    ----------
    gain_db : array_like, shape (N, S)
        Gains between devices and sites in dB, shadowing and antennas included, fading left out.

    Returns
    -------
    ndarray of int, shape (N,)
        Numbers of the sites; of equal ones the first.

    Raises
    ------
    ValueError
        If there are no sites or a gain is not a number.
    """
    gain = np.asarray(gain_db, dtype=np.float64)
    if gain.ndim != 2 or gain.shape[1] < 1:
        raise ValueError(f"gain_db must have shape (N, S) with S >= 1, got {gain.shape}")
    if np.isnan(gain.max(initial=-math.inf)):
        raise ValueError("gain_db must be numbers, got nan")
    return np.asarray(np.argmax(gain, axis=1), dtype=np.intp)


def _checked(value: ArrayLike, name: str, high: float = math.inf) -> NDArray[np.float64]:
    """Return finite values from 0 to a bound as an array."""
    array = np.asarray(value, dtype=np.float64)
    # Two scalars tell it without a mask the size of the gains; a nan fails both comparisons.
    low, top = array.min(initial=0), array.max(initial=0)
    if not (low >= 0 and top <= high and top < math.inf):
        worst = low if not low >= 0 else top
        raise ValueError(f"{name} must be finite, from 0 to {high:g}, got {worst}")
    return array


def _checked_cells(
    gain: ArrayLike, serving: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return gains (N, S) and serving sites (N,) as arrays that fit each other."""
    gains, site = _checked(gain, "gain"), np.asarray(serving)
    if gains.ndim != 2:
        raise ValueError(f"gain must have shape (N, S), got {gains.shape}")
    if site.shape != gains.shape[:1] or site.dtype.kind not in "iu":
        raise ValueError(
            f"serving must be integers of shape {gains.shape[:1]}, got {site.dtype} {site.shape}"
        )
    if site.size and not (site.min() >= 0 and site.max() < gains.shape[1]):
        raise ValueError(
            f"serving must be from 0 to {gains.shape[1] - 1}, got {site.min()} to {site.max()}"
        )
    return gains, site.astype(np.intp, copy=False)


def downlink_interference_w_hz(
    gain: ArrayLike, serving: ArrayLike, power_density_w_hz: ArrayLike, load: ArrayLike
) -> NDArray[np.float64]:
    """Return the mean density of the power that other sites send to each device.

    I_n = sum over the sites s that do not serve n of load_s p_s g_ns.

    Parameters
    ----------
    gain : array_like, shape (N, S)
        Long-term gains as ratios of powers, not in dB.
    serving : array_like of int, shape (N,)
        Serving sites of the devices.
    power_density_w_hz : array_like, scalar or shape (S,)
        Transmit power of a busy site over its band, in W/Hz.
    load : array_like, scalar or shape (S,)
        Share of time and band that a site is busy, from 0 to 1.

    Returns
    -------
    ndarray, shape (N,)
        Densities in W/Hz; zero if there is a single site.

    Raises
    ------
    ValueError
        If a value is outside its range or the shapes do not fit.
    """
    gains, site = _checked_cells(gain, serving)
    density = _checked(power_density_w_hz, "power_density_w_hz") * _checked(load, "load", 1)
    interference = np.zeros(len(gains))
    # One site at a time: no second array of N by S, and no difference of a total and its largest
    # part, in which the small rest would lose its digits.
    for other, sent in enumerate(np.broadcast_to(density, gains.shape[1:])):
        interference += np.where(site == other, 0.0, sent * gains[:, other])
    return interference


def uplink_interference_w_hz(
    gain: ArrayLike,
    serving: ArrayLike,
    power_w: ArrayLike,
    bandwidth_hz: float,
    load: ArrayLike,
    senders: ArrayLike = 1.0,
) -> NDArray[np.float64]:
    """Return the mean density of the power that each site receives from the other cells' devices.

    I_s = sum over the other cells c of load_c k_c mean over the devices n of c of (p_n / B) g_ns.
    A cell without devices adds nothing.

    Parameters
    ----------
    gain : array_like, shape (N, S)
        Long-term gains as ratios of powers, not in dB.
    serving : array_like of int, shape (N,)
        Serving sites of the devices.
    power_w : array_like, scalar or shape (N,)
        Transmit powers of the devices while they send, in W.
    bandwidth_hz : float
        Band B that every cell reuses, in Hz, > 0.
    load : array_like, scalar or shape (S,)
        Share of time that a cell has devices sending, from 0 to 1.
    senders : array_like, scalar or shape (S,)
        Mean number k_c of devices that send at the same time, each with its whole power on its own
        part of the band: one where a cell's devices take turns on the whole band, the size of the
        cohort where they divide it.

    Returns
    -------
    ndarray, shape (S,)
        Densities in W/Hz, averaged over the band; zero if there is a single site.

    Raises
    ------
    ValueError
        If a value is outside its range or the shapes do not fit.
    """
    gains, site = _checked_cells(gain, serving)
    count = gains.shape[1]
    power = np.broadcast_to(_checked(power_w, "power_w"), site.shape)
    if not 0 < bandwidth_hz < math.inf:
        raise ValueError(f"bandwidth_hz must be finite and positive, got {bandwidth_hz}")
    busy = np.broadcast_to(_checked(load, "load", 1) * _checked(senders, "senders"), (count,))
    share = busy / np.maximum(np.bincount(site, minlength=count), 1)
    interference = np.empty(count)
    for victim in range(count):
        received_w = share * np.bincount(site, power * gains[:, victim], minlength=count)
        received_w[victim] = 0
        interference[victim] = received_w.sum() / bandwidth_hz
    return interference
