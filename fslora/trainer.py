"""The learner: global state, devices' data, and one round of real training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from fslora.data.dataset import Dataset
from fslora.data.partition import Shards
from fslora.evaluate import Evaluation, evaluate
from fslora.local import Batches, LocalTraining, data_order, train_stack
from fslora.lora import Adapter, Layout, LoraSpec
from fslora.methods.base import Job, Method, Slice, Update
from fslora.stacked import Stack, StackedModel

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
    wire
        Number format of transfers; what a device gets and sends is rounded to it.
    at_once
        Devices trained in one stack; a larger cohort is cut into pieces of this size.
    """

    model: StackedModel
    adapter: Adapter
    dataset: Dataset
    shards: Shards
    lora: LoraSpec
    local: LocalTraining
    method: Method
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
    ) -> Learner:
        """Wrap the base model and begin with fresh factors in number format `dtype`."""
        adapter = Adapter.fresh(base, layout, lora.rank, seed, dtype)
        model = StackedModel(base, layout)
        return cls(model, adapter, dataset, shards, lora, local, method, wire, at_once)

    def train(self, jobs: Sequence[Job]) -> list[Update]:
        """Train the jobs' devices, stacked, from the present global state.

        Raises
        ------
        Diverged
            If a device's loss is not finite.
        """
        updates: list[Update] = []
        for start in range(0, len(jobs), self.at_once):
            updates += self._train_stack(jobs[start : start + self.at_once])
        return updates

    def aggregate(self, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Merge the updates with aggregation weights v_n into the global state."""
        self.method.merge(self.adapter, updates, weight)

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
            raise Diverged(
                "the held-out loss is not finite; lower training.learning_rate or set "
                "training.clip_norm"
            )
        return result

    def slices(self, jobs: Sequence[Job]) -> list[Slice]:
        """What each job's device gets of the global state."""
        return [self.method.slice(job, self.model.layout, self.lora.rank) for job in jobs]

    def batches(self, jobs: Sequence[Job]) -> Batches:
        """Data of the jobs' devices, in training order."""
        rows = [job_rows(self.shards, self.local, job) for job in jobs]
        return Batches.gather(self.dataset.train, rows, self.local.steps)

    def _train_stack(self, jobs: Sequence[Job]) -> list[Update]:
        slices = self.slices(jobs)
        stack = Stack.cut(self.adapter, slices, self.lora.scale)
        for parameter in stack.parameters():
            parameter.copy_(self._over_the_wire(parameter))
        start = [parameter.clone() for parameter in stack.parameters()]
        loss = train_stack(self.model, stack, self.batches(jobs), self.local, self.dataset.task)
        for job, value in zip(jobs, loss, strict=True):
            if not np.isfinite(value):
                raise Diverged(
                    f"device {job.device} at rank {job.rank}: the training loss is not finite; "
                    "lower training.learning_rate or set training.clip_norm"
                )
        delta = [
            self._over_the_wire(end - begin)
            for end, begin in zip(stack.parameters(), start, strict=True)
        ]
        a, b, head = _unpack(delta, stack)
        return [
            Update(
                job.device,
                piece,
                {name: value[row, : job.rank] for name, value in a.items()},
                {name: value[row, :, : job.rank] for name, value in b.items()},
                {name: value[row] for name, value in head.items()},
                float(loss[row]),
            )
            for row, (job, piece) in enumerate(zip(jobs, slices, strict=True))
        ]

    def _over_the_wire(self, value: Tensor) -> Tensor:
        if torch.finfo(self.wire).bits >= 32:
            return value
        return value.to(self.wire).to(value.dtype)


def job_rows(shards: Shards, local: LocalTraining, job: Job) -> NDArray[np.int64]:
    """Example numbers a job trains on, H b of them in order."""
    return data_order(shards[job.device], job.key, local.steps * local.batch)


def _unpack(
    values: Sequence[Tensor], like: Stack
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    supply = iter(values)
    return (
        {name: next(supply) for name in like.a},
        {name: next(supply) for name in like.b},
        {name: next(supply) for name in like.head},
    )
