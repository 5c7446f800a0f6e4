"""Descent on an estimate of the objective, all devices at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from optimizer.joint.bounds import most_by_energy, raise_to_bounds, within
from optimizer.joint.response import respond
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import TimeModel, Toggles

_STEPS = (1.0, 0.5, 0.25, 0.1)


class Reached(NamedTuple):
    """A plan and what an estimate says it costs (s); infinite where it breaks a bound."""

    cost_s: float
    rank: IntArray
    probability: FloatArray


Ladder = Callable[[Problem, IntArray], IntArray]
"""Candidate ranks (C, N) at given ranks (N,), which are the first candidate."""


def every_rank(problem: Problem, rank: IntArray) -> IntArray:
    """All ranks that some device may take."""
    steps = np.arange(problem.min_rank, problem.rank_cap.max() + 1)
    return np.vstack([rank, np.repeat(steps[:, None], problem.devices, axis=1)])


def near_ranks(problem: Problem, rank: IntArray) -> IntArray:
    """The next rank down and up, half the rank and twice it."""
    near = np.stack([rank, rank - 1, rank + 1, rank // 2, 2 * rank])
    return np.asarray(np.clip(near, problem.min_rank, problem.rank_cap))


def same_ranks(problem: Problem, rank: IntArray) -> IntArray:  # noqa: ARG001
    """The ranks as they are."""
    return rank[None]


def cost_of(
    times: TimeModel, rank: IntArray, probability: FloatArray, price_s: float | None = None
) -> Reached:
    """Evaluate a plan after bringing it within the bounds of cohort, noise and energy.

    Parameters
    ----------
    times : TimeModel
        Estimate of the round time.
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.
    price_s : float, optional
        Price of a round (s).

    Returns
    -------
    Reached
        Its cost is rounds times round time, or ``price R + T`` if there is a price.
    """
    problem, q = times.problem, probability
    if np.isfinite(problem.energy_limit_j).any():
        # Less of everybody only shortens the round, so one cut is enough.
        found = times.toggles(rank, raise_to_bounds(problem, rank, q), rank[None])
        most = most_by_energy(problem, found, rank[None])[0]
        if np.any(most < problem.min_probability * (1 - 1e-12)):
            return Reached(np.inf, rank, q)
        q = np.minimum(q, np.maximum(most, problem.min_probability))
        q = raise_to_bounds(problem, rank, q, np.maximum(most, problem.min_probability))
    else:
        q = raise_to_bounds(problem, rank, q)
    if not within(problem, rank, q):
        return Reached(np.inf, rank, q)
    rounds, mean_s = problem.rounds_of(rank, q), times.mean_s(rank, q)
    return Reached(rounds * mean_s if price_s is None else price_s * rounds + mean_s, rank, q)


def descend(
    times: TimeModel,
    rank: IntArray,
    probability: FloatArray,
    ladder: Ladder,
    price_s: float | None = None,
    sweeps: int = 40,
    tolerance: float = 1e-4,
) -> Reached:
    """Follow the devices' responses as long as the cost falls.

    Each sweep asks all devices at once for their best rank and probability, and goes the longest
    of a few parts of the way that lowers the cost.

    Parameters
    ----------
    times : TimeModel
        Estimate of the round time.
    rank : ndarray of int, shape (N,)
        Ranks to start from.
    probability : ndarray, shape (N,)
        Sampling probabilities to start from.
    ladder : callable
        Candidate ranks of a sweep.
    price_s : float, optional
        Price of a round (s); by default the product of rounds and round time is minimised.
    sweeps : int
        Most sweeps.
    tolerance : float
        Relative gain of a sweep below which it is the last.

    Returns
    -------
    Reached
        Never above the start.
    """
    problem = times.problem
    now = cost_of(times, rank, probability, price_s)
    ranks_too = True
    for _ in range(sweeps):
        before = now
        candidate = (ladder if ranks_too else same_ranks)(problem, now.rank)
        toggles = times.toggles(now.rank, now.probability, candidate)
        now = _step(times, now, toggles, candidate, price_s)
        if now is before and len(candidate) > 1:
            # Ranks and probabilities together failed: probabilities alone.
            toggles = toggles._replace(added_s=toggles.added_s[:1])
            now = _step(times, now, toggles, candidate[:1], price_s)
        small = not now.cost_s < before.cost_s * (1 - tolerance)
        if small and ranks_too:
            break
        # Ranks cost most to ask for: they are asked again once the probabilities are at rest.
        ranks_too = small or bool(np.any(now.rank != before.rank))
    return now


def exchange(times: TimeModel, plan: Reached) -> Reached:
    """Change one rank at a time, with all probabilities chosen anew, while that helps.

    A bound on the cohort ties the devices together: a rank may pay only once others make up for
    the probability that it gives away.

    Parameters
    ----------
    times : TimeModel
        Estimate of the round time.
    plan : Reached
        Where descent has come to rest.

    Returns
    -------
    Reached
        Never above it. Costs a descent per device and rank, so it is for a handful of devices.
    """
    problem, improved = times.problem, True
    while improved:
        improved = False
        for n in range(problem.devices):
            for k in range(problem.min_rank, int(problem.rank_cap[n]) + 1):
                rank = plan.rank.copy()
                rank[n] = k
                trial = descend(times, rank, plan.probability, same_ranks, tolerance=1e-5)
                if trial.cost_s < plan.cost_s * (1 - 1e-6):
                    plan, improved = trial, True
    return plan


def _step(
    times: TimeModel,
    now: Reached,
    toggles: Toggles,
    candidate: IntArray,
    price_s: float | None,
) -> Reached:
    """Go part of the way to the responses; the plan itself where no part of it helps."""
    options = candidate.astype(np.float64)
    answer = respond(times.problem, options[0], now.probability, toggles, options, price_s)
    jumps = np.flatnonzero(answer.rank != now.rank)
    jumps = jumps[np.argsort(-answer.gain[jumps], kind="stable")]
    for step in _STEPS:
        # Shorter steps move every q less far and let fewer ranks jump, the best first.
        moved = jumps[: int(np.ceil(step * len(jumps)))]
        rank = now.rank.copy()
        rank[moved] = answer.rank[moved].astype(np.int64)
        q = now.probability * (answer.probability / now.probability) ** step
        q[moved] = answer.probability[moved]
        trial = cost_of(times, rank, q, price_s)
        if trial.cost_s < now.cost_s:
            return trial
    return now
