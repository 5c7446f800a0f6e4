"""The plan alone: no training, no simulation."""

from __future__ import annotations

import csv
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from optimizer import Plan
from optimizer.policies import BIASED, POLICIES
from sim.bounds import broken_bound
from sim.errors import InputError
from sim.planning import make_plan, measure, with_norms
from sim.records import plan_rows
from sim.scenario import Scenario
from sim.system import System, build_system
from sim.timeline import PlanRow, columns


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy's plan, or why there is none.

    Parameters
    ----------
    label
        Name that it is shown under.
    plan
        The plan, judged on the same draws as all others; None if the policy has none.
    note
        What is to be said of it; empty if nothing.
    host_s
        Real seconds that planning took.
    """

    label: str
    plan: Plan | None
    note: str
    host_s: float


def optimize(scenario: Scenario, out: Path | None) -> list[Candidate]:
    """Plan by the scenario's policy and by every other one, all judged on the same draws.

    Parameters
    ----------
    scenario
        What to plan for.
    out
        Where to write the scenario's own plan as CSV, if anywhere.

    Returns
    -------
    list of Candidate
        The scenario's own first, with a lower bound on the optimum if one is known.

    Raises
    ------
    InputError
        If the scenario cannot be built, its own policy has no plan, or `out` cannot be written.
    """
    system = build_system(scenario)
    if scenario.policy.knowledge == "oracle":
        from sim.host import make_learner

        system = with_norms(system, measure(system, make_learner(system)))
    own = scenario.policy.name
    started = time.perf_counter()
    plan = make_plan(system, bound=True)
    candidates = [
        Candidate(f"{own} (chosen)", plan, _note(system, plan), time.perf_counter() - started)
    ]
    candidates += [_candidate(system, policy) for policy in POLICIES if policy != own]
    if out is not None:
        _write(system, plan, out)
    return candidates


def _candidate(system: System, policy: str) -> Candidate:
    """Another policy with its defaults."""
    started = time.perf_counter()
    try:
        plan = make_plan(system, policy)
    except InputError as error:
        return Candidate(policy, None, str(error), time.perf_counter() - started)
    return Candidate(policy, plan, _note(system, plan), time.perf_counter() - started)


def _note(system: System, plan: Plan) -> str:
    """What the figures of a plan do not say."""
    if plan.policy in BIASED:
        return "biased, so that no round model holds"
    broken = broken_bound(system.scenario.policy, system.problem, plan)
    return f"breaks {broken}" if broken else ""


def _write(system: System, plan: Plan, out: Path) -> None:
    """Write a plan as the first block of a run's `plan.csv`."""
    try:
        with out.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns(PlanRow))
            for row in plan_rows(system, system.problem, plan, 1):
                writer.writerow(dataclasses.astuple(row))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
