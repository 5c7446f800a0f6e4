"""Energy as power times time; no cycle-level model of the processor."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def uplink_energy_j(tx_power_dbm: ArrayLike, seconds: ArrayLike) -> NDArray[np.float64]:
    """Return the energy that devices radiate while they send.

    Parameters
    ----------
    tx_power_dbm : array_like, shape (N,)
        Transmit powers in dBm.
    seconds : array_like, shape (N,)
        Times spent sending.

    Returns
    -------
    ndarray, shape (N,)
        Radiated energies in joules; what the amplifier wastes is not in them.
    """
    watts = 10 ** ((np.asarray(tx_power_dbm, dtype=np.float64) - 30) / 10)
    return np.asarray(watts * np.asarray(seconds, dtype=np.float64))


def compute_energy_j(compute_power_w: ArrayLike, seconds: ArrayLike) -> NDArray[np.float64]:
    """Return the energy that devices spend on training.

    Parameters
    ----------
    compute_power_w : array_like, shape (N,)
        Powers drawn while training, in watts.
    seconds : array_like, shape (N,)
        Times spent training.

    Returns
    -------
    ndarray, shape (N,)
        Energies in joules.
    """
    power = np.asarray(compute_power_w, dtype=np.float64)
    return np.asarray(power * np.asarray(seconds, dtype=np.float64))
