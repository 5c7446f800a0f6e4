"""From a problem to a plan."""

from dataclasses import replace

import numpy as np

from optimizer.bound import Bound, lower_bound
from optimizer.certificate import kkt_residual, smooth_times
from optimizer.plan import Certificate, Plan
from optimizer.policies import BIASED, POLICIES
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import cohort_time, expected_round_time
from optimizer.sampler import make_sampler
from wireless.streams import uniform

_BIASED_DRAWS = 256
_UNASKED = Bound(np.nan, "not asked for")


def solve(
    problem: Problem,
    policy: str = "joint",
    seed: int = 0,
    bound: bool = False,
    **parameters: object,
) -> Plan:
    """Let a policy plan, and evaluate the plan on draws that the policy has not seen.

    Parameters
    ----------
    problem : Problem
        The fleet.
    policy : str
        Name of the policy, a key of `optimizer.policies.POLICIES`.
    seed : int
        Root seed; equal seeds give equal plans.
    bound : bool
        Whether to look for a lower bound of all plans' objectives, which takes as long as planning
        or longer.
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
    return judge(problem, policy, rank, probability, seed, bound, **parameters)


def judge(
    problem: Problem,
    policy: str,
    rank: IntArray,
    probability: FloatArray,
    seed: int,
    /,
    bound: bool = False,
    **parameters: object,
) -> Plan:
    """Evaluate ranks and probabilities on draws kept for this purpose alone.

    All plans of one seed are evaluated on the same draws. Policies that average their cohorts with
    a bias get a round time, that of cohorts drawn by their own sampler before it has learnt
    anything, but no rounds and no objective: round models do not apply to them.

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
    bound : bool
        Whether to look for a lower bound of all plans' objectives, and for how far from stationary
        the probabilities are even if the policy minimises nothing over them.
    **parameters
        Parameters that the policy was given.

    Returns
    -------
    Plan
    """
    if policy in BIASED:
        return _judge_biased(problem, policy, rank, probability, seed, **parameters)
    time = expected_round_time(problem, rank, probability, seed=seed)
    rounds = problem.rounds_of(rank, probability)
    least = lower_bound(problem, rank, probability) if bound else _UNASKED
    takes_part, residual = problem.takes_part(probability), np.nan
    if bound or policy == "joint":
        residual = kkt_residual(smooth_times(problem), rank, probability)
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
            probability_empty=float(np.prod(1.0 - takes_part)),
            expected_cohort=float(takes_part.sum()),
            noise=problem.noise(rank, probability),
            kkt_residual=residual,
            bound_s=least.value_s,
            bound_note=least.note,
        ),
    )


def _judge_biased(
    problem: Problem,
    policy: str,
    rank: IntArray,
    probability: FloatArray,
    seed: int,
    /,
    **parameters: object,
) -> Plan:
    """Time the cohorts of a policy's own sampler; who does not complete costs no time."""
    unknown = Certificate(np.nan, 0, np.nan, np.nan)
    plan = Plan(policy, rank, probability, np.nan, np.nan, np.nan, unknown)
    sampler = make_sampler(problem, plan, seed, **parameters)
    time_s, size = np.empty(_BIASED_DRAWS), np.empty(_BIASED_DRAWS)
    for draw in range(_BIASED_DRAWS):
        cohort = sampler.draw(draw)
        there = (
            uniform(seed, "certificate", draw, cohort.device) < problem.completion[cohort.device]
        )
        ranks, present = rank.copy(), np.zeros((1, problem.devices), dtype=np.bool_)
        ranks[cohort.device], present[0, cohort.device[there]] = cohort.rank, True
        time_s[draw], size[draw] = cohort_time(problem, ranks, present)[0], there.sum()
    return replace(
        plan,
        expected_round_s=problem.overhead_s + float(time_s.mean()),
        certificate=Certificate(
            half_width_s=float(1.96 * time_s.std(ddof=1) / np.sqrt(_BIASED_DRAWS)),
            draws=_BIASED_DRAWS,
            probability_empty=float(np.mean(size == 0)),
            expected_cohort=float(size.mean()),
            bound_note="its cohorts are biased, so that no round model applies",
        ),
    )
