"""One co-simulation, from scenario to run directory."""

from __future__ import annotations

import dataclasses
import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer import Plan, Problem
from sim.channels import make_network
from sim.checkpoint import Checkpoint, load_checkpoint
from sim.course import Course
from sim.errors import InputError, Interrupted, RunError
from sim.learning import Estimate, Learning, Remembered, Training
from sim.memory import Memory
from sim.planning import make_plan, measure, with_norms
from sim.progress import Step
from sim.records import Records, new_folder, plan_summary
from sim.saving import Saving, finished
from sim.scenario import Scenario
from sim.schedules import SCHEDULES
from sim.sections.schedule import Asynchronous
from sim.signals import stop_requests
from sim.steering import Steering
from sim.stopwatch import Stopwatch
from sim.system import System, build_system
from sim.timeline import Piece, UpdateRow

if TYPE_CHECKING:
    from fslora.trainer import Learner

_PACKAGES = ("fslora-sim", "torch", "transformers", "peft", "numpy", "scipy", "simpy")


def run(
    scenario: Scenario,
    out: Path,
    tell: Callable[[Step], None] = lambda _: None,
    resume: bool = False,
) -> dict[str, Any]:
    """Run a scenario and write its directory.

    Nothing is written before data, model and plan are known to be good. On SIGINT or SIGTERM the
    round is finished and a checkpoint written.

    Parameters
    ----------
    scenario
        What to run.
    out
        Folder to write; must not exist or be empty, unless a run is resumed.
    tell
        Called after each round.
    resume
        Whether to go on from the folder's checkpoint, or afresh if it has none. A finished run is
        left as it is.

    Returns
    -------
    dict
        What `summary.json` holds.

    Raises
    ------
    InputError
        If the scenario cannot be run.
    RunError
        If training diverged, or files could not be written; those so far are left.
    Interrupted
        If the run was stopped by a signal.
    """
    watch = Stopwatch()
    scenario = _resolved(scenario)
    if resume:
        done = finished(out, scenario)
        if done is not None:
            return done
    with watch.part("build"):
        system = build_system(scenario)
    checkpoint = None
    if resume:
        checkpoint = load_checkpoint(out, scenario, system.workload.data_sha256)
    learner: Learner | None = None
    measured: list[UpdateRow] = []
    if scenario.policy.knowledge == "oracle":
        with watch.part("build"):
            learner = make_learner(system)
        with watch.part("plan"):
            measured = measure(system, learner)
            system = with_norms(system, measured)
    with watch.part("plan"):
        plan = make_plan(system)
    if learner is None and not scenario.training.timing_only:
        with watch.part("build"):
            learner = make_learner(system)
    records = Records(new_folder(out, resume), system)
    try:
        if checkpoint is not None:
            watch.add(checkpoint.host_s)
            for change in checkpoint.changes:
                records.log(f"resumed after round {checkpoint.round}: {change}")
        with watch.part("plan"):
            records.plan(system.problem, plan, 1)
        with watch.part("write"):
            records.labels()
            for row in measured:
                records.update(row)
        steering = Steering(system, plan, partial(_renewed, system))
        learning = _learning(system, steering, learner, checkpoint)
        try:
            with watch.part("simulate"), few_collections(), stop_requests() as request:
                saving = Saving(out, system, learning, watch, request, records.log)
                course = _co_simulate(system, steering, learning, records, watch, tell, saving)
        except (ArithmeticError, RunError) as error:
            if isinstance(error, Interrupted):
                records.log(str(error))
                raise
            records.log(f"stopped: {error}")
            raise RunError(f"{error}; files so far are in {out}") from None
        except KeyboardInterrupt:
            records.log("interrupted")
            raise Interrupted(
                f"interrupted; files so far are in {out}, `sim run --resume` goes on with it"
            ) from None
        finally:
            records.devices()
        if checkpoint is not None:
            checkpoint.memory.check_end(course.rounds)
        summary = _summary(system, plan, steering, course, watch)
        if learner is not None:
            _save_adapter(out, learner, scenario)
    finally:
        records.close()
    # Last of all: a folder that has it is taken for that of a finished run.
    records.summary(summary)
    return summary


def finished_before(scenario: Scenario, out: Path) -> dict[str, Any] | None:
    """The summary of a run that has ended in a folder; None if there is something left to run.

    Raises
    ------
    InputError
        If the folder holds something else than a run of this scenario.
    """
    return finished(out, _resolved(scenario))


def make_learner(system: System) -> Learner:
    """Load the base model and wrap it for training; torch is imported here."""
    from sim.host import make_learner as load

    return load(system)


def _resolved(scenario: Scenario) -> Scenario:
    """The scenario with the host's device named: it is part of what a run must repeat."""
    if scenario.training.timing_only:
        return scenario
    from sim.host import host_device

    device = host_device(scenario.training.device)
    training = scenario.training.model_copy(update={"device": device})
    return scenario.model_copy(update={"training": training})


def _learning(
    system: System, steering: Steering, learner: Learner | None, checkpoint: Checkpoint | None
) -> Estimate | Remembered:
    if learner is None:
        return Estimate(steering)
    training = Training(learner, isinstance(system.scenario.schedule, Asynchronous))
    if checkpoint is None:
        return Remembered(training, Memory(), {})
    return Remembered(training, checkpoint.memory, checkpoint.learner)


def _renewed(system: System, problem: Problem, round_index: int) -> Plan:
    """Another plan by the scenario's policy, from a round on."""
    try:
        return make_plan(system, problem=problem)
    except InputError as error:
        raise RunError(f"there is no plan from round {round_index} on: {error}") from None


def _co_simulate(
    system: System,
    steering: Steering,
    learning: Learning,
    records: Records,
    watch: Stopwatch,
    tell: Callable[[Step], None],
    saving: Saving,
) -> Course:
    """Run the schedule until the stop rule holds."""
    network = make_network(system, records.interval, records.spectrum, _pieces(system, records))
    settle, save = network.finish, saving.after
    course = Course(system, steering, learning, records, watch, tell, settle, save)
    if course.begin():
        schedule = SCHEDULES[system.scenario.schedule.name]
        process = network.clock.process(schedule(network, system, steering, course.merged))
        network.clock.run(until=process)
    return course


def _pieces(system: System, records: Records) -> Callable[[Piece], None] | None:
    return records.piece if system.scenario.output.timeline == "full" else None


@contextmanager
def few_collections() -> Iterator[None]:
    """Look for circles of garbage more rarely: events leave none, and make many objects."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _save_adapter(out: Path, learner: Learner, scenario: Scenario) -> None:
    from fslora.peft_io import save_adapter, save_tensors

    folder = out / "adapter"
    folder.mkdir(exist_ok=True)
    save_adapter(
        folder,
        learner.model.model,
        learner.model.layout,
        learner.lora,
        learner.adapter,
        scenario.data.task,
    )
    extra = {f"own.{n}.{name}": v for n, own in learner.personal.items() for name, v in own.items()}
    extra |= {f"base.{name}": value for name, value in learner.base.changed().items()}
    if extra:
        save_tensors(folder / "beyond_adapter.safetensors", extra)


def _summary(
    system: System, plan: Plan, steering: Steering, course: Course, watch: Stopwatch
) -> dict[str, Any]:
    scenario, target = system.scenario, system.scenario.stop.target
    reached, metric = course.target.reached, scenario.data.eval_metric
    first, last, estimated = course.first, course.last, course.estimated
    return {
        "name": scenario.name,
        "seed": scenario.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "data_sha256": system.workload.data_sha256,
        "devices": len(system.fleet),
        "rounds": course.rounds,
        "bytes_down": course.bytes_down,
        "bytes_up": course.bytes_up,
        "simulated_s": course.time_s,
        "energy_j": course.energy_j,
        "metric": metric,
        "eval_loss_first": None if first is None else first.loss,
        "eval_loss_last": None if last is None else last.loss,
        "eval_metric_first": None if first is None else first.metrics[metric],
        "eval_metric_last": None if last is None else last.metrics[metric],
        "eval_metrics_last": None if last is None else dict(last.metrics),
        "target": None if target is None else target.model_dump(),
        "reached": None if reached is None else dataclasses.asdict(reached),
        "estimated": None if estimated is None else dataclasses.asdict(estimated),
        "plan": plan_summary(plan),
        "plans": steering.plans,
        "host_s": watch.total,
    }
