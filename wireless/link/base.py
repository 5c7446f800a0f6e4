"""What every link can do, and the link of constant efficiency."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Link(Protocol):
    """The uplinks of N devices; the last axis of every argument is the device axis."""

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Highest rates of all bandwidths, in bit/s, shape (N,)."""
        ...

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        ...

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N).

        Zero for rate zero, ``inf`` above the limit and at a limit that no bandwidth reaches.
        """
        ...

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N).

        Both are ``inf`` where no bandwidth reaches the rate; together they cost one inversion.
        """
        ...

    def power_share(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the shares of full power that sending over bandwidths in Hz takes, (..., N).

        Zero without any band.
        """
        ...

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        ...

    def __len__(self) -> int:
        """Return the number of devices N."""
        ...


def positive_vector(value: ArrayLike, name: str) -> NDArray[np.float64]:
    """Check that a field is a one-dimensional array of finite positive numbers."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {vector.shape}")
    valid = np.isfinite(vector) & (vector > 0)
    if not valid.all():
        raise ValueError(f"{name} must be finite and positive, got {vector[~valid][0]}")
    return vector


class FullPower:
    """Links that send at full power over whatever bandwidth they have."""

    __slots__ = ()

    def power_share(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return one where there is any bandwidth, else zero, (..., N)."""
        return np.where(np.asarray(bandwidth_hz) > 0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class LinearLink(FullPower):
    """Links of constant spectral efficiency, rate = e b.

    Parameters
    ----------
    efficiency_bps_hz : ndarray, shape (N,)
        Spectral efficiencies in bit/s/Hz.

    Raises
    ------
    ValueError
        If the efficiencies are not a vector of finite positive numbers.
    """

    efficiency_bps_hz: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Validate the efficiencies."""
        vector = positive_vector(self.efficiency_bps_hz, "efficiency_bps_hz")
        object.__setattr__(self, "efficiency_bps_hz", vector)

    @property
    def limit_bps(self) -> NDArray[np.float64]:
        """Infinity for every device, shape (N,)."""
        return np.full(len(self), np.inf)

    def rate(self, bandwidth_hz: ArrayLike) -> NDArray[np.float64]:
        """Return the rates in bit/s of the given bandwidths in Hz, both (..., N)."""
        return np.asarray(bandwidth_hz, dtype=np.float64) * self.efficiency_bps_hz

    def bandwidth(self, rate_bps: ArrayLike) -> NDArray[np.float64]:
        """Return the bandwidths in Hz that the rates in bit/s need, both (..., N)."""
        return np.asarray(rate_bps, dtype=np.float64) / self.efficiency_bps_hz

    def bandwidth_and_slope(
        self, rate_bps: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `bandwidth` and its derivative in Hz per bit/s, at rates (..., N)."""
        bandwidth = self.bandwidth(rate_bps)
        return bandwidth, np.broadcast_to(1 / self.efficiency_bps_hz, bandwidth.shape)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the links of the chosen devices, by number (repeats allowed) or by mask."""
        return type(self)(self.efficiency_bps_hz[index])

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.efficiency_bps_hz)
