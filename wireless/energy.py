"""Energy of computing and of sending, as power times time."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.checks import require


def uplink_energy_j(
    tx_power_dbm: ArrayLike,
    seconds: ArrayLike,
    amplifier_efficiency: ArrayLike = 1.0,
    circuit_power_w: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Return the energy that devices spend while they send: (P / efficiency + P_circuit) t.

    Parameters
    ----------
    tx_power_dbm : array_like, shape (N,)
        Transmit powers in dBm.
    seconds : array_like, shape (N,)
        Times spent sending.
    amplifier_efficiency : array_like, shape (N,), optional
        Radiated power over the power that the amplifier draws, above 0 and at most 1. The default
        counts radiated power alone.
    circuit_power_w : array_like, shape (N,), optional
        Power of the rest of the transmitter in watts, >= 0.

    Returns
    -------
    ndarray, shape (N,)
        Energies in joules.

    Raises
    ------
    ValueError
        If an efficiency or a circuit power is outside its range.
    """
    efficiency = np.asarray(amplifier_efficiency, dtype=np.float64)
    circuit = np.asarray(circuit_power_w, dtype=np.float64)
    require(
        "amplifier_efficiency",
        efficiency,
        (efficiency > 0) & (efficiency <= 1),
        "above 0 and at most 1",
    )
    require(
        "circuit_power_w", circuit, np.isfinite(circuit) & (circuit >= 0), "finite and at least 0"
    )
    watts = 10 ** ((np.asarray(tx_power_dbm, dtype=np.float64) - 30) / 10)
    return np.asarray((watts / efficiency + circuit) * np.asarray(seconds, dtype=np.float64))


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
