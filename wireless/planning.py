"""What plans reckon with where fading per round leaves no single rate."""

import numpy as np
from numpy.typing import NDArray

from wireless import fading
from wireless.channel import Channel, LinkState
from wireless.link import Link
from wireless.rates import uplink

#: Secant steps to the equivalent gain; time per bit is next to a power of it.
_STEPS = 30


def planning_link(channel: Channel, state: LinkState | None = None) -> Link:
    """Return uplinks whose transfer times are the means over what fading leaves.

    With ergodic rates, a constant channel or an analog uplink they are the uplinks themselves, with
    block fading the means over fading, which a transfer of many blocks comes near to. With fading
    per round, a link without fading that takes as long for a bit over the whole band as the fading
    link does in the mean over the rounds without outage (own derivation): the mean of one over the
    rate, which an outage SNR keeps finite.

    Parameters
    ----------
    channel : Channel
        Links of the N devices.
    state : LinkState, optional
        All of them at the moment of the plan; by default, where they started.

    Returns
    -------
    Link
        Of the N devices, at their places then.

    Notes
    -----
    The mean time of one device alone is met exactly, that of devices that share a band is not: the
    slowest of several is slower than their mean, so rounds of several devices last longer than
    planned (`docs/radio.md` has figures).
    """
    radio, start = channel.radio, channel.start if state is None else state
    fixed = radio.analog is not None or not radio.fades
    if fixed or radio.fading.kind not in ("per-round", "block"):
        return start.uplink
    band = radio.bandwidth_hz
    headroom_db = channel.max_power_dbm - start.tx_power_dbm
    snr_bandwidth = band * 10 ** ((start.snr_db + headroom_db) / 10)
    coupling_db = start.path_loss_db + start.shadowing_db - radio.antennas_db
    if radio.fading.kind == "block":
        return uplink(radio, channel.max_power_dbm, coupling_db, snr_bandwidth, start.rician_k_db)
    k_db = start.rician_k_db
    k_factor = np.where(np.isnan(k_db), 0.0, 10 ** (np.nan_to_num(k_db) / 10))
    least = 10 ** ((radio.fading.outage_snr_db - start.snr_db) / 10)

    def at(power: NDArray[np.float64]) -> Link:
        return uplink(radio, channel.max_power_dbm, coupling_db, snr_bandwidth * power, None)

    def bit_s(power: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds per bit at a fading power, over the whole band."""
        return np.asarray(1 / at(power).rate(band))

    wanted = np.log(fading.truncated_mean(bit_s, least, k_factor))
    # Bisection in the logarithm of the power, sped up by secants (the Illinois rule).
    low, high = np.full(len(channel), np.log(1e-9)), np.full(len(channel), np.log(1e3))
    miss_low, miss_high = (np.log(bit_s(np.exp(edge))) - wanted for edge in (low, high))
    for _ in range(_STEPS):
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = high - miss_high * (high - low) / (miss_high - miss_low)
        inside = (middle > low) & (middle < high)
        middle = np.where(inside, middle, (low + high) / 2)
        miss = np.log(bit_s(np.exp(middle))) - wanted
        slow = miss > 0
        miss_high = np.where(slow, miss_high / 2, miss)
        miss_low = np.where(slow, miss, miss_low / 2)
        low, high = np.where(slow, middle, low), np.where(slow, high, middle)
        if np.abs(miss).max() < 1e-12:
            break
    return at(np.exp(middle))
