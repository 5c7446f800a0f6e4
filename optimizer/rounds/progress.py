"""Rounds by the progress that devices make."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optimizer.rounds.base import Along, FloatArray, Minorant


@dataclass(frozen=True, slots=True)
class Progress:
    """Rounds to the target in the progress form; see `optimizer.rounds.RoundModel`.

    ``R = base / sum_n a_n phi(x_n) + sampling * sum_n A_n / (x_n q_n)`` with the sketching ratio
    ``x_n = k_n / r``, ``phi(x) = x ** rank_exponent`` and the variance share
    ``A_n = a_n^2 G_n^2 / sum_m a_m G_m^2``. The first term is the progress of a round, which
    devices with a high rank carry for the others; the second is the noise of sampling devices and
    of sketching their gradients.

    The defaults are rounded from a fit to pilots of the built-in model (weights that had seen one
    source file more than today's) on the built-in data: 30 devices that hold three shards of each
    of ten packages (``sum_n A_n = 0.061``), r = 16, local SGD at rate 0.1 clipped at norm 2 and not
    scaled by k/r (rank 1 was slower then than steps that are, the others alike), rounds
    from 1.207 to 1.16 nats per byte, two seeds:

    ====  ==  ====================
    q     k   rounds (seed 11, 12)
    ====  ==  ====================
    0.60  16  18.5
    0.20  16  21.5, 17.6
    0.20  8   21.4
    0.20  4   21.4, 17.4
    0.20  2   22.3, 18.3
    0.20  1   31.0, 26.2
    0.05  16  24.5, 19.4
    0.05  4   24.0, 18.6
    0.05  1   40.4
    ====  ==  ====================

    Least squares on the relative errors, with a factor of 0.82 for the second seed, gives 20.4,
    0.95 and 0.03; the residuals are 9 % (root mean square) and at most 17 %. An unbiased sketch
    makes the same expected first-order progress as the full rank, so it is noise, not rank itself,
    that costs rounds here; step sizes near the stability limit behave otherwise and need pilots of
    their own. Only the ratio sampling / base and the exponent matter to a plan.

    Parameters
    ----------
    base : float
        Rounds at full participation and full rank without sampling noise, > 0.
    sampling : float
        Rounds per unit of ``sum_n A_n / (x_n q_n)``, >= 0.
    rank_exponent : float
        Exponent p of the progress of a device, >= 0.

    Raises
    ------
    ValueError
        If a value is out of range.

    Notes
    -----
    Source: own derivation; the sampling term has the shape of arXiv 2505.23555.
    """

    name: ClassVar[str] = "progress"

    base: float = 20.0
    sampling: float = 1.0
    rank_exponent: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.base < np.inf:
            raise ValueError(f"base is {self.base}: give a positive number of rounds")
        if not 0 <= self.sampling < np.inf:
            raise ValueError(f"sampling is {self.sampling}: give zero or a positive number")
        if not 0 <= self.rank_exponent < np.inf:
            raise ValueError(f"rank_exponent is {self.rank_exponent}: give zero or more")

    def progress(self, ratio: ArrayLike) -> FloatArray:
        """Progress phi of a device with a sketching ratio, relative to one at full rank.

        Parameters
        ----------
        ratio : array_like, any shape
            Sketching ratio k/r in (0, 1].

        Returns
        -------
        ndarray, same shape
        """
        return np.asarray(ratio, dtype=np.float64) ** self.rank_exponent

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected rounds of a plan: see `RoundModel.rounds`."""
        ratio = np.asarray(ratio, dtype=np.float64)
        progress = np.sum(np.asarray(weight) * self.progress(ratio), axis=-1)
        noise = np.sum(np.asarray(variance) / (ratio * np.asarray(probability)), axis=-1)
        return np.asarray(self.base / progress + self.sampling * noise)

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds along each device: see `RoundModel.along`."""
        a, x = np.asarray(weight, dtype=np.float64), np.asarray(ratio, dtype=np.float64)
        own = a * self.progress(x)
        share = self.sampling * np.asarray(variance, dtype=np.float64)
        noise = share / (x * np.asarray(probability))
        # The others' progress would be a rounding below zero where a device is alone.
        others = np.maximum(own.sum() - own, 0.0)
        fixed = self.base / (others + a * self.progress(option))
        fixed += noise.sum() - noise
        return Along(fixed, np.asarray(share / np.asarray(option)))

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> Minorant:
        """Return the tangent of the convex 1/progress at a plan: see `RoundModel.minorant`."""
        a, x = np.asarray(weight, dtype=np.float64), np.asarray(option, dtype=np.float64)[:, None]
        there = float(np.sum(a * self.progress(ratio)))
        return Minorant(
            2 * self.base / there,
            np.asarray(self.sampling * np.asarray(variance) / x),
            -self.base / there**2 * a * self.progress(x),
        )
