"""Pilots: short trainings under given plans, to see how many rounds each takes to the target.

Only the learning is run. Nothing takes simulated time, everybody who is sampled completes, and a
pilot's sampling probabilities are therefore those of contributing to a round, c_n q_n of a plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Job
from fslora.trainer import Diverged, Learner
from sim.errors import InputError
from sim.host import make_learner
from sim.system import System
from sim.target import TargetWatch
from wireless import streams

#: A loss so many times the first is not coming back.
_LOST = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A plan to be tried.

    Parameters
    ----------
    label
        What tells it apart.
    rank
        (N,) ranks.
    probability
        (N,) probabilities of contributing to a round.
    """

    label: str
    rank: NDArray[np.int64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Took:
    """What one pilot took.

    Parameters
    ----------
    counted
        Rounds until the evaluated metric crossed the target, on the line between evaluations; nan
        if it did not, or training diverged.
    rounds
        The same event on a clock that a round moves by the sum of its aggregation weights v_n.
        That sum is one on average, so by Wald's identity both clocks have the same mean; but a
        round teaches as much as its weights weigh, and most of the luck of the draw cancels.
    curve
        (E, 3) rounds, sum of the weights, and held-out loss at each evaluation.
    lost
        Whether training diverged, or the loss rose to where it does not come back from.
    """

    counted: float
    rounds: float
    curve: NDArray[np.float64]
    lost: bool


#: Shares of the global rank and expected cohorts of the pilots, in plans that are alike for all
#: devices, or for either half of them. Low ranks go with larger cohorts: alone, a device of low
#: rank and large weight moves the adapter further than the loss can bear. The second row looks for
#: where that begins, the third is as sparse as good plans are: a model fitted to larger cohorts
#: alone would promise too much there.
_ALIKE = (
    *((5, 1.0), (2.5, 1.0), (5, 0.25), (2.5, 0.5), (10, 1.0), (10, 0.125), (10, 0.5)),
    *((2.5, 0.25), (2.5, 0.125)),
    *((1.25, 1.0), (1.25, 0.5), (0.6, 1.0)),
)
_HALVES = ((5, 1.0, 0.125), (2.5, 1.0, 0.25))
#: Expected cohorts, decades over which probabilities spread, and the ranks' shares from the most to
#: the least often sampled fifth.
_SPREAD = (
    (5, 1, (1.0,) * 5),
    (5, 1, (1.0, 0.75, 0.5, 0.375, 0.25)),
    (5, 1, (0.125, 0.25, 0.5, 1.0, 1.0)),
    (2.5, 2, (1.0,) * 5),
)
#: The least that varies all that is fitted, with plans to spare.
_QUICK = (
    "cohort 5, k/r 1",
    "cohort 5, k/r 0.25",
    "cohort 2.5, k/r 1",
    "cohort 10, k/r 0.125",
    "cohort 2.5, k/r 0.25",
    "cohort 1.25, k/r 1",
    "cohort 5, k/r 1 and 0.125",
    "cohort 5 over 1 decade, k/r 1 to 0.25",
)


def design(system: System, quick: bool = False) -> tuple[Trial, ...]:
    """Plans that vary probabilities and ranks, mixed ones among them.

    Ranks are kept to what each device can hold and the method can train; plans that this makes
    equal are tried once.

    Parameters
    ----------
    system
        The scenario. Which devices belong together follows from its seed.
    quick
        Whether to try no more plans than a fit needs.
    """
    problem, method = system.problem, system.workload.method
    devices, rank = problem.devices, problem.rank
    known = np.array([k for k in range(1, rank + 1) if method.accepts(rank, k)])
    order = np.argsort(streams.uniform(system.scenario.seed, "pilot order", np.arange(devices)))
    place = np.argsort(order)

    def trial(label: str, cohort: float, ratio: NDArray[np.float64], decades: float = 0) -> Trial:
        wanted = np.minimum(ratio * rank, problem.rank_cap)
        ranks = known[np.maximum(np.searchsorted(known, wanted, side="right") - 1, 0)]
        shape = 10.0 ** -(decades * place / max(devices - 1, 1))
        return Trial(label, ranks, np.minimum(1.0, shape * cohort / shape.sum()))

    trials = [trial(f"cohort {m:g}, k/r {x:g}", m, np.full(devices, x)) for m, x in _ALIKE]
    trials += [
        trial(f"cohort {m:g}, k/r {x:g} and {y:g}", m, np.where(place % 2, x, y))
        for m, x, y in _HALVES
    ]
    trials += [
        trial(
            f"cohort {m:g} over {d:g} decade{'s' if d > 1 else ''}, k/r {x[0]:g} to {x[-1]:g}",
            m,
            np.array(x)[place * len(x) // devices],
            d,
        )
        for m, d, x in _SPREAD
    ]
    distinct: dict[bytes, Trial] = {}
    for each in trials:
        if not quick or each.label in _QUICK:
            distinct.setdefault(each.rank.tobytes() + each.probability.tobytes(), each)
    return tuple(distinct.values())


def run_pilot(system: System, trial: Trial) -> Took:
    """Train under a plan until the scenario's target is met, at most for `stop.rounds`.

    Cohorts and jobs have the draws that they have in a run of the scenario.

    Raises
    ------
    InputError
        If there is no target, or it is met before training.
    """
    scenario, data = system.scenario, system.scenario.data
    target, last = scenario.stop.target, scenario.stop.rounds
    if target is None:
        raise InputError("stop.target: missing; give what the rounds are to be counted to")
    by_count, by_weight = TargetWatch(target, data.task), TargetWatch(target, data.task)
    learner = make_learner(system)
    dispatched = np.zeros(len(trial.rank), dtype=np.int64)
    weighed, curve, lost = 0.0, np.empty((0, 3)), False
    for number in range(last + 1):
        try:
            if number > 0:
                weighed += _round(system, trial, learner, number, dispatched)
            if number % scenario.output.evaluate_every and number < last:
                continue
            seen = learner.evaluate()
        except Diverged:
            lost = True
            break
        curve = np.vstack([curve, (number, weighed, seen.loss)])
        for watch, clock in ((by_count, float(number)), (by_weight, weighed)):
            watch.see(number, clock, seen.loss, seen.metrics[data.eval_metric])
        if by_count.reached is not None:
            if number == 0:
                raise InputError(
                    f"stop.target.value = {target.value:g}: met before training; give one that "
                    "takes rounds to reach"
                )
            break
        if seen.loss > _LOST * curve[0, 2]:
            lost = True
            break
    return Took(_when(by_count), _when(by_weight), curve, lost)


def _round(
    system: System, trial: Trial, learner: Learner, number: int, dispatched: NDArray[np.int64]
) -> float:
    """Draw a cohort, train and merge it; the sum of its aggregation weights."""
    seed, device = system.scenario.seed, np.arange(len(trial.rank))
    cohort = device[streams.uniform(seed, "cohort", number, device) < trial.probability]
    weight = system.workload.weight[cohort] / trial.probability[cohort]
    jobs = [
        Job(int(n), int(trial.rank[n]), streams.key(seed, "job", int(n), int(m)), number)
        for n, m in zip(cohort, dispatched[cohort], strict=True)
    ]
    learner.aggregate(learner.train(jobs), weight.tolist())
    dispatched[cohort] += 1
    return float(weight.sum())


def _when(watch: TargetWatch) -> float:
    """Where the watch's clock stood at the target; nan if it was not met."""
    return math.nan if watch.reached is None else watch.reached.interpolated_s
