"""From a problem to a plan."""

import numpy as np

from optimizer.plan import Certificate, Plan
from optimizer.policies import POLICIES
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import expected_round_time


def solve(problem: Problem, policy: str = "joint", seed: int = 0, **parameters: object) -> Plan:
    """Let a policy plan, and evaluate the plan on draws that the policy has not seen.

    Parameters
    ----------
    problem : Problem
        The fleet.
    policy : str
        Name of the policy, a key of `optimizer.policies.POLICIES`.
    seed : int
        Root seed; equal seeds give equal plans.
    **parameters
        Parameters of the policy.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If the policy is unknown or refuses a parameter's value.
    TypeError
        If the policy has no such parameter.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy is {policy!r}: give one of {', '.join(POLICIES)}")
    rank, probability = POLICIES[policy](problem, seed, **parameters)
    return judge(problem, policy, rank, probability, seed)


def judge(
    problem: Problem, policy: str, rank: IntArray, probability: FloatArray, seed: int
) -> Plan:
    """Evaluate ranks and probabilities on draws kept for this purpose alone.

    Parameters
    ----------
    problem : Problem
        The fleet.
    policy : str
        Name of the policy that chose them.
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.
    seed : int
        Root seed of the draws.

    Returns
    -------
    Plan
    """
    time = expected_round_time(problem, rank, probability, seed=seed)
    rounds = problem.rounds_of(rank, probability)
    return Plan(
        policy=policy,
        rank=rank,
        probability=probability,
        expected_round_s=time.mean_s,
        rounds=rounds,
        objective_s=rounds * time.mean_s,
        certificate=Certificate(
            half_width_s=time.half_width_s,
            draws=time.draws,
            probability_empty=float(np.prod(1.0 - problem.takes_part(probability))),
            expected_cohort=float(problem.takes_part(probability).sum()),
        ),
    )
