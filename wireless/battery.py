"""Batteries of a fleet: what is spent and what is left."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.checks import require


@dataclass(frozen=True, slots=True, eq=False)
class Battery:
    """Charge of N devices; every change returns a new state.

    Parameters
    ----------
    capacity_j : ndarray, shape (N,)
        Energies of the full batteries in joules, > 0; ``inf`` is mains.
    spent_j : ndarray, shape (N,), optional
        Energies taken since they were full, from 0 to the capacity; by default none.

    Raises
    ------
    ValueError
        If a capacity or an energy is outside its range.
    """

    capacity_j: NDArray[np.float64]
    spent_j: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def __post_init__(self) -> None:
        """Validate both."""
        capacity = np.asarray(self.capacity_j, dtype=np.float64)
        if capacity.ndim != 1:
            raise ValueError(f"capacity_j must have one dimension, got shape {capacity.shape}")
        require("capacity_j", capacity, capacity > 0, "above 0")
        spent = np.asarray(self.spent_j, dtype=np.float64)
        if spent.shape not in ((), capacity.shape):
            raise ValueError(
                f"spent_j must have the shape {capacity.shape} of capacity_j, got {spent.shape}"
            )
        spent = np.broadcast_to(spent, capacity.shape)
        valid = np.isfinite(spent) & (spent >= 0) & (spent <= capacity)
        require("spent_j", spent, valid, "from 0 to capacity_j")
        object.__setattr__(self, "capacity_j", capacity)
        object.__setattr__(self, "spent_j", spent)

    def __len__(self) -> int:
        """Return the number of devices N."""
        return len(self.capacity_j)

    @property
    def left_j(self) -> NDArray[np.float64]:
        """Energies left in joules, shape (N,)."""
        return np.asarray(self.capacity_j - self.spent_j)

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Whether nothing is left, shape (N,)."""
        return np.asarray(self.spent_j >= self.capacity_j)

    def spend(self, device: ArrayLike, joules: ArrayLike) -> Self:
        """Return the state after some devices have used energy.

        Parameters
        ----------
        device : array_like of int, shape (M,)
            Device numbers from 0 to N - 1; a repeated device pays every time.
        joules : array_like, shape (M,)
            Energies in joules, finite and >= 0. A battery gives no more than it holds.

        Returns
        -------
        Battery
            The new state.

        Raises
        ------
        ValueError
            If a device does not exist or an energy is outside its range.
        """
        spent = self.spent_j + self._sum(device, joules)
        return type(self)(self.capacity_j, np.minimum(spent, self.capacity_j))

    def _sum(self, device: ArrayLike, joules: ArrayLike) -> NDArray[np.float64]:
        """Energies per device, shape (N,)."""
        index = np.atleast_1d(np.asarray(device))
        if index.dtype.kind not in "iu":
            raise ValueError(f"device must hold integers, got {index.dtype}")
        known = (index >= 0) & (index < len(self))
        require("device", index, known, f"from 0 to {len(self) - 1}")
        energy = np.broadcast_to(np.asarray(joules, dtype=np.float64), index.shape)
        valid = np.isfinite(energy) & (energy >= 0)
        require("joules", energy, valid, "finite and at least 0")
        return np.bincount(index, weights=energy, minlength=len(self)).astype(np.float64)
