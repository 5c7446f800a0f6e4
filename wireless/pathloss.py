"""Path loss, line of sight and shadowing of 3GPP TR 38.901 (version 17), 0.5 to 100 GHz.

One group of functions per scenario of the report. Distances are horizontal ("2-D") unless named
otherwise; every array argument broadcasts.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The report computes its breakpoint distances with this rounded value (table 7.4.1-1, note 1).
_LIGHT_M_PER_S = 3e8


def _breakpoint_distance_m(carrier_hz: float, bs_height_m: float, ut_height_m: float) -> float:
    """Breakpoint d'_BP of UMa and UMi for an effective environment height of 1 m (note 1)."""
    return 4 * (bs_height_m - 1) * (ut_height_m - 1) * carrier_hz / _LIGHT_M_PER_S


def uma_path_loss_db(
    distance_2d_m: ArrayLike,
    carrier_hz: float,
    bs_height_m: float,
    ut_height_m: float,
    los: ArrayLike,
) -> NDArray[np.float64]:
    """Return the mean path loss of the urban macrocell, without shadowing.

    Parameters
    ----------
    distance_2d_m : array_like, shape (N,)
        Horizontal distances in metres, 10 m to 5 km.
    carrier_hz : float
        Carrier frequency in Hz.
    bs_height_m, ut_height_m : float
        Antenna heights in metres: 25 m at the base station, 1.5 to 22.5 m at the device. The
        effective environment height is taken as 1 m; above 13 m the report draws it at random.
    los : array_like of bool, shape (N,)
        Whether the device is in line of sight.

    Returns
    -------
    ndarray, shape (N,)
        Path loss in dB.

    References
    ----------
    TR 38.901, table 7.4.1-1, UMa.
    """
    distance = np.asarray(distance_2d_m, dtype=np.float64)
    height = bs_height_m - ut_height_m
    breakpoint_m = _breakpoint_distance_m(carrier_hz, bs_height_m, ut_height_m)
    log_3d = np.log10(np.hypot(distance, height))
    carrier_db = 20 * math.log10(carrier_hz / 1e9)

    before = 28 + 22 * log_3d + carrier_db
    after = 28 + 40 * log_3d + carrier_db - 18 * math.log10(math.hypot(breakpoint_m, height))
    in_sight = np.where(distance <= breakpoint_m, before, after)
    out_of_sight = 13.54 + 39.08 * log_3d + carrier_db - 0.6 * (ut_height_m - 1.5)
    return np.where(los, in_sight, np.maximum(in_sight, out_of_sight))


def uma_los_probability(distance_2d_m: ArrayLike, ut_height_m: float) -> NDArray[np.float64]:
    """Return the probability of line of sight in the urban macrocell.

    Parameters
    ----------
    distance_2d_m : array_like, shape (N,)
        Horizontal distances in metres.
    ut_height_m : float
        Antenna height of the devices in metres, at most 23.

    Returns
    -------
    ndarray, shape (N,)
        Probabilities.

    Raises
    ------
    ValueError
        If the height is above 23 m, where the report defines none.

    References
    ----------
    TR 38.901, table 7.4.2-1, UMa.
    """
    if ut_height_m > 23:
        raise ValueError(f"ut_height_m must be at most 23, got {ut_height_m}")
    # Up to 18 m the report sets 1, which is also the first factor at 18 m; the second one would
    # lift the product of tall devices just above 1 there.
    distance = np.maximum(np.asarray(distance_2d_m, dtype=np.float64), 18)
    ground = 18 / distance + np.exp(-distance / 63) * (1 - 18 / distance)
    lift = (max(ut_height_m - 13, 0) / 10) ** 1.5
    raised = 1 + lift * 5 / 4 * (distance / 100) ** 3 * np.exp(-distance / 150)
    return np.asarray(np.minimum(ground * raised, 1.0))


def uma_shadowing_std_db(los: ArrayLike) -> NDArray[np.float64]:
    """Return the standard deviation of log-normal shadowing in the urban macrocell.

    Parameters
    ----------
    los : array_like of bool, shape (N,)
        Whether the device is in line of sight.

    Returns
    -------
    ndarray, shape (N,)
        Standard deviations in dB.

    References
    ----------
    TR 38.901, table 7.4.1-1, UMa.
    """
    return np.where(los, 4.0, 6.0)
