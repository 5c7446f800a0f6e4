"""Rounds by the noise of sampling, all of them stretched by low ranks."""

# Every model is told all that any of them needs.
# ruff: noqa: ARG002

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optimizer.rounds.base import Along, FloatArray, Minorant, check_constant


@dataclass(frozen=True, slots=True)
class SmoothnessScaled:
    """Rounds in proportion to the smoothness constant; see `optimizer.rounds.RoundModel`.

    ``R = (sum_n a_n / x_n) * (base + sampling * sum_n A_n / q_n)`` with the sketching ratio
    ``x_n = k_n/r``. The objective that sketched devices minimise is smooth with a constant
    ``sum_n a_n r/k_n`` times that of the full rank, and a step that shrinks with it stretches
    every round of the descent.

    Parameters
    ----------
    base : float
        Rounds at full rank without the noise of sampling, > 0.
    sampling : float
        Rounds at full rank per unit of ``sum_n A_n / q_n``, >= 0.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    A product of two sums over devices. Source: own derivation; the smoothness of
    sketched losses after arXiv 2501.19389, the shape in q after arXiv 2505.23555.
    """

    name: ClassVar[str] = "smoothness"

    base: float
    sampling: float

    def __post_init__(self) -> None:
        check_constant("base", self.base, zero=False)
        check_constant("sampling", self.sampling)

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected rounds of a plan: see `RoundModel.rounds`."""
        stretch = np.sum(np.asarray(weight) / np.asarray(ratio, dtype=np.float64), axis=-1)
        noise = np.sum(np.asarray(variance) / np.asarray(probability, dtype=np.float64), axis=-1)
        return np.asarray(stretch * (self.base + self.sampling * noise))

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds along each device: see `RoundModel.along`."""
        a = np.asarray(weight, dtype=np.float64)
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        own, noise = a / np.asarray(ratio), share / np.asarray(probability)
        stretch = a / np.asarray(option)
        stretch += own.sum() - own
        return Along(stretch * (self.base + (noise.sum() - noise)), stretch * share)

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...]:
        """Return the model's own two sums, the stretch and the noise: see `RoundModel.minorant`."""
        stretch = np.asarray(weight) / np.asarray(option, dtype=np.float64)[:, None]
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        nothing = np.broadcast_to(0.0, stretch.shape)
        return (
            Minorant(0.0, nothing, stretch),
            Minorant(self.base, np.broadcast_to(share, stretch.shape), nothing),
        )
