"""What every mobility model answers, and the checks that they share."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Places = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Coordinates x and y in metres, each of shape (M,)."""


class Mobility(Protocol):
    """Paths of N devices in the plane, the base station at the origin."""

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        ...


def queried(
    device: ArrayLike, time_s: ArrayLike, devices: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Check devices and times and bring them to one shape."""
    number, time = np.asarray(device), np.asarray(time_s, dtype=np.float64)
    if number.dtype.kind not in "iu":
        raise ValueError(f"device must be integers, got {number.dtype}")
    inside = (number >= 0) & (number < devices)
    if not inside.all():
        raise ValueError(f"device must be from 0 to {devices - 1}, got {number[~inside].flat[0]}")
    valid = np.isfinite(time) & (time >= 0)
    if not valid.all():
        raise ValueError(f"time_s must be finite and not negative, got {time[~valid].flat[0]}")
    number, time = np.broadcast_arrays(number.astype(np.intp), time)
    return number, time


def finite_vector(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Check that a field is a one-dimensional array of finite numbers."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} must be finite, got {vector[~np.isfinite(vector)][0]}")
    return vector


def starting_places(x_m: ArrayLike, y_m: ArrayLike, radius_m: float = math.inf) -> Places:
    """Check that the starting places are rows of one length inside the disc."""
    x, y = finite_vector(x_m, "x_m"), finite_vector(y_m, "y_m")
    if x.shape != y.shape:
        raise ValueError(f"y_m must have the shape of x_m, {x.shape}, got {y.shape}")
    distance = np.hypot(x, y)
    outside = distance > radius_m * (1 + 1e-9)  # a place on the rim may have been rounded outwards
    if outside.any():
        raise ValueError(
            f"x_m, y_m must lie within radius_m = {radius_m}, got {distance[outside][0]} m"
        )
    return x, y


def check_range(name: str, value: float, low: float, above: bool = False) -> None:
    """Check that a number is finite and at least `low`, or above it."""
    if not (math.isfinite(value) and (value > low if above else value >= low)):
        raise ValueError(
            f"{name} must be finite and {'above' if above else 'at least'} {low}, got {value}"
        )
