"""The plans of a finished run, from its `plan.csv`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from optimizer import Plan, Problem, judge
from optimizer.policies import BIASED
from sim.findings import TOLERANCE, Finding, compare_rows
from sim.planning import plan_seed
from sim.records import plan_rows
from sim.sections.policy import own_parameters
from sim.system import System
from sim.timeline import PlanRow


class BadPlan(Exception):
    """A plan on disk that breaks a bound of its problem.

    Parameters
    ----------
    findings
        What is wrong with it.
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(map(str, findings)))
        self.findings = findings


class PlansOnDisk:
    """Finds the plan that holds from a round on, and what is wrong with it.

    Parameters
    ----------
    system
        What was simulated.
    frame
        Its `plan.csv`, in the order of rounds and devices, the first plan whole.
    """

    def __init__(self, system: System, frame: pd.DataFrame) -> None:
        self._system, self._frame = system, frame
        self._wanted: list[PlanRow] = []
        self._before: Plan | None = None

    def __call__(self, problem: Problem, round_index: int) -> Plan:
        """The plan for a problem from a round on, estimated again; rounds in ascending order.

        Raises
        ------
        BadPlan
            If a rank or a probability is out of its bounds.
        """
        rows = self._frame[self._frame["round"] == round_index]
        before = self._before
        if before is None:
            rank = np.zeros(problem.devices, dtype=np.int64)
            probability = np.zeros(problem.devices)
        else:
            rank, probability = before.rank.copy(), before.probability.copy()
        device = rows["device"].to_numpy(dtype=np.int64)
        rank[device] = rows["rank"].to_numpy(dtype=np.int64)
        probability[device] = rows["probability"].to_numpy(dtype=np.float64)
        policy = self._system.scenario.policy
        wrong = tuple(_out_of_bounds(problem, rows, policy.name in BIASED))
        if wrong:
            raise BadPlan(wrong)
        seed, given = plan_seed(self._system), own_parameters(policy)
        plan = judge(problem, policy.name, rank, probability, seed, **given)
        self._wanted += plan_rows(self._system, problem, plan, round_index, before)
        self._before = plan
        return plan

    def findings(self) -> Iterator[Finding]:
        """Rows that differ from what the plans found give, once every plan has been asked for."""
        yield from compare_rows("plan.csv", self._frame, self._wanted, ["round", "device"], 0.0)


def _out_of_bounds(problem: Problem, rows: pd.DataFrame, rests: bool) -> Iterator[Finding]:
    """Ranks and probabilities of a plan within bounds; some policies let devices rest for good."""
    for line, row in rows.iterrows():
        number, n = int(str(line)) + 2, int(row["device"])
        rank, q, cap = row["rank"], row["probability"], problem.rank_cap[n]
        if not (problem.min_rank <= rank <= cap):
            least = problem.min_rank
            yield Finding("plan.csv", number, f"rank is {rank:g}, device allows {least} to {cap}")
        low = 0.0 if rests else problem.min_probability[n]
        if not low * (1 - TOLERANCE) <= q <= 1:
            yield Finding("plan.csv", number, f"probability is {q}, bounds are {low} and 1")
