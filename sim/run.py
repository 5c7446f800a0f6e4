"""One co-simulation, from scenario to run directory."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fslora.evaluate import Evaluation
from fslora.models import ModelError
from fslora.peft_io import save_adapter
from fslora.trainer import Diverged, Learner
from optimizer import Plan, Problem
from sim.errors import InputError, Interrupted, RunError
from sim.host import host_device, make_learner
from sim.network import Network
from sim.planning import make_plan, measure, with_norms
from sim.progress import Step
from sim.records import Records, new_folder, plan_summary
from sim.scenario import Scenario
from sim.schedules import SCHEDULES, Finished
from sim.steering import Steering
from sim.system import System, build_system
from sim.target import TargetWatch
from sim.timeline import HostRow, Interval, Round, Spectrum, UpdateRow
from sim.updates import outcome, train_loss, update_rows

_PACKAGES = ("fslora-sim", "torch", "transformers", "peft", "numpy", "scipy", "simpy")


class Stopwatch:
    """Real seconds by part of the program; never read by the simulation."""

    def __init__(self) -> None:
        self.total: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as part `name`; a part inside another is not counted twice."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def rows(self, round_index: int) -> list[HostRow]:
        """What was timed since the last call."""
        self._settle()
        rows = [HostRow(round_index, name, seconds) for name, seconds in self._pending.items()]
        self._pending = {}
        return rows

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._running:
            name, seconds = self._running[-1], now - self._since
            self.total[name] = self.total.get(name, 0.0) + seconds
            self._pending[name] = self._pending.get(name, 0.0) + seconds
        self._since = now


class Run:
    """The state of a running co-simulation: learns from each simulated round and records it."""

    def __init__(
        self,
        system: System,
        steering: Steering,
        learner: Learner,
        records: Records,
        watch: Stopwatch,
        tell: Callable[[Step], None],
    ) -> None:
        self._system = system
        self._steering = steering
        self._learner = learner
        self._records = records
        self._watch = watch
        self._tell = tell
        self.target = TargetWatch(system.scenario.stop.target, system.scenario.data.task)
        self._metric = system.scenario.data.eval_metric
        self.first: Evaluation | None = None
        self.last = Evaluation(float("nan"), {})
        self.totals = {"rounds": 0, "bytes_down": 0, "bytes_up": 0}
        self.time_s = 0.0
        self.energy_j = 0.0

    def begin(self) -> bool:
        """Evaluate and record the state before training, round 0; tell whether to go on."""
        self.first = self._evaluate(0, 0.0)
        self._write(
            Round(
                0,
                0.0,
                0.0,
                0.0,
                eval_loss=self.first.loss,
                eval_metric=self.first.metrics[self._metric],
            )
        )
        return not (self._system.scenario.stop.at_target and self.target.reached is not None)

    def learn(self, done: Finished) -> bool:
        """Train the cohort of a simulated round, aggregate, record; tell whether to go on."""
        opened, steering = done.opened, self._steering
        number, weight = opened.round, opened.cohort.weight
        rows: list[UpdateRow] = []
        if opened.jobs:
            with self._watch.part("train"):
                updates = self._learner.train(opened.jobs)
                self._learner.aggregate(updates, weight.tolist())
                rows = update_rows(number, updates, weight)
        stop, expected_s = self._system.scenario.stop, steering.plan.expected_round_s
        self.time_s = done.end_s
        steering.learn(outcome(self._system, opened, rows))
        last = (
            done.deserted
            or number >= stop.rounds
            or (stop.simulated_s is not None and done.end_s >= stop.simulated_s)
        )
        if done.deserted:
            self._records.log(f"round {number}: nobody will take part again, the run ends here")
        evaluation = None
        if last or number % self._system.scenario.output.evaluate_every == 0:
            evaluation = self._evaluate(number, done.end_s)
            last = last or (stop.at_target and self.target.reached is not None)
        down, up, energy = self._records.round_totals()
        self.totals["rounds"] = number
        self.totals["bytes_down"] += down
        self.totals["bytes_up"] += up
        self.energy_j += energy
        with self._watch.part("write"):
            for row in rows:
                self._records.update(row)
        self._write(
            Round(
                number,
                done.start_s,
                done.end_s,
                done.end_s - done.start_s,
                expected_s,
                done.cohort_s,
                opened.sampled,
                len(opened.jobs),
                down,
                up,
                energy,
                train_loss(rows),
                None if evaluation is None else evaluation.loss,
                None if evaluation is None else evaluation.metrics[self._metric],
                steering.queue_s,
            )
        )
        if not last:
            self._renew(number + 1)
        return not last

    def _renew(self, round_index: int) -> None:
        """Take another plan from a round on, if one is due, and write what it changes."""
        steering, before = self._steering, self._steering.plan
        with self._watch.part("plan"):
            reason = steering.renew(round_index, self.time_s)
            if reason is None:
                return
            self._records.plan(steering.problem, steering.plan, round_index, before)
            self._records.log(
                f"round {round_index}: plan {steering.plans}, by policy.replan.{reason}; "
                f"rounds of {steering.plan.expected_round_s:.6g} s expected"
            )
            known = steering.known()
            if known:
                self._records.log(f"round {round_index}: {known}")

    def _evaluate(self, round_index: int, time_s: float) -> Evaluation:
        with self._watch.part("evaluate"):
            self.last = self._learner.evaluate()
        self.target.see(round_index, time_s, self.last.loss, self.last.metrics[self._metric])
        self._steering.evaluated(self.last.loss)
        self._records.log(
            f"round {round_index}: {time_s:.3f} s simulated, held-out loss {self.last.loss:.4f}"
        )
        return self.last

    def _write(self, row: Round) -> None:
        with self._watch.part("write"):
            self._records.round(row)
        for host in self._watch.rows(row.round):
            self._records.host(host)
        stop = self._system.scenario.stop
        done = row.round / stop.rounds
        if stop.simulated_s is not None:
            done = max(done, row.end_s / stop.simulated_s)
        self._tell(Step(row.round, min(done, 1.0), row.end_s, self.last.loss))


def run(
    scenario: Scenario,
    out: Path,
    tell: Callable[[Step], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a scenario and write its directory.

    Nothing is written before data, model and plan are known to be good.

    Parameters
    ----------
    scenario
        What to run.
    out
        Folder to write; must not exist or be empty.
    tell
        Called after each round.

    Returns
    -------
    dict
        What `summary.json` holds.

    Raises
    ------
    InputError
        If the scenario cannot be run.
    RunError
        If training produced values that are not finite; the files so far are left.
    """
    watch = Stopwatch()
    # The device is part of what a run must repeat, so the resolved scenario names the one in use.
    device = host_device(scenario.training.device)
    training = scenario.training.model_copy(update={"device": device})
    scenario = scenario.model_copy(update={"training": training})
    with watch.part("build"):
        system = build_system(scenario)
    learner, measured = None, []
    if scenario.policy.knowledge == "oracle":
        with watch.part("build"):
            learner = make_learner(system)
        with watch.part("plan"):
            measured = measure(system, learner)
            system = with_norms(system, measured)
    with watch.part("plan"):
        plan = make_plan(system)
    if learner is None:
        with watch.part("build"):
            learner = make_learner(system)
    records = Records(new_folder(out), system)
    try:
        with watch.part("plan"):
            records.plan(system.problem, plan, 1)
        with watch.part("write"):
            records.labels()
            for row in measured:
                records.update(row)
        steering = Steering(system, plan, partial(_renewed, system))
        state = Run(system, steering, learner, records, watch, tell)
        try:
            with watch.part("simulate"):
                _co_simulate(system, steering, state, records, watch)
        except (Diverged, ModelError, RunError) as error:
            records.log(f"stopped: {error}")
            raise RunError(f"{error}; files so far are in {out}") from None
        except KeyboardInterrupt:
            records.log("interrupted")
            raise Interrupted(
                f"interrupted after round {state.totals['rounds']}; files so far are in {out}"
            ) from None
        finally:
            records.devices()
        summary = _summary(system, plan, steering, state, watch)
        records.summary(summary)
        adapter = out / "adapter"
        adapter.mkdir()
        save_adapter(
            adapter,
            learner.model.model,
            learner.model.layout,
            learner.lora,
            learner.adapter,
            scenario.data.task,
        )
    finally:
        records.close()
    return summary


def _renewed(system: System, problem: Problem, round_index: int) -> Plan:
    """Another plan by the scenario's policy, from a round on."""
    try:
        return make_plan(system, problem=problem)
    except InputError as error:
        raise RunError(f"there is no plan from round {round_index} on: {error}") from None


def _co_simulate(
    system: System, steering: Steering, state: Run, records: Records, watch: Stopwatch
) -> None:
    """Run the schedule until the stop rule holds."""

    def on_interval(row: Interval) -> None:
        with watch.part("write"):
            records.interval(row)

    def on_spectrum(row: Spectrum) -> None:
        with watch.part("write"):
            records.spectrum(row)

    if state.begin():
        world = system.world
        network = Network(world.rule, world.whole, on_interval, on_spectrum)
        schedule = SCHEDULES[system.scenario.schedule.name]
        network.env.process(schedule(network, system, steering, state.learn))
        network.env.run()


def _summary(
    system: System, plan: Plan, steering: Steering, state: Run, watch: Stopwatch
) -> dict[str, Any]:
    scenario, target = system.scenario, system.scenario.stop.target
    reached, metric = state.target.reached, scenario.data.eval_metric
    assert state.first is not None
    return {
        "name": scenario.name,
        "seed": scenario.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "data_sha256": system.workload.dataset.sha256,
        "devices": len(system.fleet),
        **state.totals,
        "simulated_s": state.time_s,
        "energy_j": state.energy_j,
        "metric": metric,
        "eval_loss_first": state.first.loss,
        "eval_loss_last": state.last.loss,
        "eval_metric_first": state.first.metrics[metric],
        "eval_metric_last": state.last.metrics[metric],
        "eval_metrics_last": dict(state.last.metrics),
        "target": None if target is None else target.model_dump(),
        "reached": None if reached is None else dataclasses.asdict(reached),
        "plan": plan_summary(plan),
        "plans": steering.plans,
        "host_s": watch.total,
    }
