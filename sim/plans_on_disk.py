"""The plans of a finished run, from its `plan.csv`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from optimizer import Plan, Problem, judge
from optimizer.policies import BIASED
from sim.findings import MOST, TOLERANCE, Columns, Finding, compare_table
from sim.planning import plan_seed
from sim.records import plan_columns
from sim.sections.policy import own_parameters
from sim.system import System


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
        self._wanted: list[Columns] = []
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
        self._wanted.append(plan_columns(self._system, problem, plan, round_index, before))
        self._before = plan
        return plan

    def findings(self) -> Iterator[Finding]:
        """Rows that differ from what the plans found give, once every plan has been asked for."""
        if self._wanted:
            names = list(self._wanted[0])
            wanted = {name: np.concatenate([each[name] for each in self._wanted]) for name in names}
            yield from compare_table("plan.csv", self._frame, wanted, ["round", "device"])


def _out_of_bounds(problem: Problem, rows: pd.DataFrame, rests: bool) -> Iterator[Finding]:
    """Ranks and probabilities of a plan within bounds; some policies let devices rest for good."""
    device, rank = rows["device"].to_numpy(), rows["rank"].to_numpy()
    probability = rows["probability"].to_numpy()
    cap, least = problem.rank_cap[device], problem.min_rank
    for place in np.flatnonzero((rank < least) | (rank > cap))[:MOST]:
        number = int(rows.index[place]) + 2
        yield Finding(
            "plan.csv", number, f"rank is {rank[place]}, device allows {least} to {cap[place]}"
        )
    low = np.zeros(len(rows)) if rests else problem.min_probability[device]
    fits = (low * (1 - TOLERANCE) <= probability) & (probability <= 1)
    for place in np.flatnonzero(~fits)[:MOST]:
        number = int(rows.index[place]) + 2
        yield Finding(
            "plan.csv",
            number,
            f"probability is {probability[place]}, bounds are {low[place]} and 1",
        )
