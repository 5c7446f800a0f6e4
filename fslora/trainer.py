"""The learner: global state, devices' data, and one round of real training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from fslora.batches import Batches
from fslora.data.dataset import Dataset
from fslora.data.partition import Shards
from fslora.evaluate import evaluate
from fslora.grouping import TokenCost, plan_stacks
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout, LoraSpec
from fslora.methods.base import Job, Method, Slice, Update
from fslora.order import job_rows
from fslora.server import Server, ServerOptimizer
from fslora.stack_training import StackTrainer
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Evaluation

#: Larger evaluation batches are no faster.
_EVALUATED_AT_ONCE = 64


class Diverged(ArithmeticError):
    """Training produced a loss that is not a finite number."""


@dataclass(frozen=True, slots=True)
class Learner:
    """What trains: model, data, method and the global state they change.

    Parameters
    ----------
    model
        Frozen base with switchable factors.
    adapter
        Global state X; `aggregate` changes it in place.
    dataset, shards
        Examples, and which of them each device holds.
    lora, local, method
        How adapters are scaled, trained, cut and merged.
    server
        Moves the global state by what is merged.
    stacks
        Trains the devices of a stack.
    wire
        Number format of transfers; what a device gets and sends is rounded to it.
    at_once
        Devices trained in one stack; a larger cohort is cut into pieces of at most this size.
    """

    model: StackedModel
    adapter: Adapter
    dataset: Dataset
    shards: Shards
    lora: LoraSpec
    local: LocalTraining
    method: Method
    server: Server
    stacks: StackTrainer
    wire: torch.dtype
    at_once: int

    @classmethod
    def start(
        cls,
        base: PreTrainedModel,
        layout: Layout,
        dataset: Dataset,
        shards: Shards,
        lora: LoraSpec,
        local: LocalTraining,
        method: Method,
        seed: int,
        wire: torch.dtype = torch.float32,
        at_once: int = 64,
        dtype: torch.dtype = torch.float32,
        server: ServerOptimizer | None = None,
        adapter: Adapter | None = None,
    ) -> Learner:
        """Wrap the base model and begin with `adapter`, or with fresh factors in format `dtype`."""
        if adapter is None:
            adapter = Adapter.fresh(base, layout, lora.rank, seed, dtype)
        model = StackedModel(base, layout)
        return cls(
            model,
            adapter,
            dataset,
            shards,
            lora,
            local,
            method,
            Server(server or ServerOptimizer(), method),
            StackTrainer(model, lora, local, dataset.task, dtype),
            wire,
            at_once,
        )

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs' devices, stacked, from the present global state.

        Returns
        -------
        list of Update
            In the order of the jobs.

        Raises
        ------
        Diverged
            If a device's loss or change is not finite.
        """
        if not jobs:
            return []
        held = np.array([len(self.shards[job.device]) for job in jobs])
        stacks = plan_stacks(
            np.array([job.rank for job in jobs]),
            self.local.batch_of(held),
            self.local.steps_of(held),
            self.dataset.train.tokens.shape[1],
            self._token_cost(),
            self.at_once,
        )
        updates: dict[int, Update] = {}
        for stack in stacks:
            trained = self._train_stack([jobs[place] for place in stack])
            updates.update(zip(stack.tolist(), trained, strict=True))
        return [updates[place] for place in range(len(jobs))]

    def aggregate(self, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Merge the updates with aggregation weights v_n into the global state."""
        self.server.merge(self.adapter, updates, weight)

    def evaluate(self) -> Evaluation:
        """Held-out loss and metric of the full global state.

        Raises
        ------
        Diverged
            If the loss is not finite.
        """
        stack = Stack.whole(self.adapter, self.lora.scale)
        # What fits into memory for training fits for evaluation.
        batch = min(_EVALUATED_AT_ONCE, self.at_once * self.local.batch)
        result = evaluate(self.model, stack, self.dataset.held_out, self.dataset.task, batch)
        if not np.isfinite(result.loss):
            raise Diverged(f"the held-out loss is not finite; {self._remedy}")
        return result

    def slices(self, jobs: Sequence[Job]) -> list[Slice]:
        """What each job's device gets of the global state."""
        return [self.method.slice(job, self.model.layout, self.lora.rank) for job in jobs]

    def batches(self, jobs: Sequence[Job]) -> Batches:
        """Data of the jobs' devices, in training order; jobs come with falling numbers of steps."""
        examples = self.dataset.train
        rows = [job_rows(self.shards, examples.length, self.local, job) for job in jobs]
        return Batches.gather(examples, rows)

    def learning_rate(self, job: Job) -> float:
        """Step size of a job, by the round it was dispatched in."""
        return self.local.learning_rate * self.local.schedule.factor(job.round)

    def _train_stack(self, jobs: Sequence[Job]) -> list[Update]:
        slices = self.slices(jobs)
        delta, loss = self.stacks.train(
            self.adapter,
            slices,
            self.batches(jobs),
            [job.key for job in jobs],
            [self.learning_rate(job) for job in jobs],
            self._over_the_wire,
        )
        for job, value in zip(jobs, loss, strict=True):
            if not np.isfinite(value):
                raise Diverged(
                    f"device {job.device} at rank {job.rank}: the training loss is not finite; "
                    f"{self._remedy}"
                )
        rank = [job.rank for job in jobs]
        a = {name: _narrowed(value, rank, 0) for name, value in delta.a.items()}
        b = {name: _narrowed(value, rank, 1) for name, value in delta.b.items()}
        head = {name: value.unbind(0) for name, value in delta.head.items()}
        return [
            Update(
                job.device,
                piece,
                {name: values[row] for name, values in a.items()},
                {name: values[row] for name, values in b.items()},
                {name: values[row] for name, values in head.items()},
                float(loss[row]),
                1.0 / self.local.step_factor(piece.gain),
            )
            for row, (job, piece) in enumerate(zip(jobs, slices, strict=True))
        ]

    @property
    def _remedy(self) -> str:
        if self.model.model.dtype == torch.float16:
            return (
                "set model.dtype: bfloat16, whose range is wider, or lower training.learning_rate"
            )
        return "lower training.learning_rate or set training.clip_norm"

    def _over_the_wire(self, value: Tensor) -> Tensor:
        if torch.finfo(self.wire).bits >= 32:
            return value
        return value.to(self.wire).to(value.dtype)

    def _token_cost(self) -> TokenCost:
        """Products of one token: two with each frozen weight, three with each trained number."""
        return TokenCost(4.0 * self.model.frozen_weights, 6.0 * self.model.layout.numbers_per_rank)


def _narrowed(values: Tensor, rank: Sequence[int], axis: int) -> list[Tensor]:
    """Each device's part of a padded (M, ...) tensor: its own ranks along `axis`."""
    return [
        value if value.shape[axis] == k else value.narrow(axis, 0, k)
        for value, k in zip(values.unbind(0), rank, strict=True)
    ]
