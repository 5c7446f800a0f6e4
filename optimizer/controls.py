"""Control variates: what is known exactly of the cohorts on which round times are estimated.

Of independent cohorts the expected slowest member, the expected work and the probability of nobody
have closed forms. Drawn cohorts miss them by chance, and round times, which follow them closely,
miss by as much: least squares tells how much of it to take back. The textbook method (Glasserman,
"Monte Carlo Methods in Financial Engineering", 2003, section 4.1); the choice of controls is an own
derivation.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.problem import Problem
from optimizer.rounds import FloatArray

# Draws for each coefficient, the mean included, below which nothing is fitted.
_DRAWS_EACH = 4
# Spread, as a part of the largest value, below which a control is constant but for rounding, and
# part of the largest singular value below which controls are the same.
_CONSTANT, _SAME = 1e-9, 1e-7


class Controls(NamedTuple):
    """Figures of cohorts with known means: a plan's C = 4 control variates.

    ``max tau_n``, ``max m_n`` with m_n the end of device n if it has the band for itself,
    ``sum w_n`` over the members with w_n the transfer time alone, and whether nobody is there. Of
    downloads in turn each device waits for its own alone, which leaves the means exact.

    Parameters
    ----------
    ready_s, alone_s, busy_s : ndarray, shape (N,)
        tau_n, m_n and w_n in seconds.
    takes_part : ndarray, shape (N,)
        Probabilities c_n q_n.
    """

    ready_s: FloatArray
    alone_s: FloatArray
    busy_s: FloatArray
    takes_part: FloatArray

    @classmethod
    def build(cls, problem: Problem, rank: ArrayLike, takes_part: FloatArray) -> Self:
        """Work out what the devices of a plan add.

        Parameters
        ----------
        problem : Problem
            The fleet.
        rank : array_like, shape (N,)
            Ranks k_n.
        takes_part : ndarray, shape (N,)
            Probabilities c_n q_n.

        Returns
        -------
        Controls
        """
        compute_s, busy_s = problem.compute_s(rank), problem.transfer_s(rank)
        ready_s = problem.download_s(rank) + compute_s
        return cls(ready_s, compute_s + busy_s, busy_s, takes_part)

    def mean(self, longest_s: float = np.inf) -> FloatArray:
        """Exact means, (C,).

        Parameters
        ----------
        longest_s : float
            Time (s) as which later ones of the slowest members count.

        Returns
        -------
        ndarray, shape (C,)
        """
        alone_s, ready_s = (np.minimum(x, longest_s) for x in (self.alone_s, self.ready_s))
        q = self.takes_part
        slowest_s = mean_largest(alone_s, q), mean_largest(ready_s, q)
        return np.array([slowest_s[0], q @ self.busy_s, slowest_s[1], np.prod(1 - q)])

    def adjusted(self, time_s: FloatArray, control: FloatArray) -> FloatArray:
        """Take out of round times what the controls explain: see `adjusted`.

        Parameters
        ----------
        time_s : ndarray, shape (J,)
            Durations (s) of drawn cohorts.
        control : ndarray, shape (J, C)
            Their figures.

        Returns
        -------
        ndarray, shape (J,)
            Seconds.

        Notes
        -----
        A device that alone outlasts every round that was drawn is too rare to be among them, and
        the coefficients are not its own: a round that waits for it ends with it. So controls count
        up to the longest round, and the expected time beyond is added as it is.
        """
        longest_s = float(time_s.max())
        late = self.alone_s > longest_s
        beyond_s = mean_largest(self.alone_s[late] - longest_s, self.takes_part[late])
        return np.asarray(adjusted(time_s, control, self.mean(longest_s)) + beyond_s)

    def of(self, present: NDArray[np.bool_]) -> FloatArray:
        """Figures of given cohorts.

        Parameters
        ----------
        present : ndarray of bool, shape (J, N)
            Cohorts.

        Returns
        -------
        ndarray, shape (J, C)
        """
        alone_s, ready_s = ((present * x).max(axis=1) for x in (self.alone_s, self.ready_s))
        return np.column_stack([alone_s, present @ self.busy_s, ready_s, ~present.any(axis=1)])


def mean_largest(value: FloatArray, takes_part: FloatArray) -> float:
    """Expected largest value of a cohort's members; an empty cohort counts as zero.

    Parameters
    ----------
    value : ndarray, shape (N,)
        Values of the devices, not negative.
    takes_part : ndarray, shape (N,)
        Probabilities c_n q_n with which they are members, independently.

    Returns
    -------
    float
        Sum over n of the value, times the probability that n is there and nobody above it.
    """
    order = np.argsort(-value)
    q = takes_part[order]
    nobody_above = np.cumprod(np.append(1.0, 1 - q))[:-1]
    return float(np.sum(value[order] * q * nobody_above))


def adjusted(sample: FloatArray, control: FloatArray, mean: FloatArray) -> FloatArray:
    """Take out of a sample what its control variates explain.

    Parameters
    ----------
    sample : ndarray, shape (J,)
        Independent draws.
    control : ndarray, shape (J, C)
        Control variates of the same draws. The first is one that the sample follows one to one
        where nothing else is known: with a coefficient of 1 until the draws say otherwise.
    mean : ndarray, shape (C,)
        Their exact means.

    Returns
    -------
    ndarray, shape (J,)
        Draws whose mean is the estimate, and whose ordinary standard error is that of the estimate:
        residuals are scaled up for the degrees of freedom that the coefficients take.

    Notes
    -----
    Coefficients from the same draws bias the estimate by O(1/J), which the standard error, of order
    ``1 / sqrt(J)``, outweighs. What sets cohorts too rare to be drawn apart, besides their
    controls, is in neither.
    """
    sample = sample - (control[:, 0] - mean[0])
    spread = control.std(axis=0)
    some = spread > _CONSTANT * np.abs(control).max(axis=0)
    if len(sample) < _DRAWS_EACH * (1 + np.count_nonzero(some)):
        return np.asarray(sample)
    away = (control[:, some] - mean[some]) / spread[some]
    center, middle = away.mean(axis=0), float(sample.mean())
    # The least coefficients where several would do.
    coefficient, _, taken, _ = np.linalg.lstsq(away - center, sample - middle, rcond=_SAME)
    rest = sample - middle - (away - center) @ coefficient
    scale = np.sqrt((len(sample) - 1) / (len(sample) - 1 - taken))
    return np.asarray(middle - center @ coefficient + scale * rest)
