"""Rounds by the noise of sampling, and by what low ranks cost whoever is sampled."""

# Every model is told all that any of them needs.
# ruff: noqa: ARG002

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optimizer.rounds.base import Along, FloatArray, Minorant, check_constant


@dataclass(frozen=True, slots=True)
class RankCost:
    """Rounds to which ranks and sampling add apart; see `optimizer.rounds.RoundModel`.

    ``R = base + sampling * sum_n A_n / q_n + rank * sum_n a_n / x_n`` with the sketching ratio
    ``x_n = k_n/r``. The sketched loss is smooth with a constant r/k times that of the full rank,
    so the stable step shrinks and rounds grow like r/k whatever the sampling is.

    Parameters
    ----------
    base : float
        Rounds that neither ranks nor sampling change, > 0.
    sampling : float
        Rounds per unit of ``sum_n A_n / q_n``, >= 0.
    rank : float
        Rounds per unit of ``sum_n a_n / x_n``, >= 0.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    Source: own derivation; the smoothness of sketched losses after arXiv 2501.19389, the shape in
    q after arXiv 2505.23555.
    """

    name: ClassVar[str] = "rank-cost"

    base: float
    sampling: float
    rank: float

    def __post_init__(self) -> None:
        check_constant("base", self.base, zero=False)
        check_constant("sampling", self.sampling)
        check_constant("rank", self.rank)

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected rounds of a plan: see `RoundModel.rounds`."""
        noise = np.sum(np.asarray(variance) / np.asarray(probability, dtype=np.float64), axis=-1)
        cost = np.sum(np.asarray(weight) / np.asarray(ratio, dtype=np.float64), axis=-1)
        return np.asarray(self.base + self.sampling * noise + self.rank * cost)

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds along each device: see `RoundModel.along`."""
        dear = self.rank * np.asarray(weight, dtype=np.float64)
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        own = dear / np.asarray(ratio) + share / np.asarray(probability)
        fixed = dear / np.asarray(option)
        fixed += self.base + (own.sum() - own)
        return Along(fixed, np.broadcast_to(share, fixed.shape))

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...]:
        """Return the model itself, which is separable: see `RoundModel.minorant`."""
        x = np.asarray(option, dtype=np.float64)[:, None]
        fixed = self.rank * np.asarray(weight, dtype=np.float64) / x
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        return (Minorant(self.base, np.broadcast_to(share, fixed.shape), fixed),)
