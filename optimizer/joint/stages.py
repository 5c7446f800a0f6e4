"""From starts in all basins to the best plans that descent reaches."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from optimizer.joint.bounds import check_energy, raise_to_bounds
from optimizer.joint.crowd import Crowd
from optimizer.joint.deadline import in_time
from optimizer.joint.descend import (
    Ladder,
    Reached,
    cost_of,
    descend,
    every_rank,
    exchange,
    near_ranks,
    same_ranks,
)
from optimizer.joint.starts import starts
from optimizer.problem import Problem
from optimizer.rounds import Tables
from optimizer.roundtime import EXACT_DEVICES, all_cohorts
from optimizer.times.base import TimeModel
from optimizer.times.quadrature import Quadrature
from optimizer.times.sampled import Sampled
from optimizer.times.surrogate import Surrogate

#: Largest fleets that descend from all starts on the exact round time, and that start device by
#: device.
TINY_DEVICES = 5
CROWD_DEVICES = 5000

#: Late plans that are hastened where the best of all is late.
_LATE = 3


class Stage(NamedTuple):
    """One descent of the few best plans so far.

    Parameters
    ----------
    times : TimeModel
        Estimate of the round time.
    ladder : callable
        Candidate ranks of a sweep.
    plans, sweeps : int
        Most plans that descend, and sweeps of each.
    tolerance : float
        Relative gain of a sweep below which it is the last.
    """

    times: TimeModel
    ladder: Ladder
    plans: int
    sweeps: int
    tolerance: float

    def descend(self, plan: Reached) -> Reached:
        """Descend from one plan."""
        return descend(
            self.times,
            plan.rank,
            plan.probability,
            self.ladder,
            sweeps=self.sweeps,
            tolerance=self.tolerance,
        )


def search(
    problem: Problem, seed: int, limit_s: float = np.inf, rivals: Iterable[Reached] = ()
) -> list[Reached]:
    """Plans of small expected time to the target.

    Descends from all starts on an estimate that one sort evaluates, then from the best few of what
    they reach on closer ones.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws.
    limit_s : float
        Most that the expected round may last (s) by the last estimate.
    rivals : iterable of Reached
        Plans that join on the last estimate, whatever their cost says.

    Returns
    -------
    list of Reached
        At least one, the best first by the last estimate.

    Raises
    ------
    ValueError
        If a device cannot keep to its energy, or the expected round cannot be short enough.
    """
    check_energy(problem)
    plans, course = list(_begin(problem)), stages(problem, seed)
    for stage in course:
        if stage is course[-1]:
            plans += rivals
        plans = distinct(cost_of(stage.times, one.rank, one.probability) for one in plans)
        reached = [stage.descend(one) for one in plans[: stage.plans]]
        if problem.devices <= TINY_DEVICES and stage is course[-1]:
            best = min(reached, key=lambda one: one.cost_s)
            reached.append(exchange(stage.times, best))
        # Those that were left behind stay in the running: the estimate is not the rule.
        plans = distinct([*reached, *plans])
    times = stage.times
    found = [one for one in plans if one.cost_s < np.inf]
    if not found:
        raise ValueError(
            "energy_limit_j leaves no plan with min_probability, min_cohort and max_noise: give "
            "more, or relax these"
        )
    if limit_s == np.inf:
        return found
    late = [one for one in found if times.mean_s(one.rank, one.probability) > limit_s]
    kept = [one for one in found if not any(one is other for other in late)]
    if late and found[0] is late[0]:
        kept += [in_time(times, one, stage.ladder, limit_s) for one in late[:_LATE]]
    return distinct(kept)


def _begin(problem: Problem) -> Iterable[Reached]:
    """Plans in all basins: starts, or for large fleets what a crowd reaches from them."""
    cap = problem.rank_cap
    if problem.devices <= CROWD_DEVICES or isinstance(problem.rounds, Tables):
        found = [(cap, q) for q in starts(problem)]
        if problem.devices <= TINY_DEVICES:
            low = np.full_like(cap, problem.min_rank)
            middle = np.rint(np.sqrt(low * cap)).astype(np.int64)
            found += [(rank, q) for rank in (middle, low) for _, q in found[:3]]
            if problem.min_cohort > 1:
                # A bound on the cohort has minima near its corners.
                corner = np.where(all_cohorts(problem.devices), 1.0, problem.min_probability)
                found += [(cap, raise_to_bounds(problem, cap, q)) for q in corner]
        return [Reached(np.inf, rank, q) for rank, q in found]
    crowd = Crowd.of(problem)
    caps = crowd.problem.rank_cap
    reached = distinct(
        descend(crowd, caps, q, every_rank, sweeps=30, tolerance=1e-3)
        for q in starts(crowd.problem)
    )
    # Of a million devices, evaluating a second plan once costs as much as a sweep gains.
    plans = reached[: 2 if problem.devices <= 300_000 else 1]
    return [Reached(np.inf, *crowd.spread(problem, one.rank, one.probability)) for one in plans]


def stages(problem: Problem, seed: int) -> list[Stage]:
    """Descents from coarse to fine, by the size of the fleet.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws.

    Returns
    -------
    list of Stage
    """
    n = problem.devices
    if n <= TINY_DEVICES:
        # The surrogate would leave basins that the exact time does not.
        exact = Sampled.build(problem, seed)
        return [Stage(exact, every_rank, 100, 15, 1e-3), Stage(exact, every_rank, 4, 60, 1e-7)]
    rough = Stage(Surrogate(problem), every_rank, 100, 30, 1e-3)
    if n <= EXACT_DEVICES:
        return [rough, Stage(Sampled.build(problem, seed), near_ranks, 3, 60, 1e-6)]
    times = Quadrature.build(problem)
    if n > CROWD_DEVICES:
        sweeps = 3 if n <= 30_000 else 2 if n <= 300_000 else 1
        return [Stage(times, same_ranks, 1, sweeps, 1e-4)]
    few = n <= 300
    return [rough, Stage(times, near_ranks, 3 if few else 2, 20, 1e-4 if few else 3e-4)]


def distinct(plans: Iterable[Reached]) -> list[Reached]:
    """Plans by their cost, without those that cost the same as a better one.

    Parameters
    ----------
    plans : iterable of Reached
        Plans under one estimate.

    Returns
    -------
    list of Reached
        Never empty if there are plans.
    """
    kept: list[Reached] = []
    for plan in sorted(plans, key=lambda one: one.cost_s):
        if not kept or plan.cost_s > kept[-1].cost_s * (1 + 1e-3):
            kept.append(plan)
    return kept
