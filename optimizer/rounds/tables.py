"""Rounds from tables that the user brings."""

# Every model is told all that any of them needs.
# ruff: noqa: ARG002

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.rounds.base import Along, FloatArray, Minorant

#: How far k may lie outside 1..r by the rounding of k/r.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Any separable round model, by its values at the ranks; see `optimizer.rounds.RoundModel`.

    ``R = constant + sum_n [per_probability[k_n, n] / q_n + fixed[k_n, n]]``, linear between whole
    ranks. Weights and variance shares have no say: whatever depends on them is in the tables.

    Parameters
    ----------
    constant : float
        Rounds; any sign.
    per_probability : array_like, shape (r, N)
        Rounds, >= 0; row k - 1 is rank k.
    fixed : array_like, shape (r, N)
        Rounds; any sign, as long as every plan takes rounds.

    Raises
    ------
    ValueError
        If the tables do not fit together, hold what is no number, or some plan takes no rounds;
        where they are asked about another fleet or a rank that they do not have.
    """

    name: ClassVar[str] = "tables"

    constant: float
    per_probability: FloatArray
    fixed: FloatArray

    def __post_init__(self) -> None:
        if not np.isfinite(self.constant):
            raise ValueError(f"constant is {self.constant}: give a number of rounds")
        for name in ("per_probability", "fixed"):
            table = np.array(getattr(self, name), dtype=np.float64)
            if table.ndim != 2 or not table.size:
                raise ValueError(f"{name} has shape {table.shape}: give a row per rank 1..r")
            bad = ~np.isfinite(table) | ((table < 0) & (name == "per_probability"))
            if bad.any():
                k, n = np.argwhere(bad)[0]
                least = "zero or more" if name == "per_probability" else "a number of"
                raise ValueError(
                    f"{name} of device {n} at rank {k + 1} is {table[k, n]}: give {least} rounds"
                )
            table.setflags(write=False)
            object.__setattr__(self, name, table)
        if self.per_probability.shape != self.fixed.shape:
            raise ValueError(
                f"fixed has shape {self.fixed.shape}: give {self.per_probability.shape}, "
                "as per_probability has"
            )
        # Certain participation takes the fewest rounds, and lines between ranks go no lower.
        fewest = self.constant + float(np.min(self.per_probability + self.fixed, axis=0).sum())
        if not fewest > 0:
            raise ValueError(
                f"constant is {self.constant}: some plan would take {fewest:g} rounds; raise it"
            )

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected rounds of a plan: see `RoundModel.rounds`."""
        per_probability, fixed = self._at(ratio)
        terms = per_probability / np.asarray(probability) + fixed
        return np.asarray(self.constant + terms.sum(axis=-1))

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds along each device: see `RoundModel.along`."""
        per_probability, fixed = self._at(ratio)
        own = per_probability / np.asarray(probability) + fixed
        there, here = self._at(option)
        return Along(here + (self.constant + (own.sum() - own)), there)

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...]:
        """Return the model itself, which is separable: see `RoundModel.minorant`."""
        x = np.asarray(option, dtype=np.float64)[:, None]
        tables = self._at(np.broadcast_to(x, (len(x), self.fixed.shape[1])))
        return (Minorant(self.constant, *tables),)

    def _at(self, ratio: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Both tables at ratios (..., N)."""
        x = np.asarray(ratio, dtype=np.float64)
        ranks, devices = self.fixed.shape
        if x.shape[-1:] != (devices,):
            raise ValueError(f"fixed has {devices} devices: give tables of {x.shape[-1]}")
        k = ranks * x
        if not np.all((k >= 1 - _ROUNDING) & (k <= ranks + _ROUNDING)):
            raise ValueError(
                f"fixed has the ranks 1 to {ranks}: some k/r is from {x.min():g} to {x.max():g}; "
                f"give tables of as many ranks as the adapter has"
            )
        below: NDArray[np.intp] = np.clip(k.astype(np.intp), 1, max(ranks - 1, 1)) - 1
        above, part = np.minimum(below + 1, ranks - 1), np.clip(k - 1 - below, 0.0, 1.0)
        device = np.arange(devices)

        def between(table: FloatArray) -> FloatArray:
            low = table[below, device]
            return np.asarray(low + part * (table[above, device] - low))

        return between(self.per_probability), between(self.fixed)
