"""Rounds by the noise of sampling and sketching alone."""

# Every model is told all that any of them needs.
# ruff: noqa: ARG002

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optimizer.rounds.base import Along, FloatArray, Minorant, check_constant


@dataclass(frozen=True, slots=True)
class SamplingTerm:
    """Rounds that grow with the variance of the sketched cohort; see `optimizer.rounds.RoundModel`.

    ``R = base + sampling * sum_n A_n [1 / (x_n q_n) - 1]`` with the sketching ratio
    ``x_n = k_n/r``. A sketch multiplies the second moment of an unbiased gradient by r/k, sampling
    divides it by q; smoothness turns the sum into rounds once the step size is chosen best.

    Parameters
    ----------
    base : float
        Rounds at full participation and full rank, > 0.
    sampling : float
        Rounds per unit of ``sum_n A_n [1 / (x_n q_n) - 1]``, >= 0.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    Source: own derivation; the shape in q is that of arXiv 2505.23555.
    """

    name: ClassVar[str] = "sampling"

    base: float
    sampling: float

    def __post_init__(self) -> None:
        check_constant("base", self.base, zero=False)
        check_constant("sampling", self.sampling)

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected rounds of a plan: see `RoundModel.rounds`."""
        times = 1 / (np.asarray(ratio, dtype=np.float64) * np.asarray(probability)) - 1
        return np.asarray(self.base + self.sampling * np.sum(np.asarray(variance) * times, axis=-1))

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds along each device: see `RoundModel.along`."""
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        noise = share / (np.asarray(ratio) * np.asarray(probability))
        per_probability = share / np.asarray(option)
        others = (self.base - share.sum()) + (noise.sum() - noise)
        return Along(np.broadcast_to(others, per_probability.shape), per_probability)

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...]:
        """Return the model itself, which is separable: see `RoundModel.minorant`."""
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        per_probability = share / np.asarray(option, dtype=np.float64)[:, None]
        nothing = np.broadcast_to(0.0, per_probability.shape)
        return (Minorant(self.base - float(share.sum()), per_probability, nothing),)
