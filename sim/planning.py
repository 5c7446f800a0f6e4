"""From the problem to a plan, by a policy and what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fslora.methods import Job
from optimizer import Plan, Problem, solve
from optimizer.online import full_rank_norm
from sim.bounds import broken_bound
from sim.errors import InputError
from sim.sections.policy import own_parameters
from sim.system import System
from sim.timeline import UpdateRow
from sim.updates import update_rows
from wireless import streams

if TYPE_CHECKING:
    from fslora.trainer import Learner


def plan_seed(system: System) -> int:
    """Root seed of the draws that plans are made and judged on."""
    return streams.key(system.scenario.seed, "plan")


def make_plan(
    system: System,
    policy: str | None = None,
    problem: Problem | None = None,
    bound: bool = False,
) -> Plan:
    """Plan by the scenario's policy, or by another one with its defaults.

    Parameters
    ----------
    system
        What is simulated.
    policy
        Another policy than the scenario's.
    problem
        What to plan for; by default the system as it starts.
    bound
        Whether to look for a lower bound on the optimum as well.

    Raises
    ------
    InputError
        If the method cannot train the rank that the scenario asks for, the cohort needs more
        resource blocks than there are, or the plan breaks a bound that the scenario sets; of other
        policies and later plans the bounds are not checked.
    """
    scenario = system.scenario
    own = policy is None
    parameters: dict[str, Any] = own_parameters(scenario.policy) if own else {}
    policy = policy or scenario.policy.name
    rank, method = parameters.get("rank"), system.workload.method
    if rank is not None and not method.accepts(scenario.lora.rank, rank):
        raise InputError(
            f"method.name = '{method.name}': cannot train policy.rank = {rank} of "
            f"{scenario.lora.rank}; choose method fslora or leave policy.rank out"
        )
    asked = system.problem if problem is None else problem
    try:
        plan = solve(asked, policy, plan_seed(system), bound, **parameters)
    except ValueError as error:
        raise InputError(f"policy.name = '{policy}': {error}") from None
    broken = broken_bound(scenario.policy, asked, plan) if own and problem is None else ""
    if broken:
        raise InputError(f"{broken}; give more room, or let policy joint plan")
    _check_blocks(system, asked, plan)
    return plan


def _check_blocks(system: System, problem: Problem, plan: Plan) -> None:
    """Refuse resource blocks of which there are too few for those who take part for certain."""
    radio, world = system.scenario.radio, system.world
    if radio.block_hz is None:
        return
    least_hz = radio.bandwidth_hz
    if world.band is not None:
        least_hz = float(world.band.level[world.band.level > 0].min())
    certain = problem.takes_part(plan.probability) >= 1
    together = int(np.bincount(problem.cell[certain], minlength=1).max())
    needed = 1 if radio.allocation == "time-division" else max(1, together)
    blocks = int(least_hz // radio.block_hz)
    if blocks < needed:
        raise InputError(
            f"radio.block_hz = {radio.block_hz:g}: {least_hz:g} Hz are {blocks} blocks, and "
            f"{needed} are needed; take narrower blocks, or a policy of smaller cohorts"
        )


def measure(system: System, learner: Learner) -> list[UpdateRow]:
    """What an oracle knows: the update of every device at its largest rank, before the run.

    Every device trains once from the initial state, on batches of its data drawn for this alone;
    nothing is merged, and no simulated time passes.
    """
    seed, cap = system.scenario.seed, system.problem.rank_cap
    jobs = [
        Job(n, int(cap[n]), streams.key(seed, "oracle", n), 1) for n in range(len(system.fleet))
    ]
    rows: list[UpdateRow] = []
    for first in range(0, len(jobs), learner.at_once):
        rows += update_rows(0, learner.train(jobs[first : first + learner.at_once]), None)
    return rows


def with_norms(system: System, measured: Sequence[UpdateRow]) -> System:
    """The system whose plans know the norms of these updates, one of every device."""
    rank, norm = np.array([(row.rank, row.update_norm) for row in measured]).T
    known = full_rank_norm(norm, rank / system.problem.rank)
    if not np.any(known * system.problem.weight):
        return system
    return replace(system, problem=replace(system.problem, gradient_norm=known))
