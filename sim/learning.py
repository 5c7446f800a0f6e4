"""What a run learns: by training, or in its place by an estimate from the round model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from fslora.tasks import Evaluation
from sim.errors import InputError, RunError
from sim.memory import Memory, Told
from sim.schedules.base import Merge
from sim.steering import Steering
from sim.timeline import UpdateRow
from sim.updates import update_rows

if TYPE_CHECKING:
    from torch import Tensor

    from fslora.trainer import Learner

#: A held-out loss so many times the first one's is training that has run away.
_EXPLODED = 10.0


class Learning(Protocol):
    """What merges do to the global state."""

    def merge(self, merge: Merge) -> list[UpdateRow]:
        """Train what is merged, change the global state, and tell what devices reported."""

    def evaluate(self, round_index: int) -> Evaluation | None:
        """Held-out loss and metrics of the global state after a merge; None if there are none."""

    @property
    def progress(self) -> float | None:
        """Share of the way to the target, where it is estimated."""


class Training:
    """Real training.

    Parameters
    ----------
    learner
        Trains and evaluates.
    asynchronous
        Whether updates may have trained from older states than the present one.
    """

    progress = None

    def __init__(self, learner: Learner, asynchronous: bool) -> None:
        self.learner, self._asynchronous = learner, asynchronous
        self._first_loss: float | None = None
        if asynchronous:
            learner.keep(0)

    def merge(self, merge: Merge) -> list[UpdateRow]:
        """Train the updates, each from the version that it was sent, and merge them.

        Raises
        ------
        Diverged
            If a loss or a change is not finite.
        """
        from fslora.methods import Job

        learner, number = self.learner, merge.round
        rows: list[UpdateRow] = []
        if len(merge):
            version = merge.version.tolist()
            columns = (merge.device, merge.rank, merge.key)
            jobs = [
                Job(device, rank, key, sent + 1)
                for device, rank, key, sent in zip(
                    *(each.tolist() for each in columns), version, strict=True
                )
            ]
            updates = learner.train(jobs, version if self._asynchronous else None)
            if merge.mixing is not None:
                learner.mix(version[0], merge.mixing)
            learner.aggregate(updates, merge.weight.tolist(), number, merge.air)
            rows = update_rows(number, updates, merge.weight)
        if self._asynchronous:
            learner.keep(number)
            for version in [each for each in learner.versions if each < merge.oldest]:
                learner.release(version)
        return rows

    def evaluate(self, round_index: int) -> Evaluation:
        """Evaluate the global state.

        Raises
        ------
        Diverged
            If the loss is not finite.
        RunError
            If it is many times the first one.
        """
        return self.checked(round_index, self.learner.evaluate())

    def checked(self, round_index: int, evaluation: Evaluation) -> Evaluation:
        """Refuse an evaluation that tells that training has run away."""
        if self._first_loss is None:
            self._first_loss = evaluation.loss
        if evaluation.loss > _EXPLODED * self._first_loss:
            raise RunError(
                f"training has run away: after round {round_index} the held-out loss is "
                f"{evaluation.loss:.4g}, at first it was {self._first_loss:.4g}; lower "
                "training.learning_rate or policy.max_noise"
            )
        return evaluation


class Remembered:
    """Training that has been done before: its results are taken from memory, up to a round.

    At that round the learner is put where it stood, and from then on it trains.

    Parameters
    ----------
    training
        Trains and evaluates what is not remembered.
    memory
        Answers, and takes note of what is trained.
    state
        The learner's state after the memory's last round.
    """

    progress = None

    def __init__(self, training: Training, memory: Memory, state: Mapping[str, Tensor]) -> None:
        self._training, self.memory, self._state = training, memory, state

    def merge(self, merge: Merge) -> list[UpdateRow]:
        """See `Training.merge`."""
        number, device, rank = merge.round, merge.device.tolist(), merge.rank.tolist()
        told = self.memory.updates(number, device, rank)
        if told is None:
            rows = self._training.merge(merge)
            self.memory.note_updates(
                number,
                device,
                rank,
                [Told(row.loss, row.update_norm, row.rank_kept) for row in rows],
            )
            return rows
        if number == self.memory.until:
            try:
                self._training.learner.restore(self._state)
            except ValueError as error:
                raise InputError(f"the checkpoint does not fit the learner: {error}") from None
        columns = (device, rank, merge.weight.tolist(), told)
        return [
            UpdateRow(number, n, k, weight, *each)
            for n, k, weight, each in zip(*columns, strict=True)
        ]

    def evaluate(self, round_index: int) -> Evaluation:
        """See `Training.evaluate`."""
        told = self.memory.evaluation(round_index)
        if told is None:
            evaluation = self._training.evaluate(round_index)
            self.memory.note_evaluation(round_index, evaluation.loss, evaluation.metrics)
            return evaluation
        return self._training.checked(round_index, Evaluation(*told))

    def state(self) -> dict[str, Tensor]:
        """The learner's state now."""
        return self._training.learner.state()


class Estimate:
    """No training: progress to the target by the round model, as far as updates arrive.

    A merge of weights v_n makes progress sum v_n / R, with R the rounds to the target by the round
    model. In the mean over cohorts the weights of synchronous rounds sum to one, so that the target
    is reached after R rounds on average; updates that are lost, late or stale count for less
    (own derivation).

    Parameters
    ----------
    steering
        Has the plan in force.
    """

    def __init__(self, steering: Steering) -> None:
        self._steering = steering
        self.progress: float | None = None if self._per_unit() is None else 0.0

    def merge(self, merge: Merge) -> list[UpdateRow]:
        """Count the progress."""
        per_unit = self._per_unit()
        if per_unit is not None and self.progress is not None:
            self.progress += per_unit * float(merge.weight.sum())
        return []

    def evaluate(self, round_index: int) -> None:
        """Nothing is measured."""

    def _per_unit(self) -> float | None:
        """Progress of a merge of weight one; None if the round model does not apply."""
        rounds = self._steering.plan.rounds
        return 1 / rounds if math.isfinite(rounds) and rounds > 0 else None
