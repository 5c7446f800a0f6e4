"""What a round model can answer."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class Along(NamedTuple):
    """Rounds as a function of one device's plan: ``R = fixed + per_probability / q_n``.

    Parameters
    ----------
    fixed, per_probability : ndarray, shape (C, N)
        Rounds, for each of C sketching ratios of device n, the other devices staying as they are.
        What does not depend on the ratio is a read-only view of one row.
    """

    fixed: FloatArray
    per_probability: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Minorant:
    """A sum over devices: ``constant + sum_n (per_probability[k_n, n] / q_n + fixed[k_n, n])``.

    No plan whose ratios are among the C options has fewer rounds than the product of the sums that
    a model gives.

    Parameters
    ----------
    constant : float
        Rounds.
    per_probability : ndarray, shape (C, N)
        Rounds, >= 0.
    fixed : ndarray, shape (C, N)
        Rounds; may be negative.
    """

    constant: float
    per_probability: FloatArray
    fixed: FloatArray


class RoundModel(Protocol):
    """How many rounds a plan needs to reach the target.

    Along one device every model is ``fixed + per_probability / q_n`` at given ranks; that is what
    the joint search needs of it.

    Attributes
    ----------
    name : str
        Name that scenarios use.
    """

    name: ClassVar[str]

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        """Return the expected number of rounds of a plan; the last axis runs over devices.

        Parameters
        ----------
        weight : array_like, shape (N,) or (..., N)
            Data weights a_n, which sum to one.
        variance : array_like, shape (N,) or (..., N)
            Variance shares A_n.
        ratio : array_like, shape (..., N)
            Sketching ratios k_n/r.
        probability : array_like, shape (..., N)
            Sampling probabilities q_n.

        Returns
        -------
        ndarray, shape (...)
            Rounds (a real number; the plan's objective needs no whole rounds).
        """
        ...

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        """Return the rounds as a function of each device's own ratio and probability.

        Parameters
        ----------
        weight, variance : array_like, shape (N,)
            Data weights a_n and variance shares A_n.
        ratio, probability : array_like, shape (N,)
            The plan that the other devices keep.
        option : array_like, shape (C, N)
            Sketching ratios that device n may take instead, > 0.

        Returns
        -------
        Along
        """
        ...

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...] | None:
        """Return sums whose product is a lower bound of all plans' rounds; None if none is known.

        Parameters
        ----------
        weight, variance : array_like, shape (N,)
            Data weights a_n and variance shares A_n.
        ratio : array_like, shape (N,)
            Sketching ratios of a plan at which the bound is to be tight.
        option : array_like, shape (C,)
            Sketching ratios that a plan may use, ascending.

        Returns
        -------
        tuple of Minorant, or None
            Sums that are positive for every plan, unless there is only one.
        """
        ...


def check_constant(name: str, value: float, zero: bool = True) -> None:
    """Refuse a constant of a round model that is not a number from zero up.

    Parameters
    ----------
    name : str
        Name of the constant.
    value : float
        Its value.
    zero : bool
        Whether it may be zero.

    Raises
    ------
    ValueError
        If it is out of range.
    """
    if not (0 < value < np.inf or (zero and value == 0)):
        raise ValueError(f"{name} is {value}: give {'zero or ' if zero else ''}a positive number")
