"""Whether a plan keeps the bounds that a scenario sets, whichever policy made it.

The joint policy plans within them; others may take no notice.
"""

from __future__ import annotations

import numpy as np

from optimizer import Plan, Problem
from optimizer.certificate import smooth_times
from optimizer.joint.bounds import most_by_energy
from optimizer.policies import BIASED
from optimizer.sampler import SAMPLERS
from sim.sections.policy import PolicyChoice

#: What two estimates of the same round time may differ by.
_ESTIMATES = 0.01


def broken_bound(choice: PolicyChoice, problem: Problem, plan: Plan) -> str:
    """The first bound that a plan breaks, with its value and by how much; empty if none.

    Parameters
    ----------
    choice
        The scenario's policy, which sets the bounds.
    problem
        What the plan answers.
    plan
        The plan.
    """
    slack = 1 + _ESTIMATES
    # Samplers that cut ranks as they go keep round times by themselves.
    cuts_ranks = plan.policy in SAMPLERS and plan.policy not in BIASED
    least_s = plan.expected_round_s - plan.certificate.half_width_s
    if not cuts_ranks and least_s > problem.deadline_s * slack:
        return (
            f"policy.deadline_s = {problem.deadline_s:g}: rounds of policy {plan.policy} last "
            f"{plan.expected_round_s:.4g} s on average"
        )
    share = problem.takes_part(plan.probability)
    wanted = choice.min_participation
    if wanted is not None and share.min() < wanted * (1 - 1e-9):
        rare = int(np.argmin(share))
        return (
            f"policy.min_participation = {wanted:g}: device {rare} completes {share[rare]:.4g} of "
            f"the rounds of policy {plan.policy}"
        )
    if choice.energy_limit_j is not None:
        rank = plan.rank.astype(np.float64)
        toggles = smooth_times(problem).toggles(rank, plan.probability, rank[None])
        most = most_by_energy(problem, toggles, rank[None])[0]
        spends = plan.probability / most
        if spends.max() > slack:
            hungry = int(np.argmax(spends))
            return (
                f"policy.energy_limit_j = {choice.energy_limit_j:g}: device {hungry} spends "
                f"{spends[hungry]:.4g} times as much under policy {plan.policy}"
            )
    return ""
