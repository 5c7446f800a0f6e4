"""What the optimizer answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known about a plan: how sure its figures are and how far it is from the optimum.

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
    noise : float
        ``sum_n A_n / (x_n q_n)``, see `Problem.noise`; nan if the cohorts are not drawn
        independently.
    kkt_residual : float
        How far the probabilities are from stationary, see `optimizer.certificate.kkt_residual`:
        zero at a local optimum over q; nan if not computed.
    bound_s : float
        Lower bound (s) of the objective of every plan, `optimizer.bound.lower_bound`; nan if none
        is known or was asked for.
    bound_note : str
        Why there is no bound, or how it was found.
    """

    half_width_s: float
    draws: int
    probability_empty: float
    expected_cohort: float
    noise: float = np.nan
    kkt_residual: float = np.nan
    bound_s: float = np.nan
    bound_note: str = ""


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

    @property
    def gap(self) -> float:
        """Excess of the objective over the lower bound, ``objective_s / bound_s - 1``, or nan.

        No feasible plan is better than this plan by more than the factor ``1 + gap``, up to the
        confidence interval of its own objective.
        """
        return self.objective_s / self.certificate.bound_s - 1.0
