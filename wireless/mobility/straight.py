"""Devices that stand still, or walk to and fro along a straight line."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.mobility.base import Places, check_range, queried, starting_places


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """Devices that stay where they are.

    Parameters
    ----------
    x_m, y_m : ndarray, shape (N,)
        Places in metres.

    Raises
    ------
    ValueError
        If the coordinates are not finite rows of one length.
    """

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Validate the places."""
        x, y = starting_places(self.x_m, self.y_m)
        object.__setattr__(self, "x_m", x)
        object.__setattr__(self, "y_m", y)

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        number, _ = queried(device, time_s, len(self.x_m))
        return self.x_m[number], self.y_m[number]


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Devices that walk to and fro along a chord of the disc, each at its constant speed.

    The chord goes through the starting place in a random direction; at its ends the device turns
    around.

    Parameters
    ----------
    seed : int
        Root seed of the run; the directions are keyed by device.
    x_m, y_m : ndarray, shape (N,)
        Places in metres at time zero.
    radius_m : float
        Radius of the disc in metres, > 0.
    pace_m_s : array_like, shape () or (N,)
        Speeds in m/s, >= 0.

    Raises
    ------
    ValueError
        If a place lies outside the disc, or a speed is negative or not finite.
    """

    seed: int
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    radius_m: float
    pace_m_s: ArrayLike
    _speed: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate places and speeds."""
        check_range("radius_m", self.radius_m, 0, above=True)
        x, y = starting_places(self.x_m, self.y_m, self.radius_m)
        speed = np.asarray(self.pace_m_s, dtype=np.float64)
        if speed.shape not in ((), x.shape):
            raise ValueError(f"pace_m_s must have shape () or {x.shape}, got {speed.shape}")
        valid = np.isfinite(speed) & (speed >= 0)
        if not valid.all():
            raise ValueError(
                f"pace_m_s must be finite and not negative, got {speed[~valid].flat[0]}"
            )
        object.__setattr__(self, "x_m", x)
        object.__setattr__(self, "y_m", y)
        object.__setattr__(self, "_speed", np.broadcast_to(speed, x.shape))

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        number, time = queried(device, time_s, len(self.x_m))
        x, y = self.x_m[number], self.y_m[number]
        angle = 2 * np.pi * streams.uniform(self.seed, "mobility.heading", number)
        cos, sin = np.cos(angle), np.sin(angle)
        # The chord reaches from -half to half around its midpoint, which lies at -along from here.
        along = x * cos + y * sin
        half = np.sqrt(np.maximum(self.radius_m**2 - (y * cos - x * sin) ** 2, 0))
        half = np.maximum(half, np.abs(along))  # a start rounded off the rim is still on its chord
        length = 2 * half
        walked = half + along + self._speed[number] * time
        phase = np.mod(walked, np.where(length > 0, 2 * length, 1))
        ahead = np.where(length > 0, half - np.abs(phase - length), along) - along
        return x + ahead * cos, y + ahead * sin
