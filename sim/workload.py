"""From a scenario to the work: data, shapes, and the cost of training them."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv

from fslora.apart import card_apart, tokenizer_apart
from fslora.card import Card, Question, TooLong, make_card
from fslora.cost import AdapterCost, Exchange
from fslora.data import (
    Corpus,
    DataError,
    Dataset,
    Shards,
    Tokenizer,
    label_histogram,
    load_stdlib,
    load_table,
    partition,
    tokenize,
)
from fslora.lengths import Lengths
from fslora.local import LocalTraining, Schedule
from fslora.lora import Layout, LoraSpec, UnknownHead, UnknownTarget
from fslora.methods import METHODS, Method
from fslora.models import CutError, ModelError, check_nf4, load_tokenizer
from sim.errors import InputError
from sim.scenario import Scenario
from sim.sections.base import NUMBER_BITS
from sim.sections.learning import STDLIB, SYNTHETIC
from sim.sections.method import own_parameters
from wireless import streams


@dataclass(frozen=True, slots=True)
class Text:
    """What there is to train on.

    Parameters
    ----------
    dataset, shards
        Examples, and which of them each device holds.
    """

    dataset: Dataset
    shards: Shards


@dataclass(frozen=True)
class Workload:
    """What the devices have to do: data, shapes, and the cost of training them.

    Parameters
    ----------
    lengths
        How many examples each of the N devices holds, and of what lengths.
    label_names
        Names of the classes; empty if the data have none.
    data_sha256
        Hash of the text, or of the sizes of data without text.
    text
        The data themselves; None for data without text.
    layout, sent
        Adapted layers and trained heads, and those of them that go over the air.
    lora, local, method
        How adapters are scaled, trained, cut and merged.
    costs
        Traffic, arithmetic and memory as functions of the rank, for each phase of the method.
    pad_token
        Token of the padding.
    """

    lengths: Lengths
    label_names: tuple[str, ...]
    data_sha256: str
    text: Text | None
    layout: Layout
    sent: Layout
    lora: LoraSpec
    local: LocalTraining
    method: Method
    costs: tuple[AdapterCost, ...]
    pad_token: int

    @property
    def dataset(self) -> Dataset:
        """Examples; see `text`."""
        return self._text().dataset

    @property
    def shards(self) -> Shards:
        """Which examples each device holds; see `text`."""
        return self._text().shards

    @property
    def samples(self) -> NDArray[np.int64]:
        """Training examples of each device, (N,)."""
        return self.lengths.samples

    @cached_property
    def weight(self) -> NDArray[np.float64]:
        """Data weights a_n: each device's share of the training examples, (N,)."""
        return self.samples / float(self.samples.sum())

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Local steps H_n of each device, (N,)."""
        return self.local.steps_of(self.samples)

    def label_counts(self) -> NDArray[np.int64]:
        """How many examples of each class every device holds, (N, classes)."""
        if not self.label_names:
            return np.zeros((len(self.samples), 0), dtype=np.int64)
        return label_histogram(self.dataset.train, self.shards, len(self.label_names))

    @cached_property
    def cost(self) -> AdapterCost:
        """Cost of a round that plans reckon with: the mean, where rounds alternate."""
        return AdapterCost.mean(self.costs)

    def cost_of(self, round_index: int) -> AdapterCost:
        """Cost of round 1, 2, ..., by what the method trains and sends in it."""
        return self.costs[(round_index - 1) % len(self.costs)]

    def expected_flops(self, rank: int) -> NDArray[np.float64]:
        """Arithmetic of a device's round at one rank, on average over its data, (N,)."""
        mean = self.cost.flops(rank, self.lengths.powers) / self.samples
        examples = mean * self.steps * self.local.batch_of(self.samples)
        return np.asarray(examples + self.steps * self._penalty)

    def expected_exchange(self, rank: int) -> Exchange:
        """What a device's round exchanges with the server beside its update, likewise, (N,)."""
        count = self.steps * self.local.batch_of(self.samples)
        return self.cost.exchange(rank, self.lengths.powers / self.samples * count)

    def flops_of(
        self,
        device: NDArray[np.int64],
        key: NDArray[np.int64],
        rank: ArrayLike,
        round_index: int = 1,
    ) -> NDArray[np.float64]:
        """Arithmetic of exactly these jobs, from the lengths of their own examples.

        Parameters
        ----------
        device, key, rank
            (M,) as in `Job`; one rank may serve all.
        round_index
            Round in which they were dispatched.

        Returns
        -------
        array (M,)
        """
        examples = self.cost_of(round_index).flops(rank, self._drawn(device, key))
        return np.asarray(examples + self.steps[device] * self._penalty)

    def exchange_of(
        self,
        device: NDArray[np.int64],
        key: NDArray[np.int64],
        rank: ArrayLike,
        round_index: int = 1,
    ) -> Exchange:
        """What exactly these jobs exchange with the server beside their updates; as `flops_of`."""
        if self.method.device_blocks is None:
            nothing = np.zeros(len(device))
            return Exchange(nothing, nothing, nothing)
        return self.cost_of(round_index).exchange(rank, self._drawn(device, key))

    def _drawn(self, device: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sums (3, M) over the examples of jobs, see `Lengths.drawn`."""
        count = self.steps[device] * self.local.batch_of(self.samples[device])
        return self.lengths.drawn(device, key, count)

    @property
    def _penalty(self) -> float:
        """Arithmetic of the method's penalty in one local step."""
        return self.method.penalty_flops(self.layout, self.lora.rank)

    def _text(self) -> Text:
        if self.text is None:
            raise ValueError(f"{SYNTHETIC} has no examples, only how many there are")
        return self.text


def make_method(scenario: Scenario) -> Method:
    """The scenario's method, with its parameters."""
    method: Method = replace(METHODS[scenario.method.name], **own_parameters(scenario.method))  # type: ignore[type-var]  # all are dataclasses
    return method


def build_workload(scenario: Scenario) -> Workload:
    """Load and divide the data, find the layers, count the cost.

    If only time is simulated, torch is not imported.

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


def _build(scenario: Scenario) -> Workload:
    data = scenario.data
    if scenario.model.dtype == "nf4":
        try:
            check_nf4(scenario.model.name)
        except ModelError as error:
            raise InputError(f"model.dtype = 'nf4': {error}") from None
    tokenizer = (tokenizer_apart if _apart(scenario) else load_tokenizer)(scenario.model.name)
    if data.source == SYNTHETIC:
        names: tuple[str, ...] = ()
        text, lengths = None, Lengths.equal(_sizes(scenario), data.length)
        digest = hashlib.sha256(f"{data.length}|".encode() + lengths.samples.tobytes())
        sha256 = digest.hexdigest()
        card = _card(scenario, 0, tokenizer.pad_token)
    else:
        corpus = _corpus(scenario)
        card = _card(scenario, len(corpus.label_names), tokenizer.pad_token)
        text = _text(scenario, corpus, tokenizer)
        lengths = Lengths.of(text.dataset.train.length, text.shards)
        names, sha256 = text.dataset.label_names, text.dataset.sha256
    lora = _lora(scenario)
    if not scenario.training.timing_only:
        _check_start(scenario, card.layout, lora)
    return Workload(
        lengths,
        names,
        sha256,
        text,
        card.layout,
        card.sent,
        lora,
        _local(scenario),
        make_method(scenario),
        _costs(scenario, card),
        tokenizer.pad_token,
    )


def _apart(scenario: Scenario) -> bool:
    """Whether what needs torch is better left to another process."""
    return scenario.training.timing_only and "torch" not in sys.modules


def _corpus(scenario: Scenario) -> Corpus:
    data = scenario.data
    if data.source == STDLIB:
        return load_stdlib()
    return load_table(
        data.source,
        data.text_column,
        data.label_column,
        data.group_column,
        data.held_out,
        data.prompt_column,
    )


def _text(scenario: Scenario, corpus: Corpus, tokenizer: Tokenizer) -> Text:
    """Cut the corpus into examples and deal them."""
    data, devices = scenario.data, scenario.fleet.devices
    dataset = tokenize(corpus, tokenizer, data.task, data.length, data.held_out_per_group)
    if len(dataset.train) < devices:
        raise InputError(
            f"fleet.devices = {devices}: {data.source} has only "
            f"{len(dataset.train)} training examples; take fewer devices or more data"
        )
    shards = partition(
        dataset.train,
        data.partition,
        devices,
        streams.key(scenario.seed, "partition"),
        data.alpha,
        data.classes_per_device,
    )
    return Text(dataset, shards)


def _sizes(scenario: Scenario) -> NDArray[np.int64]:
    """Examples (N,) of devices without text, at least one each.

    Log-normal; with partition `quantity` gamma distributed, since shares of independent gamma
    variables in their sum are Dirichlet distributed. Who else is there does not matter.
    """
    data, device = scenario.data, np.arange(scenario.fleet.devices)
    if data.partition == "quantity":
        quantile = streams.uniform(scenario.seed, "samples", device)
        factor = gammaincinv(data.alpha, quantile) / data.alpha
    else:
        factor = np.exp(data.samples_sigma * streams.normal(scenario.seed, "samples", device))
    sizes = np.maximum(1.0, np.rint(data.samples * np.asarray(factor, dtype=np.float64)))
    return sizes.astype(np.int64)


def _card(scenario: Scenario, classes: int, pad_token: int) -> Card:
    """Layers and cost, by whichever process has torch."""
    data, choice, training = scenario.data, scenario.lora, scenario.training
    nf4 = scenario.model.dtype == "nf4"
    question = Question(
        scenario.model.name,
        data.task,
        classes,
        pad_token,
        "bfloat16" if nf4 else scenario.model.dtype,
        nf4,
        _lora(scenario).targets,
        choice.dropout,
        scenario.method.name,
        choice.rank,
        NUMBER_BITS[scenario.method.number_format],
        scenario.method.keep,
        scenario.method.value_bits,
        data.length,
        training.batch,
        training.optimizer,
        training.momentum,
        training.gradient_checkpointing,
        make_method(scenario).device_blocks,
    )
    try:
        return (card_apart if _apart(scenario) else make_card)(question)
    except CutError as error:
        blocks = question.device_blocks
        raise InputError(f"method.blocks = {blocks}: {error}") from None
    except TooLong as error:
        raise InputError(f"data.length = {data.length}: {error}") from None
    except UnknownHead as error:
        raise InputError(f"model.name = '{scenario.model.name}': {error}") from None
    except UnknownTarget as error:
        raise InputError(f"lora.targets = {choice.targets}: {error}") from None


def _costs(scenario: Scenario, card: Card) -> tuple[AdapterCost, ...]:
    """The card's costs; over the air a device sends all ranks, zeros where it has none."""
    if scenario.radio.uplink.name != "analog":
        return card.costs
    rank, number_bits = scenario.lora.rank, NUMBER_BITS[scenario.method.number_format]
    return tuple(cost.sending_all(rank, number_bits) for cost in card.costs)


def _check_start(scenario: Scenario, layout: Layout, lora: LoraSpec) -> None:
    """Check the adapter that training starts from, if any."""
    from fslora.peft_io import AdapterError, check_adapter

    start = scenario.lora.start
    if start is not None:
        try:
            check_adapter(Path(start), layout, lora)
        except AdapterError as error:
            raise InputError(f"lora.start = '{start}': {error}") from None


def _lora(scenario: Scenario) -> LoraSpec:
    choice = scenario.lora
    targets = choice.targets if isinstance(choice.targets, str) else tuple(choice.targets)
    return LoraSpec(choice.rank, choice.alpha, targets, choice.rslora, choice.dropout)


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
