"""Everybody in every round."""

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray


def full(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:  # noqa: ARG001
    """Full participation at the rank caps.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: the policy draws nothing.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        Ones.
    """
    return problem.rank_cap, np.ones(problem.devices)
