"""From a scenario to the work: data, shapes, and the cost of training them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fslora.cost import AdapterCost, count_cost
from fslora.data import DataError, Dataset, Shards, load_stdlib, load_table, partition, tokenize
from fslora.local import LocalTraining, Schedule
from fslora.lora import Layout, LoraSpec, UnknownHead, find_layout
from fslora.methods import METHODS, Job, Method
from fslora.models import ModelError, check_nf4, load_tokenizer, max_tokens, shape_of
from fslora.peft_io import AdapterError, check_adapter
from fslora.trainer import job_rows
from sim.errors import InputError
from sim.scenario import Scenario
from sim.sections.base import NUMBER_BITS
from wireless import streams


@dataclass(frozen=True, slots=True)
class Workload:
    """What the devices have to do: data, shapes, and the cost of training them.

    Parameters
    ----------
    dataset, shards
        Examples, and which of them each device holds.
    layout
        Adapted layers and trained heads.
    lora, local, method
        How adapters are scaled, trained, cut and merged.
    cost
        Traffic, arithmetic and memory as functions of the rank.
    pad_token
        Token of the padding.
    """

    dataset: Dataset
    shards: Shards
    layout: Layout
    lora: LoraSpec
    local: LocalTraining
    method: Method
    cost: AdapterCost
    pad_token: int

    @property
    def weight(self) -> NDArray[np.float64]:
        """Data weights a_n: each device's share of the training examples, (N,)."""
        samples = np.array([len(shard) for shard in self.shards], dtype=np.float64)
        return np.asarray(samples / samples.sum())

    @property
    def steps(self) -> NDArray[np.int64]:
        """Local steps H_n of each device, (N,)."""
        return self.local.steps_of([len(shard) for shard in self.shards])

    def expected_flops(self, rank: int) -> NDArray[np.float64]:
        """Arithmetic of a device's round at one rank, on average over its data, (N,)."""
        each = self.cost.example_flops(rank, self.dataset.train.length)
        mean = [each[shard].mean() for shard in self.shards]
        batch = self.local.batch_of([len(shard) for shard in self.shards])
        return np.asarray(np.array(mean) * self.steps * batch)

    def flops(self, job: Job) -> float:
        """Arithmetic of exactly this job, from the lengths of its own examples."""
        length = self.dataset.train.length
        rows = job_rows(self.shards, length, self.local, job)
        return float(self.cost.example_flops(job.rank, length[rows]).sum())


def build_workload(scenario: Scenario) -> Workload:
    """Load and divide the data, find the layers, count the cost.

    Raises
    ------
    InputError
        If data or model cannot be had, or do not fit the scenario.
    """
    try:
        return _build(scenario)
    except DataError as error:
        raise InputError(f"data: {error}") from None
    except ModelError as error:
        raise InputError(f"model.name: {error}") from None


def arithmetic(scenario: Scenario) -> torch.dtype:
    """Number format the base computes in."""
    chosen = scenario.model.dtype
    dtype: torch.dtype = torch.bfloat16 if chosen == "nf4" else getattr(torch, chosen)
    return dtype


def _build(scenario: Scenario) -> Workload:
    data = scenario.data
    nf4 = scenario.model.dtype == "nf4"
    if nf4:
        try:
            check_nf4(scenario.model.name)
        except ModelError as error:
            raise InputError(f"model.dtype = 'nf4': {error}") from None
    tokenizer = load_tokenizer(scenario.model.name)
    if data.source == "builtin:stdlib":
        corpus = load_stdlib()
    else:
        corpus = load_table(
            data.source,
            data.text_column,
            data.label_column,
            data.group_column,
            data.held_out,
            data.prompt_column,
        )
    shape = shape_of(
        scenario.model.name,
        data.task,
        len(corpus.label_names),
        tokenizer.pad_token,
        arithmetic(scenario),
    )
    positions = max_tokens(shape)
    if positions is not None and data.length > positions:
        raise InputError(
            f"data.length = {data.length}: {scenario.model.name} takes at most {positions} tokens"
        )
    dataset = tokenize(corpus, tokenizer, data.task, data.length, data.held_out_per_group)
    if len(dataset.train) < scenario.fleet.devices:
        raise InputError(
            f"fleet.devices = {scenario.fleet.devices}: {data.source} has only "
            f"{len(dataset.train)} training examples; take fewer devices or more data"
        )
    shards = partition(
        dataset.train,
        data.partition,
        scenario.fleet.devices,
        streams.key(scenario.seed, "partition"),
        data.alpha,
        data.classes_per_device,
    )
    choice = scenario.lora
    targets = choice.targets if isinstance(choice.targets, str) else tuple(choice.targets)
    lora = LoraSpec(choice.rank, choice.alpha, targets, choice.rslora, choice.dropout)
    try:
        layout = find_layout(shape, targets, heads=data.task == "classification")
    except UnknownHead as error:
        raise InputError(f"model.name = '{scenario.model.name}': {error}") from None
    except ValueError as error:
        raise InputError(f"lora.targets = {choice.targets}: {error}") from None
    if choice.start is not None:
        try:
            check_adapter(Path(choice.start), layout, lora)
        except AdapterError as error:
            raise InputError(f"lora.start = '{choice.start}': {error}") from None
    local = _local(scenario)
    method = METHODS[scenario.method.name]
    cost = count_cost(
        shape,
        layout,
        method,
        local,
        data.length,
        data.task,
        NUMBER_BITS[scenario.method.number_format],
        nf4,
        scenario.training.gradient_checkpointing,
        lora.dropout,
    )
    return Workload(dataset, shards, layout, lora, local, method, cost, tokenizer.pad_token)


def _local(scenario: Scenario) -> LocalTraining:
    training = scenario.training
    return LocalTraining(
        training.steps,
        training.batch,
        training.learning_rate,
        training.momentum,
        training.clip_norm,
        training.optimizer,
        (training.betas[0], training.betas[1]),
        training.epsilon,
        training.weight_decay,
        training.proximal,
        training.epochs,
        Schedule(training.decay, training.warmup_rounds, scenario.stop.rounds),
        training.sketch_step,
    )
