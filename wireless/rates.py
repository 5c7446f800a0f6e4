"""The rates of devices in a radio: modem, fading and power control put together."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.efficiency import Efficiency
from wireless.link import LinearLink, Link, make_link
from wireless.power_control import PowerControlledLink, knee_hz
from wireless.radio import RadioParameters


def faded_link(
    radio: RadioParameters,
    modem: Efficiency,
    snr_bandwidth_hz: NDArray[np.float64],
    k_db: NDArray[np.float64] | None,
) -> Link:
    """Return links at full power, as means over fading if there is any.

    Parameters
    ----------
    radio : RadioParameters
        Says what fades.
    modem : Efficiency
        Bit/s/Hz that an SNR buys.
    snr_bandwidth_hz : ndarray, shape (N,)
        a = P g / N0 in Hz with the mean gain, or with that of the moment.
    k_db : ndarray, shape (N,), or None
        Rician factors in dB, NaN out of sight; None for links that do not fade.

    Returns
    -------
    Link
        By what may be, not by who happens to be in sight: a device's link is the same in any
        company, to the last digit.
    """
    if k_db is None or not radio.fades:
        return make_link(snr_bandwidth_hz, modem, None, "none")
    if radio.fading.rician and radio.environment.rician_k_db is not None:
        return make_link(snr_bandwidth_hz, modem, k_db, "rician")
    return make_link(snr_bandwidth_hz, modem, None, "rayleigh")


def uplink(
    radio: RadioParameters,
    max_power_dbm: ArrayLike,
    coupling_db: NDArray[np.float64],
    snr_bandwidth_hz: NDArray[np.float64],
    k_db: NDArray[np.float64] | None,
) -> Link:
    """Return uplinks, with power control if the radio has it; of analog ones the numbers' rates.

    Parameters
    ----------
    radio : RadioParameters
        The radio.
    max_power_dbm : array_like, shape (N,) or scalar
        Largest transmit powers in dBm.
    coupling_db : ndarray, shape (N,)
        Long-term losses, antenna gains taken off, in dB.
    snr_bandwidth_hz, k_db
        As for `faded_link`, at full power.

    Returns
    -------
    Link
    """
    if radio.analog is not None:
        share = radio.uplink_modem.share
        return LinearLink(np.full(len(snr_bandwidth_hz), radio.analog.bps_hz * share))
    link = faded_link(radio, radio.uplink_modem, snr_bandwidth_hz, k_db)
    control = radio.power_control
    if control is None:
        return link
    knee = knee_hz(max_power_dbm, control.p0_dbm, control.alpha, coupling_db)
    return PowerControlledLink(link, knee)
