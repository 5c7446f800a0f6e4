"""The plan alone: no training, no simulation."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from optimizer import Plan
from optimizer.policies import POLICIES
from sim.errors import InputError
from sim.records import plan_rows
from sim.scenario import Scenario
from sim.system import build_system, make_plan
from sim.timeline import PlanRow, columns


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan and the name it is shown under."""

    label: str
    plan: Plan


def optimize(scenario: Scenario, out: Path | None) -> list[Candidate]:
    """Plan by the scenario's policy and by every other one, all judged on the same draws.

    Parameters
    ----------
    scenario
        What to plan for.
    out
        Where to write the scenario's own plan as CSV, if anywhere.

    Raises
    ------
    InputError
        If the scenario cannot be built or `out` cannot be written.
    """
    system = build_system(scenario)
    own = scenario.policy.name
    candidates = [Candidate(f"{own} (chosen)", make_plan(system))]
    candidates += [
        Candidate(policy, make_plan(system, policy)) for policy in POLICIES if policy != own
    ]
    if out is not None:
        try:
            with out.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(columns(PlanRow))
                for row in plan_rows(system, candidates[0].plan, 1):
                    writer.writerow(dataclasses.astuple(row))
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return candidates
