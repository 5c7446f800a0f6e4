"""The link that an efficiency and a fading ask for."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.efficiency import Efficiency, LinkAdaptation, Shannon
from wireless.link.base import Link, positive_vector
from wireless.link.ergodic import mean_curve
from wireless.link.faded import CappedLink, FadedLink
from wireless.link.shannon import ErgodicRayleighLink, PowerLimitedLink

#: Rician factors in dB: below the first a channel counts as Rayleigh, above the last as the last.
_LEAST_K_DB, _MOST_K_DB = -20, 30


def make_link(
    snr_bandwidth_hz: NDArray[np.float64],
    efficiency: Efficiency,
    k_factor_db: ArrayLike | None = None,
    fading: Literal["none", "rayleigh", "rician"] = "rayleigh",
) -> Link:
    """Return the links of an efficiency, averaged over fading.

    Parameters
    ----------
    snr_bandwidth_hz : ndarray, shape (N,)
        a = P g / N0 in Hz with the mean gain g, before any gap: the bandwidth over which the mean
        SNR is one.
    efficiency : Efficiency
        Bit/s/Hz that an SNR buys.
    k_factor_db : array_like, shape (N,), optional
        Rician factors in dB, NaN for a device out of sight, which fades as Rayleigh. Needed for
        Rician fading and else ignored; taken to the whole dB, below -20 dB as Rayleigh, above
        30 dB (where the gain varies by less than 5 %) as 30 dB.
    fading : {"none", "rayleigh", "rician"}
        What the rate is a mean over.

    Returns
    -------
    Link
        The links, by the simplest exact class where there is one, else by tabulated curves that
        are within 1e-9 of the mean.

    Raises
    ------
    ValueError
        If the values are not finite and positive, the fading unknown or the factors missing.
    """
    a = positive_vector(snr_bandwidth_hz, "snr_bandwidth_hz")
    share = efficiency.share
    if fading == "none":
        if isinstance(efficiency, LinkAdaptation):
            return _faded(a, efficiency, np.full(len(a), np.inf))
        scale, gap, peak = efficiency.log_form
        link = PowerLimitedLink(a / gap, scale)
        return link if math.isinf(peak) else CappedLink(link, peak)
    if fading == "rayleigh":
        k_db = np.full(len(a), -np.inf)
    elif fading != "rician":
        raise ValueError(f"fading must be 'none', 'rayleigh' or 'rician', got {fading!r}")
    elif k_factor_db is None:
        raise ValueError("k_factor_db must be given for rician fading, NaN where out of sight")
    else:
        k_db = np.broadcast_to(np.asarray(k_factor_db, dtype=np.float64), a.shape)
        whole = np.rint(np.minimum(k_db, _MOST_K_DB))
        k_db = np.where(k_db >= _LEAST_K_DB, whole, -np.inf)
    # Not for Rician fading with nobody in sight: a device's link must not depend on the others'.
    if fading == "rayleigh" and isinstance(efficiency, Shannon):
        return ErgodicRayleighLink(a / efficiency.log_form[1], share)
    return _faded(a, efficiency, k_db)


def _faded(a: NDArray[np.float64], efficiency: Efficiency, k_db: NDArray[np.float64]) -> FadedLink:
    """Return the tabulated links; curves are shared between gaps and shares."""
    share = efficiency.share
    if isinstance(efficiency, Shannon):
        a, efficiency = a / efficiency.log_form[1], Shannon(gap_db=0.0)
    else:
        efficiency = replace(efficiency, share=1.0)
    factors, number = np.unique(k_db, return_inverse=True)
    curves = tuple(mean_curve(efficiency, float(factor)) for factor in factors)
    return FadedLink(a, number, curves, share)
