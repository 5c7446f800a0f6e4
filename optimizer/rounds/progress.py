"""Rounds by the progress that devices make."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from optimizer.rounds.base import Along, FloatArray, Minorant, check_constant


@dataclass(frozen=True, slots=True)
class Progress:
    """Rounds to the target in the progress form; see `optimizer.rounds.RoundModel`.

    ``R = base / sum_n a_n phi(x_n) + sampling * sum_n A_n / (x_n q_n)`` with the sketching ratio
    ``x_n = k_n / r``, ``phi(x) = x ** rank_exponent`` and the variance share
    ``A_n = a_n^2 G_n^2 / sum_m a_m G_m^2``. The first term is the progress of a round, which
    devices with a high rank carry for the others; the second is the noise of sampling devices and
    of sketching their gradients.

    The defaults are for the built-in model and data on thirty devices, r = 16, local SGD at rate
    0.1 clipped at norm 2, five steps a round, to a held-out loss of 1.16 nats per byte. They are
    rounded from fits to 52 pilots of twenty plans on three seeds (docs/rounds.md), which put
    `sampling` at 0.04 of the base where pilots whose training was lost are left out, and at 0.14
    where these count as long runs; a tenth of the base lies between and keeps plans away from the
    noise at which training is lost. An unbiased sketch makes the same expected first-order progress
    as the full rank, so the exponent is all but zero: it is noise, not rank itself, that costs
    rounds here. Step sizes near the stability limit behave otherwise and need pilots of their own.
    Only the ratio sampling / base and the exponent matter to a plan.

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

    base: float = 22.0
    sampling: float = 2.2
    rank_exponent: float = 0.03

    def __post_init__(self) -> None:
        check_constant("base", self.base, zero=False)
        check_constant("sampling", self.sampling)
        check_constant("rank_exponent", self.rank_exponent)

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
        fixed = self.progress(option)
        fixed *= a
        fixed += others
        np.divide(self.base, fixed, out=fixed)
        fixed += noise.sum() - noise
        return Along(fixed, np.asarray(share / np.asarray(option)))

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...]:
        """Return the tangent of the convex 1/progress at a plan: see `RoundModel.minorant`."""
        a, x = np.asarray(weight, dtype=np.float64), np.asarray(option, dtype=np.float64)[:, None]
        there = float(np.sum(a * self.progress(ratio)))
        tangent = Minorant(
            2 * self.base / there,
            np.asarray(self.sampling * np.asarray(variance) / x),
            -self.base / there**2 * a * self.progress(x),
        )
        return (tangent,)
