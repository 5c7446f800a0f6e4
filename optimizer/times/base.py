"""What an estimate of the round time can answer."""

from typing import NamedTuple, Protocol

from numpy.typing import ArrayLike

from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from wireless.link import LinearLink


class Toggles(NamedTuple):
    """The expected round time as a function of one device's plan.

    ``E[T] = without_s[n] + q_n * added_s[c, n]`` when device n takes candidate rank c and the
    others keep their plan: cohorts are independent draws, so the mean is multilinear in q.

    Parameters
    ----------
    mean_s : float
        Expected round time (s) of the plan itself, overhead included.
    without_s : ndarray, shape (N,)
        Expected round time (s) without device n, overhead included.
    added_s : ndarray, shape (C, N)
        What device n adds (s) at each of C ranks where it completes, times its completion.
    """

    mean_s: float
    without_s: FloatArray
    added_s: FloatArray


class TimeModel(Protocol):
    """An estimate of the expected round time under which plans of one problem are compared.

    It is a fixed function: equal plans get equal times, so that a search can descend on it.

    Attributes
    ----------
    problem : Problem
        The fleet.
    """

    @property
    def problem(self) -> Problem:
        """The fleet."""
        ...

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the expected round time of a plan, overhead included.

        Parameters
        ----------
        rank : array_like, shape (N,)
            Ranks k_n; real values are allowed.
        probability : array_like, shape (N,)
            Sampling probabilities q_n.

        Returns
        -------
        float
            Seconds.
        """
        ...

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the round time as a function of each device's own rank and probability.

        Parameters
        ----------
        rank : array_like, shape (N,)
            Ranks k_n; real values are allowed.
        probability : array_like, shape (N,)
            Sampling probabilities q_n.
        candidate : array_like, shape (C, N)
            Ranks that each device takes in turn while the others keep theirs.

        Returns
        -------
        Toggles
        """
        ...


def in_series(problem: Problem) -> bool:
    """Whether rounds end as if the transfers of each cell followed one another.

    On linear links they do under every rule that divides the band anew at events, since the band is
    never idle while somebody has bits left.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Returns
    -------
    bool
    """
    return problem.allocation != "equal-finish" and isinstance(problem.link, LinearLink)
