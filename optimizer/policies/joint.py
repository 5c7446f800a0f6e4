"""Ranks and probabilities chosen together, device by device."""

import numpy as np

from optimizer.joint import Reached, search
from optimizer.policies.luo import luo
from optimizer.policies.mean_field import mean_field
from optimizer.policies.scale import best_scale
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import (
    EXACT_DEVICES,
    all_cohorts,
    cohort_mass,
    cohort_time,
    drawn_times,
    followed,
)
from optimizer.times.surrogate import Surrogate

#: Random numbers drawn for the final choice, also where transfers are followed from event to event,
#: and fewest and most cohorts they make up.
_NUMBERS = 500_000
_FOLLOWED = 20_000
_DRAWS = (16, 2048)

#: Largest fleet for which rivals other than full participation are planned.
_SCALED = 5000

#: Most plans in the final choice, and how much worse than the best the estimate may find them.
_CONTENDERS = 4
_CLOSE = 1.1


def joint(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:
    """Minimise the expected time to the target over ranks and probabilities.

    What the search finds competes, on common draws of cohorts under the rule in force, with full
    participation, with q in equal shares and in proportion to ``a_n G_n``, both at the scale that
    the surrogate round time prefers, and with the policies `luo` and `mean_field`.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.

    Raises
    ------
    ValueError
        If no plan is found that meets the deadline and the limits of energy.

    Notes
    -----
    Source: own derivation.
    """
    rivals, limit_s = _rivals(problem, seed), problem.deadline_s
    for _ in range(4):
        plan, mean_s = _chosen(problem, search(problem, seed, limit_s, rivals), seed)
        if not mean_s > problem.deadline_s:
            break
        # The estimate on which the search descends is short of the rule by this much.
        limit_s *= (1 - 1e-9) * problem.deadline_s / mean_s
    return plan.rank, plan.probability


def _rivals(problem: Problem, seed: int) -> list[Reached]:
    """Plans of other policies, from which the search descends too if they are good."""
    cap, everybody = problem.rank_cap, np.ones(problem.devices)
    full = Reached(np.inf, cap, everybody)
    if problem.devices > _SCALED:
        return [full]
    statistical = problem.weight * problem.gradient_norm
    shapes = everybody, np.maximum(statistical, 1e-9 * statistical.max())
    times = Surrogate(problem)
    scaled = [best_scale(problem, shape, cap, seed, times) for shape in shapes]
    relaxed = [policy(problem, seed) for policy in (luo, mean_field)]
    return [
        full,
        *(Reached(np.inf, cap, q) for q in scaled),
        *(Reached(np.inf, rank, q) for rank, q in relaxed),
    ]


def _chosen(problem: Problem, plans: list[Reached], seed: int) -> tuple[Reached, float]:
    """Best plan under the rule, and its mean round time (s), NaN if no choice needed it.

    The first plan, best by the estimate of the search, gives way only to one that is better by
    twice the standard error of their difference.
    """
    close = [plan for plan in plans[:_CONTENDERS] if plan.cost_s < _CLOSE * plans[0].cost_s]
    best, mean_s = plans[0], np.nan
    if len(close) == 1 and problem.deadline_s == np.inf:
        return best, mean_s
    least, mean_s = _objectives(problem, best, seed)
    for plan in close[1:]:
        trial, trial_s = _objectives(problem, plan, seed)
        gain = least - trial
        # Enumerated, both are single numbers.
        error = 2 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
        if gain.mean() > error and trial_s <= problem.deadline_s:
            best, least, mean_s = plan, trial, trial_s
    return best, mean_s


def _objectives(problem: Problem, plan: Reached, seed: int) -> tuple[FloatArray, float]:
    """Rounds times round time of each draw (J,), or of all cohorts at once (1,), and mean time."""
    n, q = problem.devices, problem.takes_part(plan.probability)
    rounds = problem.rounds_of(plan.rank, plan.probability)
    if n <= EXACT_DEVICES:
        present = all_cohorts(n)
        mean = float(cohort_mass(present, q) @ cohort_time(problem, plan.rank, present))
        time_s = np.array([mean])
    else:
        draws = int(np.clip((_FOLLOWED if followed(problem) else _NUMBERS) // n, *_DRAWS))
        if np.all(q == 1.0):
            everybody = np.ones((1, n), dtype=np.bool_)
            mean = float(cohort_time(problem, plan.rank, everybody)[0])
            return np.full(draws, rounds * (problem.overhead_s + mean)), problem.overhead_s + mean
        time_s = drawn_times(problem, plan.rank, q, seed, "choice", draws)
    return rounds * (problem.overhead_s + time_s), problem.overhead_s + float(time_s.mean())
