"""Plans whose rounds end in time."""

import numpy as np

from optimizer.joint.bounds import raise_to_bounds
from optimizer.joint.descend import Ladder, Reached, cost_of, descend
from optimizer.times.base import TimeModel

_HALVINGS = 16


def in_time(
    times: TimeModel, late: Reached, ladder: Ladder, limit_s: float, sweeps: int = 20
) -> Reached:
    """Minimise rounds times round time over the plans whose expected round is short enough.

    The price of a round, which weighs rounds against round time, is lowered by bisection until the
    limit is met; between the last two plans the rest of the way is gone at fixed ranks.

    Parameters
    ----------
    times : TimeModel
        Estimate of the round time.
    late : Reached
        A plan that minimises the product but takes longer.
    ladder : callable
        Candidate ranks of a sweep.
    limit_s : float
        Most that the expected round may last (s), overhead included.
    sweeps : int
        Most sweeps of each descent.

    Returns
    -------
    Reached
        With the product as its cost.

    Raises
    ------
    ValueError
        If no plan that was found is short enough; the message says how short the shortest is.

    Notes
    -----
    Source: own derivation.
    """
    problem = times.problem

    def at(price_s: float, start: Reached) -> tuple[Reached, float]:
        plan = descend(times, start.rank, start.probability, ladder, price_s, sweeps)
        return plan, times.mean_s(plan.rank, plan.probability)

    lowest = np.full_like(problem.rank_cap, problem.min_rank)
    least = raise_to_bounds(problem, lowest, problem.min_probability)
    soon, soon_s = at(0.0, Reached(np.inf, lowest, least))
    if not soon_s <= limit_s:
        raise ValueError(
            f"deadline_s is {problem.deadline_s:g}: the shortest expected round found lasts "
            f"{soon_s:.6g} s; give more, or relax min_probability, min_cohort, max_noise or "
            "overhead_s"
        )
    best = cost_of(times, soon.rank, soon.probability)
    high = times.mean_s(late.rank, late.probability) / problem.rounds_of(
        late.rank, late.probability
    )
    low = 1e-9 * high
    for _ in range(_HALVINGS):
        # From the far end first by decades, then by halves.
        price_s = float(np.sqrt(low * high))
        plan, mean_s = at(price_s, late)
        if mean_s > limit_s:
            plan, mean_s = at(price_s, soon)
        if mean_s > limit_s:
            high, late = price_s, plan
            continue
        low, soon = price_s, plan
        best = min(best, cost_of(times, plan.rank, plan.probability), key=lambda one: one.cost_s)
    return min(best, _fill(times, best, late, limit_s), key=lambda one: one.cost_s)


def _fill(times: TimeModel, soon: Reached, late: Reached, limit_s: float) -> Reached:
    """Go from a plan in time towards one that is late, at the ranks of the first."""
    best, low, high = soon, 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        q = soon.probability * (late.probability / soon.probability) ** middle
        trial = cost_of(times, soon.rank, q)
        if times.mean_s(trial.rank, trial.probability) > limit_s:
            high = middle
            continue
        low = middle
        best = min(best, trial, key=lambda one: one.cost_s)
    return best
