"""The same cohort in every round."""

import numpy as np

from optimizer.cohort import Cohort
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.policies.parts import members_s
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


class Scheduled:
    """Sampler of the policies that schedule a set of devices once and for all.

    Updates are averaged by the data of the set, ``v_n = a_n / sum_m a_m``. That is biased: the
    model is trained on the set's data alone, and a member that does not complete is missing from
    the mean.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        Probabilities of one for the members, of zero for the others.
    seed : int
        Unused: nothing is drawn.
    **parameters
        Unused: the plan has what they decided.
    """

    def __init__(self, problem: Problem, plan: Plan, seed: int, **parameters: object) -> None:  # noqa: ARG002
        member = np.flatnonzero(plan.probability > 0)
        self._cohort = Cohort.averaged(member, plan.rank, problem.weight)

    def draw(self, round_index: int) -> Cohort:  # noqa: ARG002
        """Return the set: see `optimizer.sampler.Sampler`."""
        return self._cohort

    def learn(self, outcome: Outcome) -> None:
        """Do nothing: the set stays."""


def schedule(problem: Problem, device: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the plan of a fixed cohort at the rank caps.

    Parameters
    ----------
    problem : Problem
        The fleet.
    device : ndarray of int, shape (M,)
        Members.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        One for the members, zero for the others.
    """
    probability = np.zeros(problem.devices)
    probability[device] = 1.0
    return problem.rank_cap, probability


def round_s(problem: Problem, device: IntArray) -> float:
    """Duration (s) of the round of a cohort (M,) at the rank caps, overhead included."""
    member = np.sort(device)
    return float(members_s(problem, member, problem.rank_cap[member]))


def fewest(problem: Problem) -> int:
    """Least number of members that `min_cohort` allows, at least one."""
    return max(1, int(np.ceil(problem.min_cohort * (1 - 1e-12))))
