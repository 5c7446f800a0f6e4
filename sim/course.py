"""The course of a run: what each merge does to the global state, and to the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sim.learning import Learning
from sim.progress import Step
from sim.records import Records
from sim.schedules import Merge
from sim.steering import Steering
from sim.stopwatch import Stopwatch
from sim.system import System
from sim.target import Reached, TargetWatch
from sim.timeline import Round
from sim.updates import outcome, round_row

if TYPE_CHECKING:
    from fslora.tasks import Evaluation


class Course:
    """Learns from each merge, records it, and says when the run ends.

    Parameters
    ----------
    system, steering
        What is simulated, and who is sent out.
    learning
        Trains, or estimates.
    records
        The run's files.
    watch
        Real time.
    tell
        Told how far the run is, after each merge.
    settle
        Called before a last merge is written: ends what is still going on.
    save
        Called after every merge but the last, with its number: the run could go on from here.

    Attributes
    ----------
    target
        Follows the evaluations.
    estimated
        When the target is estimated to be reached; None where it is measured, or not yet.
    first, last
        First and last evaluation, None without training.
    rounds, time_s, bytes_down, bytes_up, energy_j
        Totals so far.
    """

    def __init__(
        self,
        system: System,
        steering: Steering,
        learning: Learning,
        records: Records,
        watch: Stopwatch,
        tell: Callable[[Step], None],
        settle: Callable[[], None],
        save: Callable[[int], None],
    ) -> None:
        self._system, self._steering, self._learning = system, steering, learning
        self._records, self._watch, self._tell = records, watch, tell
        self._settle, self._save = settle, save
        self.target = TargetWatch(system.scenario.stop.target, system.scenario.data.task)
        self.estimated: Reached | None = None
        self.first: Evaluation | None = None
        self.last: Evaluation | None = None
        self.rounds = self.bytes_down = self.bytes_up = 0
        self.time_s = self.energy_j = 0.0
        self._metric = system.scenario.data.eval_metric

    def begin(self) -> bool:
        """Evaluate and record the state before training, round 0; tell whether to go on."""
        self.first = self._evaluate(0, 0.0)
        self._write(Round(0, 0.0, 0.0, 0.0, progress=self._learning.progress), self.first)
        return not self._at_target

    def merged(self, merge: Merge) -> bool:
        """Train and merge what has arrived, record it; tell whether to go on."""
        number, stop = merge.round, self._system.scenario.stop
        before = self._learning.progress
        with self._watch.part("train"):
            rows = self._learning.merge(merge)
        self._estimate(merge, before)
        self._steering.learn(outcome(merge, rows))
        self.rounds, self.time_s = number, merge.end_s
        last = (
            merge.deserted
            or number >= stop.rounds
            or (stop.simulated_s is not None and merge.end_s >= stop.simulated_s)
            or self._at_target
        )
        if merge.deserted:
            self._records.log(f"round {number}: nobody will take part again, the run ends here")
        evaluation = None
        if last or number % self._system.scenario.output.evaluate_every == 0:
            evaluation = self._evaluate(number, merge.end_s)
            last = last or self._at_target
        if last:
            self._settle()
        with self._watch.part("write"):
            for row in rows:
                self._records.update(row)
            down, up, energy = self._records.round_totals()
        self.bytes_down += down
        self.bytes_up += up
        self.energy_j += energy
        told = round_row(self._system, self._steering, merge, rows, self._learning.progress)
        told = replace(told, bytes_down=down, bytes_up=up, energy_j=energy)
        self._write(told, evaluation)
        if not last:
            self._renew(number + 1)
            self._save(number)
        return not last

    @property
    def _at_target(self) -> bool:
        """Whether the run ends since the target is met, or estimated to be."""
        if not self._system.scenario.stop.at_target:
            return False
        return self.target.reached is not None or self.estimated is not None

    def _estimate(self, merge: Merge, before: float | None) -> None:
        """Note when estimated progress passes the target."""
        after = self._learning.progress
        if before is None or after is None or self.estimated is not None or after < 1:
            return
        share = (1 - before) / (after - before)
        between_s = merge.start_s + share * (merge.end_s - merge.start_s)
        self.estimated = Reached(merge.round, merge.end_s, between_s)

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

    def _evaluate(self, round_index: int, time_s: float) -> Evaluation | None:
        with self._watch.part("evaluate"):
            evaluation = self._learning.evaluate(round_index)
        if evaluation is None:
            return None
        self.last = evaluation
        self.target.see(round_index, time_s, evaluation.loss, evaluation.metrics[self._metric])
        self._steering.evaluated(evaluation.loss)
        self._records.log(
            f"round {round_index}: {time_s:.3f} s simulated, held-out loss {evaluation.loss:.4f}"
        )
        return evaluation

    def _write(self, row: Round, evaluation: Evaluation | None) -> None:
        if evaluation is not None:
            metric = evaluation.metrics[self._metric]
            row = replace(row, eval_loss=evaluation.loss, eval_metric=metric)
        with self._watch.part("write"):
            self._records.round(row)
        for host in self._watch.rows(row.round):
            self._records.host(host)
        stop = self._system.scenario.stop
        done = row.round / stop.rounds
        if stop.simulated_s is not None:
            done = max(done, row.end_s / stop.simulated_s)
        loss = None if self.last is None else self.last.loss
        self._tell(Step(row.round, min(done, 1.0), row.end_s, loss))
