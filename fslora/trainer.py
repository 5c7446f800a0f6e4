"""The learner: global state, devices' data, and one round of real training.

Devices that are not waited for train from the version of the global state that was current when
they were sent out, so the learner can keep versions. All that training changes can be taken out of
a learner and put into another one that was started alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from fslora.analog import Air
from fslora.base_weights import BaseWeights
from fslora.batches import Batches
from fslora.compression import WHOLE, Compression, compressed
from fslora.data.dataset import Dataset
from fslora.data.partition import Shards, label_histogram
from fslora.evaluate import evaluate, mean_evaluation
from fslora.grouping import TokenCost, plan_stacks
from fslora.learner_state import check_state, numbers_of
from fslora.local import LocalTraining
from fslora.lora import Adapter, Layout, LoraSpec
from fslora.methods.base import GlobalState, Job, Method, Slice, Update
from fslora.order import job_rows
from fslora.own import own_after, own_names, starts
from fslora.server import Server, ServerOptimizer, named_tensors
from fslora.stack_training import StackTrainer
from fslora.stacked import Stack, StackedModel
from fslora.tasks import Evaluation

#: Larger evaluation batches are no faster.
_EVALUATED_AT_ONCE = 64

#: Devices whose own models are evaluated, at most.
_PERSONAL_MODELS = 8


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
    base
        Weights of the adapted layers, which some methods change.
    compression
        What is left of an update on its way to the server.
    seed
        Of the factors that training began with.
    samples
        (N,) training examples of every device.
    versions
        Kept versions of the global state by their numbers, each a copy.
    personal
        What there is device by device, personal factors and cores, by device and name of the
        tensor.
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
    base: BaseWeights
    compression: Compression
    seed: int
    samples: NDArray[np.int64]
    versions: dict[int, Adapter] = field(default_factory=dict)
    personal: dict[int, dict[str, Tensor]] = field(default_factory=dict)

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
        compression: Compression = WHOLE,
    ) -> Learner:
        """Wrap the base model and begin with `adapter`, or with fresh factors in format `dtype`."""
        if adapter is None:
            adapter = Adapter.fresh(base, layout, lora.rank, seed, dtype)
        if layout.core:
            adapter = adapter.with_cores()
        samples = np.array([len(shard) for shard in shards], dtype=np.int64)
        counts = samples[:, None]
        if dataset.label_names:
            counts = label_histogram(dataset.train, shards, len(dataset.label_names))
        adapter = replace(adapter, kept=method.kept(adapter, counts))
        model = StackedModel(base, layout)
        return cls(
            model,
            adapter,
            dataset,
            shards,
            lora,
            local,
            method,
            Server(server or ServerOptimizer(), method, adapter),
            StackTrainer(model, lora, local, dataset.task, dtype, method),
            wire,
            at_once,
            BaseWeights(model, method.base_apart),
            compression,
            seed,
            samples,
        )

    def train(self, jobs: Sequence[Job], versions: Sequence[int] | None = None) -> list[Update]:
        """Train the jobs' devices, stacked; the global state is left as it is.

        Parameters
        ----------
        jobs
            What is trained.
        versions
            Kept version that each job starts from, jobs of one version being stacked; None for the
            present global state.

        Returns
        -------
        list of Update
            In the order of the jobs.

        Raises
        ------
        Diverged
            If a device's loss or change is not finite.
        ValueError
            If a version is not kept.
        """
        if versions is None:
            return self._train_from(self.adapter, jobs)
        places: dict[int, list[int]] = {}
        for place, (_, version) in enumerate(zip(jobs, versions, strict=True)):
            places.setdefault(version, []).append(place)
        updates: dict[int, Update] = {}
        for version, group in places.items():
            trained = self._train_from(self._kept(version), [jobs[place] for place in group])
            updates.update(zip(group, trained, strict=True))
        return [updates[place] for place in range(len(jobs))]

    def keep(self, version: int) -> None:
        """Remember the present global state under a number, at least 0, that is not in use."""
        if version < 0 or version in self.versions:
            raise ValueError(f"version {version} is kept already, or negative")
        parts = (self.adapter.a, self.adapter.b, self.adapter.head, self.adapter.kept)
        self.versions[version] = Adapter(
            *({name: value.clone() for name, value in part.items()} for part in parts)
        )

    def release(self, version: int) -> None:
        """Forget a kept version."""
        self._kept(version)
        del self.versions[version]

    def mix(self, version: int, share: float) -> None:
        """Move the global state towards a kept version: X <- (1 - share) X + share X_version.

        `aggregate` of an update trained from that version, with the weight `share`, then completes
        FedAsync's step (arXiv 1903.03934) where the server adds plain sums:
        (1 - alpha) X + alpha (X_version + delta). Other server optimizers take alpha delta for
        their pseudo-gradient and do not see the mixing.
        """
        kept = named_tensors(self._kept(version))
        for name, value in named_tensors(self.adapter).items():
            # Exact at both ends, and where the version is the present state.
            value.lerp_(kept[name], share)

    def state(self) -> dict[str, Tensor]:
        """All that training has changed, copied to the CPU.

        Returns
        -------
        dict
            Tensors by flat names, with TENSOR as in `named_tensors`: `adapter.TENSOR`, for each
            moment of the server `first.TENSOR` and `second.TENSOR`, for every kept version
            `version.NUMBER.TENSOR`, for every device that keeps something `own.DEVICE.TENSOR`, and
            for every layer whose weight was changed `base.LAYER`.
        """
        return {
            f"{part}.{name}": value.detach().to("cpu", copy=True)
            for part, values in self._parts().items()
            for name, value in values.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to where a learner that was started alike gave its `state`, to the bit.

        Raises
        ------
        StateError
            If tensors are missing, unknown, or of another shape or number format; nothing has
            been changed then.
        """
        shapes = named_tensors(self.adapter)
        versions, devices = numbers_of(state, "version"), numbers_of(state, "own")
        parts = ["adapter", *self.server.moments, *(f"version.{number}" for number in versions)]
        wanted = {f"{part}.{name}": value for part in parts for name, value in shapes.items()}
        kept = own_names(self.method, self.adapter)
        wanted |= {f"own.{n}.{name}": shapes[name] for n in devices for name in kept}
        layers = [name for name in self.adapter.a if f"base.{name}" in state]
        wanted |= {f"base.{name}": self.base.empty(name) for name in layers}
        check_state(state, wanted)
        self.versions.clear()
        for number in versions:
            self.keep(number)
        self.personal.clear()
        for device in devices:
            self.personal[device] = {name: torch.empty_like(shapes[name]) for name in kept}
        self.base.restore({name: state[f"base.{name}"] for name in layers})
        for part, values in self._parts().items():
            for name, value in values.items():
                value.copy_(state[f"{part}.{name}"])

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        """What `state` holds, not copied: tensors by name, by part."""
        versions = {f"version.{n}": named_tensors(kept) for n, kept in self.versions.items()}
        own = {f"own.{device}": tensors for device, tensors in self.personal.items()}
        adapter = {"adapter": named_tensors(self.adapter)}
        return {**adapter, **self.server.moments, **versions, **own, "base": self.base.changed()}

    def _kept(self, version: int) -> Adapter:
        if version not in self.versions:
            raise ValueError(f"version {version} is not kept")
        return self.versions[version]

    def _train_from(self, adapter: Adapter, jobs: Sequence[Job]) -> list[Update]:
        if not jobs:
            return []
        held = np.array([len(self.shards[job.device]) for job in jobs])
        stacks = plan_stacks(
            np.array([self.method.held_ranks(self.lora.rank, job.rank) for job in jobs]),
            self.local.batch_of(held),
            self.local.steps_of(held),
            self.dataset.train.tokens.shape[1],
            self._token_cost(),
            self.at_once,
        )
        updates: dict[int, Update] = {}
        for stack in stacks:
            trained = self._train_stack(adapter, [jobs[place] for place in stack])
            updates.update(zip(stack.tolist(), trained, strict=True))
        return [updates[place] for place in range(len(jobs))]

    def aggregate(
        self,
        updates: Sequence[Update],
        weight: Sequence[float],
        round_index: int = 1,
        air: Air | None = None,
    ) -> None:
        """Merge the updates with aggregation weights v_n into the global state.

        Parameters
        ----------
        updates, weight
            (M,) updates and their weights.
        round_index
            Number of the merge, for methods that draw.
        air
            What adds the updates up, with some noise; None if each arrives by itself.
        """
        kept = own_names(self.method, self.adapter)
        if kept:
            devices = [update.device for update in updates]
            self.personal.update(own_after(kept, self.adapter, updates, self._begin(devices)))
        if air is not None and updates:
            noise = air.noise(self.adapter, self.method, updates, weight)
            updates, weight = [*updates, noise], [*weight, 1.0]
        self.server.merge(self._state(round_index), updates, weight)

    def _state(self, round_index: int = 1) -> GlobalState:
        """All that there is, not copied."""
        return GlobalState(
            self.adapter,
            self.base,
            self.lora.scale,
            self.seed,
            round_index,
            self.personal,
            self.samples,
        )

    def _begin(self, devices: Sequence[int]) -> list[Mapping[str, Tensor]]:
        """What devices start from in the place of the global state."""
        return starts(self.method, self._state(), devices, self._over_the_wire)

    def evaluate(self) -> Evaluation:
        """Held-out loss and metric of the full global state.

        Where devices keep a factor of their own there is no such state: then the mean over the
        devices, by their numbers of examples, each with what it has; over some of them, evenly
        spaced, in large fleets.

        Raises
        ------
        Diverged
            If the loss is not finite.
        """
        if not self.method.personal:
            result = self._evaluate(self.adapter)
        else:
            devices = np.unique(
                np.linspace(0, len(self.shards) - 1, _PERSONAL_MODELS).round().astype(np.int64)
            ).tolist()
            result = mean_evaluation(
                [self._evaluate(self.own_adapter(device)) for device in devices],
                [len(self.shards[device]) for device in devices],
            )
        if not np.isfinite(result.loss):
            raise Diverged(f"the held-out loss is not finite; {self._remedy}")
        return result

    def own_adapter(self, device: int) -> Adapter:
        """The global state with what a device starts from of its own in its place."""
        (own,) = self._begin([device])
        return self.adapter.with_trained(own)

    def _evaluate(self, adapter: Adapter) -> Evaluation:
        stack = Stack.whole(adapter, self.lora.scale)
        # What fits into memory for training fits for evaluation.
        batch = min(_EVALUATED_AT_ONCE, self.at_once * self.local.batch)
        with self.base.merged():
            return evaluate(self.model, stack, self.dataset.held_out, self.dataset.task, batch)

    def slices(self, jobs: Sequence[Job]) -> list[Slice]:
        """What each job's device gets of the present global state."""
        return self._slices(self.adapter, jobs)

    def _slices(self, adapter: Adapter, jobs: Sequence[Job]) -> list[Slice]:
        return [self.method.slice(job, adapter, self.lora.rank) for job in jobs]

    def batches(self, jobs: Sequence[Job]) -> Batches:
        """Data of the jobs' devices, in training order; jobs come with falling numbers of steps."""
        examples = self.dataset.train
        rows = [job_rows(self.shards, examples.length, self.local, job) for job in jobs]
        return Batches.gather(examples, rows)

    def learning_rate(self, job: Job) -> float:
        """Step size of a job, by the round it was dispatched in."""
        return self.local.learning_rate * self.local.schedule.factor(job.round)

    def _train_stack(self, adapter: Adapter, jobs: Sequence[Job]) -> list[Update]:
        slices = self._slices(adapter, jobs)
        delta, loss = self.stacks.train(
            adapter,
            slices,
            self.batches(jobs),
            [job.key for job in jobs],
            [self.learning_rate(job) for job in jobs],
            self._over_the_wire,
            self._begin([job.device for job in jobs]),
        )
        for job, value in zip(jobs, loss, strict=True):
            if not np.isfinite(value):
                raise Diverged(
                    f"device {job.device} at rank {job.rank}: the training loss is not finite; "
                    f"{self._remedy}"
                )
        rank = [piece.indices.shape[1] for piece in slices]
        a = {name: _narrowed(value, rank, 0) for name, value in delta.a.items()}
        b = {name: _narrowed(value, rank, 1) for name, value in delta.b.items()}
        head = {name: value.unbind(0) for name, value in delta.head.items()}
        updates = [
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
        start = Adapter(
            *(
                {name: self._over_the_wire(value) for name, value in part.items()}
                for part in (adapter.a, adapter.b, adapter.head)
            )
        )
        sent = [self.method.sent(u, job.rank, start) for u, job in zip(updates, jobs, strict=True)]
        keys = [job.key for job in jobs]
        return compressed(sent, keys, self.compression, self.method.personal)

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
