"""Where links are linear over a whole band, and so are shared without solving anything.

Rate and power are concave in the bandwidth and zero at zero. A concave curve lies above its chord
from zero, and beyond any chord below its extension; if it meets the chord over the band halfway, it
can therefore be nowhere off it (own derivation). One value decides, whatever the kind of link.
"""

import numpy as np
from numpy.typing import NDArray

from wireless.link.base import LinearLink, Link

#: Roundings by which a straight line may miss its own middle, in units of the last place.
_ROUNDINGS = 4

_LEAST_HZ = float(np.finfo(np.float64).smallest_subnormal)


def linear_efficiency(link: Link, band_hz: float) -> NDArray[np.float64]:
    """Return e where the rate of b hertz is e b for every b up to the band, else NaN.

    Parameters
    ----------
    link : Link
        Uplinks of N devices.
    band_hz : float
        Width of the band in Hz.

    Returns
    -------
    ndarray, shape (N,)
        Efficiencies in bit/s/Hz.
    """
    whole, half = (link.rate(np.full(len(link), width)) for width in (band_hz, band_hz / 2))
    return _slope(whole, half, band_hz)


def straightened(link: Link, band_hz: float) -> Link:
    """Return links that are all linear over a band as such, others as they are.

    Parameters
    ----------
    link : Link
        Uplinks of N devices.
    band_hz : float
        Width of the band in Hz.

    Returns
    -------
    Link
        A `LinearLink` of the same rates up to the band, or `link`.
    """
    if isinstance(link, LinearLink):
        return link
    efficiency = linear_efficiency(link, band_hz)
    return link if np.isnan(efficiency).any() else LinearLink(efficiency)


def linear_power(link: Link, band_hz: float) -> NDArray[np.float64]:
    """Return p where the power share of b hertz is p b for every b up to the band.

    Parameters
    ----------
    link : Link
        Uplinks of N devices.
    band_hz : float
        Width of the band in Hz.

    Returns
    -------
    ndarray, shape (N,)
        Shares of full power per hertz; zero for a device that sends at full power over any band,
        NaN for one that does neither.
    """
    whole, half, least = (
        link.power_share(np.full(len(link), width)) for width in (band_hz, band_hz / 2, _LEAST_HZ)
    )
    return np.where(least == 1, 0.0, _slope(whole, half, band_hz))


def _slope(
    whole: NDArray[np.float64], half: NDArray[np.float64], band_hz: float
) -> NDArray[np.float64]:
    straight = np.abs(2 * half - whole) <= _ROUNDINGS * np.spacing(whole)
    return np.where(straight, whole / band_hz, np.nan)
