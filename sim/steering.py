"""Which plan is in force, whom it draws, and when another takes its place.

A running co-simulation and its verification both steer by this: the one makes the plans that are
called for, the other reads them from the run's files.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optimizer import Cohort, Plan, Problem
from optimizer.control import Controller, Reason, Renewal
from optimizer.outcome import Outcome
from optimizer.policies import BIASED
from optimizer.sampler import make_sampler
from sim.sections.policy import own_parameters
from sim.system import System, problem_at
from wireless.channel import LEAST_PROBABILITY


class Renew(Protocol):
    """Makes, or finds, the plan for a problem from a round on."""

    def __call__(self, problem: Problem, round_index: int) -> Plan:
        """Return the plan."""
        ...


class Steering:
    """Draws cohorts by the plan in force, and takes another when the scenario calls for one.

    Parameters
    ----------
    system
        What is simulated.
    plan
        The first plan.
    renew
        Where later plans come from; None if there is only one.

    Attributes
    ----------
    plan, problem
        The plan in force, and the problem it answers.
    plans
        How many there were.
    planning_s
        Simulated time that the plan in force still has to be charged with.
    """

    def __init__(self, system: System, plan: Plan, renew: Renew | None = None) -> None:
        self._system, self._renew = system, renew
        policy = system.scenario.policy
        self.plans, self.planning_s = 0, 0.0
        # Ranks that devices have left themselves, once some have pruned.
        self._most: NDArray[np.int64] | None = None
        self._controller = None
        if policy.replan is not None:
            self._controller = Controller(
                system.problem,
                Renewal(policy.replan.every, policy.replan.drift),
                policy.knowledge == "estimated",
                _target_loss(system),
            )
        self._follow(plan, system.problem, system.fleet.channel.start.sends_probability)

    @property
    def queue_s(self) -> float | None:
        """Virtual queue of the sampler after the last round, if it keeps one (s)."""
        return getattr(self._sampler, "queue_s", None)

    def draw(self, round_index: int) -> Cohort:
        """Cohort of a round; rounds are drawn one after the other."""
        cohort = self._sampler.draw(round_index)
        if self._most is None:
            return cohort
        return replace(cohort, rank=np.minimum(cohort.rank, self._most[cohort.device]))

    def corrected(
        self, device: NDArray[np.int64], weight: NDArray[np.float64], sends: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights (M,) for the chance of sending from where the devices are, not from where the
        plan took them to be.

        A device that has moved sends with another probability, and its weight is divided by that
        one. Policies that average their cohorts divide by no probability.

        Parameters
        ----------
        device, weight
            (M,) the cohort.
        sends
            (M,) probabilities that fading lets them send now.
        """
        if self.plan.policy in BIASED:
            return weight
        return weight * self._sends[device] / np.maximum(sends, LEAST_PROBABILITY)

    def evaluated(self, loss: float) -> None:
        """Take note of the loss after a round, nan if it was not evaluated."""
        if self._controller is not None and math.isfinite(loss):
            self._controller.evaluated(loss)

    def learn(self, outcome: Outcome) -> None:
        """Take note of how a round ended."""
        self.planning_s = 0.0
        self._sampler.learn(outcome)
        if outcome.rank_kept is not None:
            if self._most is None:
                self._most = np.full(len(self._system.fleet), self._system.scenario.lora.rank)
            self._most[outcome.device] = outcome.rank_kept
        if self._controller is not None:
            self._controller.learn(outcome)

    def renew(self, round_index: int, time_s: float) -> Reason | None:
        """Take another plan from a round on, if one is due; tell why.

        Parameters
        ----------
        round_index
            The first round that a new plan is for.
        time_s
            Simulated time now.
        """
        if self._controller is None or self._renew is None:
            return None
        reason = self._controller.due
        if reason is None:
            return None
        problem, state = problem_at(self._system, time_s)
        problem = self._controller.informed(problem)
        self._follow(self._renew(problem, round_index), problem, state.sends_probability)
        replan = self._system.scenario.policy.replan
        assert replan is not None
        self.planning_s = replan.cost_s
        return reason

    def known(self) -> str:
        """What the rounds so far have taught, in words; empty if nothing is estimated."""
        if self._controller is None or self._system.scenario.policy.knowledge != "estimated":
            return ""
        norms, pace = self._controller.norms(), self._controller.pace()
        seen = norms.observations > 0
        text = f"norms of {seen.sum()} of {len(seen)} devices"
        if seen.any():
            width = np.sqrt(norms.high[seen] / norms.low[seen])
            text += (
                f", {norms.norm[seen].min():.3g} to {norms.norm[seen].max():.3g} of their mean, "
                f"each within a factor of {np.median(width):.3g}"
            )
        if math.isfinite(pace.high):
            text += f"; rounds {pace.factor:.3g} [{pace.low:.3g}, {pace.high:.3g}] of the model's"
        return text

    def _follow(self, plan: Plan, problem: Problem, sends: NDArray[np.float64]) -> None:
        """Take a plan for a problem in which devices send with some probabilities (N,)."""
        scenario = self._system.scenario
        self.plan, self.problem, self._sends = plan, problem, np.maximum(sends, LEAST_PROBABILITY)
        self._sampler = make_sampler(
            problem, plan, scenario.seed, **own_parameters(scenario.policy)
        )
        self.plans += 1
        if self._controller is not None:
            self._controller.adopt(plan, problem)


def _target_loss(system: System) -> float | None:
    """Evaluated loss that the run aims at, if its target is one."""
    target = system.scenario.stop.target
    return target.value if target is not None and target.metric == "eval_loss" else None
