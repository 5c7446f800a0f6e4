"""The best plan of a handful of devices, by looking at all ranks and all cohorts."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from optimizer import Problem
from optimizer.roundtime import all_cohorts
from wireless.spectrum import RULES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Points per device of the first grid of q, starts per combination of ranks, and combinations whose
#: best point is refined to the last digits.
GRID, STARTS, REFINED = 6, 2, 40


class Best(NamedTuple):
    """The least objective (s), and ranks and probabilities (N,) that have it."""

    objective_s: float
    rank: IntArray
    probability: FloatArray


def brute_force(problem: Problem) -> Best:
    """Minimise over all ranks and all probabilities, with every cohort's time exact.

    A grid of q gives every combination of ranks its starts; from them, the exact minimiser along
    one device after the other (the time is multilinear in q); then the best combinations are
    refined over all devices at once. Deadlines and limits of energy are not looked at.

    Parameters
    ----------
    problem : Problem
        At most five devices or so: C combinations of ranks cost 2^N C cohorts.

    Returns
    -------
    Best
    """
    ranks = np.array(
        list(itertools.product(*(range(problem.min_rank, k + 1) for k in problem.rank_cap)))
    )
    present = all_cohorts(problem.devices)
    time_s = cohort_times(problem, ranks, present)
    axes = [np.geomspace(low, 1.0, GRID) for low in problem.min_probability]
    grid = np.array(list(itertools.product(*axes)))
    grid = grid[grid.sum(axis=1) >= problem.min_cohort * (1 - 1e-12)]
    mean_s = time_s @ masses(problem, grid, present).T
    value = np.empty_like(mean_s)
    for i, k in enumerate(ranks):
        calm = (problem.noise_shares(k) / grid).sum(axis=1) <= problem.noise_limit * (1 + 1e-12)
        value[i] = np.where(calm, rounds(problem, k, grid) * mean_s[i], np.inf)
    first = np.argsort(value, axis=1)[:, :STARTS]
    row, start = np.repeat(np.arange(len(ranks)), first.shape[1]), first.ravel()
    met = np.isfinite(value[row, start])
    row, start = row[met], start[met]
    q, value_s = _along_each(problem, ranks[row], time_s[row], grid[start], present)
    best = Best(np.inf, ranks[0], grid[0])
    for i in np.argsort(value_s)[:REFINED]:
        found = _refine(problem, ranks[row[i]], time_s[row[i]], q[i], present)
        best = min(best, found, key=lambda one: one.objective_s)
    return best


def cohort_times(problem: Problem, ranks: IntArray, present: NDArray[np.bool_]) -> FloatArray:
    """Duration of every cohort at every combination of ranks, overhead included, (C, 2^N)."""
    rank = np.repeat(ranks, len(present), axis=0)
    members = np.tile(present, (len(ranks), 1))
    time_s = RULES[problem.allocation].round_time(
        problem.ready_s(rank, members),
        problem.upload_bits(rank),
        problem.link,
        problem.bandwidth_hz,
        members,
        problem.cell if problem.cells > 1 else None,
    )
    return np.asarray(problem.overhead_s + time_s.reshape(len(ranks), len(present)))


def masses(problem: Problem, q: FloatArray, present: NDArray[np.bool_]) -> FloatArray:
    """Probability of every cohort under every plan, (Q, 2^N)."""
    part = problem.takes_part(q)[:, None]
    return np.asarray(np.where(present, part, 1 - part).prod(axis=-1))


def rounds(problem: Problem, rank: IntArray, q: FloatArray) -> FloatArray:
    """Rounds of plans, broadcast over both, (Q,)."""
    ratio = rank / problem.rank
    return np.asarray(problem.rounds.rounds(problem.weight, problem.variance, ratio, q))


def _along_each(
    problem: Problem,
    rank: IntArray,
    time_s: FloatArray,
    q: FloatArray,
    present: NDArray[np.bool_],
    sweeps: int = 30,
) -> tuple[FloatArray, FloatArray]:
    """Minimise along one device after the other, all rows (Q, N) side by side."""
    q, limit = q.copy(), problem.noise_limit
    for _, n in itertools.product(range(sweeps), range(problem.devices)):
        ends = []
        for value in (0.0, 1.0):
            q[:, n], keep = value, q[:, n].copy()
            ends.append((masses(problem, q, present) * time_s).sum(axis=1))
            q[:, n] = keep
        others = q.sum(axis=1) - q[:, n]
        q[:, n] = 1.0
        at_one = rounds(problem, rank, q)
        q[:, n] = 0.5
        per = rounds(problem, rank, q) - at_one
        fixed, added = at_one - per, ends[1] - ends[0]
        falls = fixed * added > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            inner = np.where(falls, np.sqrt(per * ends[0] / np.where(falls, fixed * added, 1)), 1.0)
        share = problem.noise_shares(rank)
        noise = (share / q).sum(axis=1) - share[:, n] / q[:, n]
        with np.errstate(divide="ignore"):
            calm = np.where(noise < limit, share[:, n] / (limit - noise), 1.0)
        low = np.maximum(problem.min_probability[n], problem.min_cohort - others)
        low = np.maximum(low, calm)
        q[:, n] = np.clip(inner, np.minimum(low, 1.0), 1.0)
    mean_s = (masses(problem, q, present) * time_s).sum(axis=1)
    return q, rounds(problem, rank, q) * mean_s


def _refine(
    problem: Problem,
    rank: IntArray,
    time_s: FloatArray,
    q: FloatArray,
    present: NDArray[np.bool_],
) -> Best:
    """Minimise over all q at fixed ranks, from a point that is almost there."""

    def value(log_q: FloatArray) -> float:
        some = np.exp(log_q)[None]
        mean_s = float(masses(problem, some, present)[0] @ time_s)
        return float(np.log(rounds(problem, rank, some)[0] * mean_s))

    low = np.log(problem.min_probability)
    constraints = [{"type": "ineq", "fun": lambda x: np.exp(x).sum() - problem.min_cohort}]
    if problem.max_noise < np.inf:
        limit = problem.noise_limit
        constraints.append(
            {"type": "ineq", "fun": lambda x: limit - problem.noise(rank, np.exp(x))}
        )
    found = minimize(
        value,
        np.clip(np.log(q), low, 0.0),
        method="SLSQP",
        bounds=[(a, 0.0) for a in low],
        constraints=constraints,
        options={"ftol": 1e-12, "maxiter": 100},
    )
    tried = [np.log(q)]
    end = np.clip(found.x, low, 0.0)
    if np.exp(end).sum() >= problem.min_cohort * (1 - 1e-9) and (
        problem.noise(rank, np.exp(end)) <= problem.noise_limit * (1 + 1e-9)
    ):
        tried.append(end)
    least = min(tried, key=value)
    return Best(float(np.exp(value(least))), rank, np.exp(least))
