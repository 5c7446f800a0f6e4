"""What the optimizer answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known about a plan's figures; it says nothing about other plans.

    Parameters
    ----------
    half_width_s : float
        Half-width (s) of the 95 % confidence interval of the expected round time, estimated on
        draws that the policy has not seen; zero when every cohort was enumerated.
    draws : int
        Cohorts evaluated.
    probability_empty : float
        Probability that a round has no device.
    expected_cohort : float
        Expected number of devices that complete a round, ``sum_n c_n q_n``.
    """

    half_width_s: float
    draws: int
    probability_empty: float
    expected_cohort: float


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Ranks and sampling probabilities of a fleet, with what they are expected to cost.

    Parameters
    ----------
    policy : str
        Name of the policy that made the plan.
    rank : ndarray of int, shape (N,)
        Ranks k_n.
    probability : ndarray, shape (N,)
        Sampling probabilities q_n.
    expected_round_s : float
        Expected duration of a round (s), overhead included.
    rounds : float
        Rounds to the target according to the round model.
    objective_s : float
        Expected time to the target (s), ``rounds * expected_round_s``.
    certificate : Certificate
        How far the expected duration can be trusted.
    """

    policy: str
    rank: NDArray[np.int64]
    probability: NDArray[np.float64]
    expected_round_s: float
    rounds: float
    objective_s: float
    certificate: Certificate
