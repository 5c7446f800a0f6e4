"""How the cohorts of a run are drawn from a plan, one round after the other.

Most policies sample independently with the probabilities of their plan. Those that choose whole
cohorts, or that learn on the way, have a sampler of their own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from optimizer.cohort import Cohort, draw_cohort
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.policies.oort import Oort
from optimizer.policies.scheduled import Scheduled
from optimizer.policies.tsfa import Tsfa
from optimizer.problem import Problem


class Sampler(Protocol):
    """Draws the cohorts of one run, in the order of its rounds."""

    def draw(self, round_index: int) -> Cohort:
        """Return the cohort of a round, its ranks and aggregation weights; it may be empty.

        Parameters
        ----------
        round_index : int
            Number of the round, from 0 on.

        Returns
        -------
        Cohort
        """
        ...

    def learn(self, outcome: Outcome) -> None:
        """Take note of how a drawn round ended.

        Parameters
        ----------
        outcome : Outcome
            What the devices that completed it reported.
        """
        ...


class Independent:
    """Independent sampling with the probabilities of the plan: see `draw_cohort`.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        Ranks and sampling probabilities.
    seed : int
        Root seed of the draws.
    """

    def __init__(self, problem: Problem, plan: Plan, seed: int) -> None:
        self._weight, self._plan, self._seed = problem.unbiased_weight, plan, seed

    def draw(self, round_index: int) -> Cohort:
        """Return the cohort of a round: see `Sampler.draw`."""
        return draw_cohort(self._plan, self._weight, self._seed, round_index)

    def learn(self, outcome: Outcome) -> None:
        """Do nothing: the plan is fixed."""


SAMPLERS: Mapping[str, Callable[..., Sampler]] = MappingProxyType(
    {"fedcs": Scheduled, "shi": Scheduled, "oort": Oort, "tsfa": Tsfa}
)
"""Samplers by the name of their policy, called with (problem, plan, seed) and the policy's own
parameters. A policy without an entry samples independently."""


def make_sampler(problem: Problem, plan: Plan, seed: int, **parameters: object) -> Sampler:
    """Return the sampler of a plan's policy.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        What the policy planned.
    seed : int
        Root seed of the draws.
    **parameters
        Parameters that the policy was given.

    Returns
    -------
    Sampler
    """
    if plan.policy in SAMPLERS:
        return SAMPLERS[plan.policy](problem, plan, seed, **parameters)
    return Independent(problem, plan, seed)
