"""What `summary.json` states, against the scenario and the tables of a run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from optimizer import Plan
from sim.compare import cost_to
from sim.findings import Finding, close, stated
from sim.records import plan_summary
from sim.rundir import RunFiles
from sim.sections.course import Target
from sim.target import Reached, interpolate


def stated_plan(run: RunFiles, plan: Plan) -> Iterator[Finding]:
    """Figures of the first plan; its residual is next to zero where rounding is all of it."""
    found, figures = run.summary.get("plan"), plan_summary(plan)
    residual = figures.pop("kkt_residual")
    yield from stated("plan", found, figures, "plan.csv")
    told = found.get("kkt_residual") if isinstance(found, dict) else None
    if not close(told, residual, 1.0):
        message = f"plan.kkt_residual is {told}, plan.csv gives {residual}"
        yield Finding("summary.json", None, message)


def summary_as_recorded(
    run: RunFiles, rounds: pd.DataFrame, deserted: list[int]
) -> Iterator[Finding]:
    """What the run was, its totals, and why it ended follow from scenario and `rounds.csv`."""
    if not len(rounds):
        return
    scenario, stop = run.scenario, run.scenario.stop
    seen = rounds[rounds["eval_loss"].notna()]
    first, last = (seen.iloc[place] if len(seen) else None for place in (0, -1))
    end_s, target = float(rounds["end_s"].iloc[-1]), stop.target
    totals = {
        "rounds": int(rounds["round"].iloc[-1]),
        "simulated_s": end_s,
        "bytes_down": int(rounds["bytes_down"].sum()),
        "bytes_up": int(rounds["bytes_up"].sum()),
        "energy_j": float(rounds["energy_j"].sum()),
        "eval_loss_first": None if first is None else float(first["eval_loss"]),
        "eval_loss_last": None if last is None else float(last["eval_loss"]),
        "eval_metric_first": None if first is None else float(first["eval_metric"]),
        "eval_metric_last": None if last is None else float(last["eval_metric"]),
    }
    yield from stated("", run.summary, totals, "rounds.csv")
    choices = {
        "name": scenario.name,
        "seed": scenario.seed,
        "devices": scenario.fleet.devices,
        "metric": scenario.data.eval_metric,
    }
    yield from stated("", run.summary, choices, "scenario.yaml")
    aims = dict.fromkeys(Target.model_fields) if target is None else target.model_dump()
    yield from stated("target", run.summary.get("target"), aims, "scenario.yaml")
    reached = None if target is None or first is None else cost_to(run, target)
    estimated = _estimated(rounds)
    for name, when in (("reached", reached), ("estimated", estimated)):
        names = ("round", "time_s", "interpolated_s")
        wanted = {each: None if when is None else getattr(when, each) for each in names}
        yield from stated(name, run.summary.get(name), wanted, "rounds.csv")
    yield from _stops(run, rounds, deserted, [each for each in (reached, estimated) if each])


def _estimated(rounds: pd.DataFrame) -> Reached | None:
    """Where estimated progress passes the target; None if it is not estimated, or never does."""
    progress, end_s = rounds["progress"].to_numpy(), rounds["end_s"].to_numpy()
    past = np.flatnonzero(progress >= 1)
    if not len(past) or past[0] == 0:
        return None
    here = int(past[0])
    before, after = ((float(end_s[n]), float(progress[n])) for n in (here - 1, here))
    return Reached(here, after[0], interpolate(before, after, 1.0))


def _stops(
    run: RunFiles, rounds: pd.DataFrame, deserted: list[int], reached: list[Reached]
) -> Iterator[Finding]:
    """The run ends at the first round that the stop rule asks it to, and at no other."""
    stop, end_s = run.scenario.stop, rounds["end_s"].to_numpy()
    last = len(rounds) - 1
    ends = [stop.rounds, *deserted]
    if stop.simulated_s is not None:
        # Round 0 is before the start.
        ends += (np.flatnonzero(end_s[1:] >= stop.simulated_s)[:1] + 1).tolist()
    if stop.at_target:
        ends += [each.round for each in reached]
    # Without a timeline nobody knows whether the fleet was deserted.
    if min(ends) > last and run.scenario.output.timeline != "rounds":
        yield Finding("rounds.csv", None, f"ends after round {last} though nothing stops it there")
    if min(ends) < last:
        yield Finding("rounds.csv", None, f"goes on after round {min(ends)}, where it had to stop")
