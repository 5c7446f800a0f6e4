"""Checks on recorded evaluations: made when due, and possible at all."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from fslora.data import Examples
from fslora.tasks import METRICS
from sim.findings import Finding, close, stated, where
from sim.system import System


def evaluations(system: System, rounds: pd.DataFrame) -> Iterator[Finding]:
    """The model is evaluated when the scenario says, and loss and metric tell the same story."""
    scenario = system.scenario
    if scenario.training.timing_only:
        evaluated = rounds[["eval_loss", "eval_metric"]].notna().any(axis=1).to_numpy()
        yield from where("rounds.csv", rounds, evaluated, "round {round}: evaluation is unexpected")
        return
    held_out = system.workload.dataset.held_out
    last = len(rounds) - 1
    for number in range(len(rounds)):
        loss, metric = rounds["eval_loss"].iloc[number], rounds["eval_metric"].iloc[number]
        due = number in (0, last) or number % scenario.output.evaluate_every == 0
        if pd.isna(loss) == due or pd.isna(metric) == due:
            word = "missing" if due else "unexpected"
            yield Finding("rounds.csv", number + 2, f"round {number}: evaluation is {word}")
        elif due:
            wrong = _impossible(scenario.data.eval_metric, metric, loss, held_out)
            if wrong is not None:
                yield Finding(
                    "rounds.csv", number + 2, f"round {number}: eval_metric is {metric}, {wrong}"
                )


def final_metrics(system: System, summary: Mapping[str, Any]) -> Iterator[Finding]:
    """All metrics of the last evaluation are there, and can be together with its loss."""
    data = system.scenario.data
    if system.scenario.training.timing_only:
        nothing = dict.fromkeys(("eval_metrics_last", "eval_loss_last", "eval_metric_last"))
        yield from stated("", summary, nothing, "a run without training")
        return
    recorded, loss = summary.get("eval_metrics_last"), summary.get("eval_loss_last")
    found = recorded if isinstance(recorded, dict) else {}
    if set(found) != set(METRICS[data.task]):
        yield Finding(
            "summary.json", None, f"eval_metrics_last must hold {', '.join(METRICS[data.task])}"
        )
        return
    if not isinstance(loss, int | float):
        return
    for name, value in found.items():
        wrong = (
            "expected a number"
            if not isinstance(value, int | float)
            else _impossible(name, value, loss, system.workload.dataset.held_out)
        )
        if wrong is not None:
            yield Finding("summary.json", None, f"eval_metrics_last.{name} is {value}, {wrong}")
    chosen = {"eval_metric_last": found[data.eval_metric]}
    yield from stated("", summary, chosen, f"eval_metrics_last.{data.eval_metric}")


def _impossible(name: str, value: float, loss: float, held_out: Examples) -> str | None:
    """What a metric cannot be for, measured with this loss on these examples; None if it can."""
    tokens = int((held_out.length - held_out.prompt).sum())
    # The same nats per byte of text and per predicted token.
    of_loss = {
        "bits_per_byte": loss * tokens / int(held_out.predicted_bytes.sum()) / math.log(2),
        "perplexity": math.exp(min(loss, math.log(sys.float_info.max))),
    }
    if name in of_loss:
        wanted = of_loss[name]
        return None if close(value, wanted) else f"eval_loss {loss} gives {wanted}"
    count, least = len(held_out), -1.0 if name == "matthews" else 0.0
    if not least <= value <= 1.0:
        return f"expected {least:g} to 1"
    if name in ("accuracy", "exact_match") and not close(value * count, round(value * count), 1.0):
        return f"not a share of {count} examples"
    return None
