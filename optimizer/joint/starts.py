"""Where searches start."""

from collections.abc import Iterator

import numpy as np

from optimizer.joint.bounds import raise_to_bounds
from optimizer.problem import Problem
from optimizer.rounds import FloatArray
from wireless.spectrum import solo_finish_time


def starts(problem: Problem) -> Iterator[FloatArray]:
    """Probabilities from which the basins of the objective are reached, all at the rank caps.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Yields
    ------
    ndarray, shape (N,)
        Everybody; a sparse cohort with q proportional to ``sqrt(A_n / T_n)``, T_n the time of the
        device alone; the middle of both; cores of the fastest quarter, half and three quarters;
        and as few as the bounds allow.
    """
    cap = problem.rank_cap
    compute_s = problem.compute_s(cap)
    alone_s = problem.overhead_s + solo_finish_time(
        problem.download_s(cap) + compute_s,
        problem.upload_bits(cap),
        problem.link,
        problem.bandwidth_hz,
    )
    everybody = np.ones(problem.devices)
    sparse = np.sqrt(problem.variance / alone_s)
    sparse = np.clip(sparse / sparse.sum(), problem.min_probability, 1.0)
    yield everybody
    yield raise_to_bounds(problem, cap, sparse)
    yield raise_to_bounds(problem, cap, np.sqrt(sparse))
    for share in (0.25, 0.5, 0.75):
        core = compute_s <= np.quantile(compute_s, share)
        yield raise_to_bounds(problem, cap, np.where(core, everybody, sparse))
    yield raise_to_bounds(problem, cap, problem.min_probability)
