"""Losses into buildings, TR 38.901 section 7.4.3.1, added to the outdoor path loss.

Walls of a composite of materials let through the mean of what each lets through; the loss then
grows by 0.5 dB per metre of depth, and is spread by a normal term. Every draw is one per device,
shared by all of its links.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams

Building = Literal["low-loss", "high-loss"]
Material = Literal["glass", "irr-glass", "concrete", "wood"]

# Loss in dB at 0 Hz and its slope in dB per GHz, table 7.4.3-1 (versions 14 to 18; version 19
# has 25.4 + 0.11 f for infrared-reflecting glass).
_MATERIAL_DB: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "glass": (2.0, 0.2),
        "irr-glass": (23.0, 0.3),
        "concrete": (5.0, 4.0),
        "wood": (4.85, 0.12),
    }
)
# Shares of the materials of the outer wall, and the standard deviation in dB, table 7.4.3-2.
_WALLS: Mapping[str, tuple[tuple[tuple[Material, float], ...], float]] = MappingProxyType(
    {
        "low-loss": ((("glass", 0.3), ("concrete", 0.7)), 4.4),
        "high-loss": ((("irr-glass", 0.7), ("concrete", 0.3)), 6.5),
    }
)
# Added for incidence that is not perpendicular, and the loss per metre of depth.
_OBLIQUE_DB = 5.0
_DEPTH_DB_PER_M = 0.5
# Largest depth of a device, by environment outside the building.
_MAX_DEPTH_M: Mapping[str, float] = MappingProxyType({"uma": 25.0, "umi": 25.0, "rma": 10.0})


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Check a name against the known ones."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def material_loss_db(material: Material, carrier_hz: float) -> float:
    """Return the loss through a material at perpendicular incidence.

    Parameters
    ----------
    material : {"glass", "irr-glass", "concrete", "wood"}
        Material; glass is the standard multi-pane kind, irr-glass reflects infrared.
    carrier_hz : float
        Carrier frequency, 0.5e9 to 100e9 Hz.

    Returns
    -------
    float
        Loss in dB.

    Raises
    ------
    ValueError
        If the material is unknown or the carrier outside its range.

    References
    ----------
    TR 38.901 (v17), table 7.4.3-1.
    """
    _check_choice("material", material, get_args(Material))
    if not 0.5e9 <= carrier_hz <= 100e9:
        raise ValueError(f"carrier_hz must be from 5e+08 to 1e+11, got {carrier_hz}")
    loss_db, slope_db_per_ghz = _MATERIAL_DB[material]
    return loss_db + slope_db_per_ghz * carrier_hz / 1e9


def wall_loss_db(carrier_hz: float, building: Building = "low-loss") -> float:
    """Return the loss through the outer wall, without depth and spread.

    Parameters
    ----------
    carrier_hz : float
        Carrier frequency, 0.5e9 to 100e9 Hz.
    building : {"low-loss", "high-loss"}
        Kind of building: plain glass and concrete, or infrared-reflecting glass and concrete.

    Returns
    -------
    float
        Loss in dB.

    Raises
    ------
    ValueError
        If the building is unknown or the carrier outside its range.

    References
    ----------
    TR 38.901 (v17), equation 7.4-3 and table 7.4.3-2.
    """
    _check_choice("building", building, get_args(Building))
    materials, _ = _WALLS[building]
    transmitted = sum(
        share * 10 ** (-material_loss_db(material, carrier_hz) / 10)
        for material, share in materials
    )
    return float(_OBLIQUE_DB - 10 * np.log10(transmitted))


def indoor_depth_m(seed: int, device: ArrayLike, environment: str = "uma") -> NDArray[np.float64]:
    """Draw the horizontal distances of the devices behind the outer wall.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device : array_like of int, shape (N,)
        Numbers of the devices.
    environment : {"uma", "umi", "rma"}
        Name of the environment of the base station outside.

    Returns
    -------
    ndarray, shape (N,)
        Distances in metres: the smaller of two uniform ones, up to 25 m, or 10 m in "rma".

    Raises
    ------
    ValueError
        If the environment is not one of those.

    References
    ----------
    TR 38.901 (v17), section 7.4.3.1.
    """
    _check_choice("environment", environment, tuple(_MAX_DEPTH_M))
    first, second = (streams.uniform(seed, "penetration.depth", device, draw) for draw in (0, 1))
    return np.asarray(_MAX_DEPTH_M[environment] * np.minimum(first, second))


def mean_building_loss_db(
    depth_m: ArrayLike, carrier_hz: float, building: Building = "low-loss"
) -> NDArray[np.float64]:
    """Return the loss into a building, without spread.

    Parameters
    ----------
    depth_m : array_like, shape (N,)
        Horizontal distances behind the outer wall in metres.
    carrier_hz : float
        Carrier frequency, 0.5e9 to 100e9 Hz.
    building : {"low-loss", "high-loss"}
        Kind of building.

    Returns
    -------
    ndarray, shape (N,)
        Losses in dB.

    Raises
    ------
    ValueError
        If the building is unknown or the carrier outside its range.

    References
    ----------
    TR 38.901 (v17), table 7.4.3-2.
    """
    depth = np.asarray(depth_m, dtype=np.float64)
    return np.asarray(wall_loss_db(carrier_hz, building) + _DEPTH_DB_PER_M * depth)


def building_loss_db(
    seed: int,
    device: ArrayLike,
    carrier_hz: float,
    building: Building = "low-loss",
    environment: str = "uma",
) -> NDArray[np.float64]:
    """Draw the losses into the buildings around the devices.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    device : array_like of int, shape (N,)
        Numbers of the devices.
    carrier_hz : float
        Carrier frequency, 0.5e9 to 100e9 Hz.
    building : {"low-loss", "high-loss"}
        Kind of building; "rma" has low-loss ones only.
    environment : {"uma", "umi", "rma"}
        Name of the environment of the base station outside.

    Returns
    -------
    ndarray, shape (N,)
        Losses in dB. As in the report the normal term is not cut: about 1 % of the draws are
        negative at 0.5 GHz, next to none above 3 GHz.

    Raises
    ------
    ValueError
        If building and environment are unknown or exclude each other, or the carrier is outside
        its range.

    References
    ----------
    TR 38.901 (v17), section 7.4.3.1 and table 7.4.3-2.
    """
    if environment == "rma" and building != "low-loss":
        raise ValueError(f"building must be 'low-loss' in environment 'rma', got {building!r}")
    depth = indoor_depth_m(seed, device, environment)
    mean_db = mean_building_loss_db(depth, carrier_hz, building)
    _, std_db = _WALLS[building]
    return np.asarray(mean_db + std_db * streams.normal(seed, "penetration.building", device))
