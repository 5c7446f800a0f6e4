"""Uplink rate against distance, for places that nobody needs to stand at."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wireless.radio import RadioParameters
from wireless.rates import uplink

FloatArray = NDArray[np.float64]

#: Standard normal numbers and weights of the mean over shadowing (Gauss-Hermite).
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """What one device alone reaches over the whole band, by distance.

    Parameters
    ----------
    distance_m : ndarray, shape (D,)
        Horizontal distances in metres.
    los_probability : ndarray, shape (D,)
        Probabilities of line of sight.
    los_bps, nlos_bps : ndarray, shape (D,)
        Rates in line of sight and out of it, without shadowing.
    mean_bps : ndarray, shape (D,)
        Mean over line of sight and shadowing.
    """

    distance_m: FloatArray
    los_probability: FloatArray
    los_bps: FloatArray
    nlos_bps: FloatArray
    mean_bps: FloatArray


def coverage(radio: RadioParameters, max_power_dbm: float, distance_m: FloatArray) -> Coverage:
    """Compute the rates of a device outdoors and without interference.

    Parameters
    ----------
    radio : RadioParameters
        The cell.
    max_power_dbm : float
        Largest transmit power in dBm.
    distance_m : ndarray, shape (D,)
        Horizontal distances in metres.

    Returns
    -------
    Coverage
        Mean rates over fading, unless there is none; in line of sight with the mean Rician factor.
    """
    environment = radio.environment
    assert radio.bs_height_m is not None
    assert radio.ut_height_m is not None
    heights = radio.bs_height_m, radio.ut_height_m
    sees = environment.los_probability(distance_m, *heights)
    rates, means = {}, {}
    for los in (True, False):
        loss = environment.path_loss_db(distance_m, los, radio.carrier_hz, *heights)
        std = environment.shadowing_std_db(distance_m, los, radio.carrier_hz, *heights)
        shadow = np.broadcast_to(std, loss.shape) * np.append(0.0, _NODES)[:, None]
        rate = _rate(radio, max_power_dbm, (loss + shadow).ravel(), los).reshape(shadow.shape)
        rates[los] = rate[0]
        means[los] = _WEIGHTS @ rate[1:] / _WEIGHTS.sum()
    mean = sees * means[True] + (1 - sees) * means[False]
    return Coverage(distance_m, sees, rates[True], rates[False], mean)


def _rate(
    radio: RadioParameters, max_power_dbm: float, loss_db: FloatArray, los: bool
) -> FloatArray:
    """Rates over the whole band at given losses, (D,)."""
    noise_dbm_hz = radio.noise_density_dbm_hz + radio.bs_noise_figure_db
    coupling_db = loss_db - radio.antennas_db
    snr_bandwidth = 10 ** ((max_power_dbm - coupling_db - noise_dbm_hz) / 10)
    mean_k = radio.environment.rician_k_db
    k_db = np.full(len(loss_db), mean_k[0] if los and mean_k is not None else np.nan)
    link = uplink(radio, max_power_dbm, coupling_db, snr_bandwidth, k_db)
    return link.rate(radio.bandwidth_hz)
