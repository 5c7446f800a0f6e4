"""Ranks and probabilities chosen together, device by device."""

import numpy as np

from optimizer.joint import descend_surrogate, polish, starts
from optimizer.policies.uniform import best_common_probability
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.tabulated import TabulatedRoundTime

_FINALISTS = 3


def joint(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:
    """Minimise the expected time to the target over ranks and probabilities.

    Descends on the surrogate from several starts, then on the sampled objective from the best few
    of what they reach, of full participation and of the best common probability; so on its own
    draws it is never worse than these two baselines.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws that the descent uses.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.

    Notes
    -----
    Source: own derivation.
    """
    table = TabulatedRoundTime.build(problem, seed)
    cap = problem.rank_cap
    reached = [descend_surrogate(problem, start) for start in starts(problem)]
    reached.append((cap, np.ones(problem.devices)))
    reached.append((cap, np.full(problem.devices, best_common_probability(table, cap))))
    cost = [table.objective_s(table.need_hz(rank), rank, q) for rank, q in reached]
    finalists: list[int] = []
    for i in np.argsort(cost, kind="stable"):
        # Starts that reached the same plan are polished once.
        if all(abs(cost[i] / cost[j] - 1) > 1e-3 for j in finalists):
            finalists.append(int(i))
    polished = [polish(table, *reached[i]) for i in finalists[:_FINALISTS]]
    _, rank, q = min(polished, key=lambda plan: plan[0])
    return rank, q
