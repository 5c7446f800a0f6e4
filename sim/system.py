"""From a scenario to what is simulated: workload, fleet, problem and plan."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fslora.cost import AdapterCost, count_cost
from fslora.data import DataError, Dataset, Shards, load_stdlib, load_table, partition, tokenize
from fslora.local import LocalTraining, Schedule
from fslora.lora import Layout, LoraSpec, find_layout
from fslora.methods import METHODS, Job, Method
from fslora.models import (
    ModelError,
    check_nf4,
    enable_checkpointing,
    load_model,
    load_tokenizer,
    max_tokens,
    shape_of,
)
from fslora.peft_io import AdapterError, check_adapter, load_adapter
from fslora.server import ServerOptimizer
from fslora.trainer import Learner, job_rows
from optimizer import Plan, Problem, RoundModel, solve
from sim.errors import InputError
from sim.scenario import Scenario
from sim.sections.base import NUMBER_BITS
from sim.sections.network import Device
from wireless import streams
from wireless.compute import compute_time_s
from wireless.devices import PRESETS, DevicePreset
from wireless.fleet import Fleet, RadioParameters, broadcast_rate_bps, draw_fleet


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


@dataclass(frozen=True, slots=True)
class System:
    """A scenario made concrete.

    Parameters
    ----------
    scenario
        The choices.
    workload, fleet
        What is to be done, and who does it over which links.
    broadcast_bps, broadcast_s
        Rate and duration of one downlink broadcast.
    problem
        What policies plan on.
    """

    scenario: Scenario
    workload: Workload
    fleet: Fleet
    broadcast_bps: float
    broadcast_s: float
    problem: Problem


def build_system(scenario: Scenario) -> System:
    """Load the data, count the cost, draw the fleet, and state the problem.

    Raises
    ------
    InputError
        If data or model cannot be had, or the devices cannot hold the model.
    """
    try:
        workload = _workload(scenario)
    except DataError as error:
        raise InputError(f"data: {error}") from None
    except ModelError as error:
        raise InputError(f"model.name: {error}") from None
    radio = _radio(scenario)
    choice = scenario.fleet
    fleet = draw_fleet(
        scenario.seed,
        choice.devices,
        _device(choice.preset),
        choice.compute_sigma,
        choice.memory_sigma,
        radio,
    )
    broadcast_bps = broadcast_rate_bps(fleet, radio)
    broadcast_s = workload.cost.download_bits / broadcast_bps
    cost = workload.cost
    base, one = (
        compute_time_s(
            workload.expected_flops(rank),
            workload.steps,
            fleet.compute_flops,
            fleet.step_overhead_s,
        )
        for rank in (0, 1)
    )
    model = scenario.policy.rounds
    problem = Problem(
        weight=workload.weight,
        # Local gradient norms are not known before training; equal ones say so.
        gradient_norm=np.ones(len(fleet)),
        compute_base_s=base,
        compute_per_rank_s=one - base,
        fixed_bits=float(cost.upload_bits_fixed),
        bits_per_rank=float(cost.upload_bits_per_rank),
        link=fleet.uplink,
        bandwidth_hz=radio.bandwidth_hz,
        overhead_s=scenario.schedule.overhead_s + broadcast_s,
        rank=scenario.lora.rank,
        rank_cap=_rank_cap(scenario, fleet, workload),
        min_rank=_min_rank(scenario, workload.method),
        min_probability=scenario.policy.min_probability,
        min_cohort=scenario.policy.min_cohort,
        rounds=RoundModel(model.base, model.sampling, model.rank_exponent),
    )
    return System(scenario, workload, fleet, broadcast_bps, broadcast_s, problem)


def make_plan(system: System, policy: str | None = None) -> Plan:
    """Plan by the scenario's policy, or by another one with its defaults.

    Raises
    ------
    InputError
        If the method cannot train the rank that the scenario asks for.
    """
    scenario = system.scenario
    if policy is None:
        policy = scenario.policy.name
        parameters = {
            name: getattr(scenario.policy, name)
            for name in ("rank", "probability")
            if hasattr(scenario.policy, name)
        }
    else:
        parameters = {}
    rank, method = parameters.get("rank"), system.workload.method
    if rank is not None and not method.accepts(scenario.lora.rank, rank):
        raise InputError(
            f"method.name = '{method.name}': cannot train policy.rank = {rank} of "
            f"{scenario.lora.rank}; choose method fslora or leave policy.rank out"
        )
    return solve(system.problem, policy, streams.key(scenario.seed, "plan"), **parameters)


def make_learner(system: System) -> Learner:
    """Load the base model and wrap it for training.

    Raises
    ------
    InputError
        If the model cannot be loaded or the asked-for host device is missing.
    """
    scenario, workload = system.scenario, system.workload
    torch.set_num_threads(scenario.training.threads)
    if scenario.training.deterministic:
        # cuBLAS reads it when it starts; without it torch refuses its products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(scenario.training.deterministic)
    device = host_device(scenario.training.device)
    try:
        base = load_model(
            scenario.model.name,
            scenario.data.task,
            len(workload.dataset.label_names),
            workload.pad_token,
            streams.key(scenario.seed, "head") % 2**32,
            _arithmetic(scenario),
            nf4=scenario.model.dtype == "nf4",
        ).to(torch.device(device))  # type: ignore[arg-type]  # its decorator hides a method
        if scenario.training.gradient_checkpointing:
            enable_checkpointing(base)
    except ModelError as error:
        raise InputError(str(error)) from None
    adapter = None
    if scenario.lora.start is not None:
        adapter = load_adapter(
            Path(scenario.lora.start), base, workload.layout, workload.lora, torch.float32
        )
    return Learner.start(
        base,
        workload.layout,
        workload.dataset,
        workload.shards,
        workload.lora,
        workload.local,
        workload.method,
        streams.key(scenario.seed, "adapter"),
        wire=getattr(torch, scenario.method.number_format),
        at_once=_at_once(scenario, workload),
        server=_server(scenario),
        adapter=adapter,
    )


def host_device(choice: str) -> str:
    """`cpu` or `cuda`, as chosen or, for `auto`, as there is.

    Raises
    ------
    InputError
        If CUDA is asked for and absent.
    """
    present = torch.cuda.is_available()
    if choice == "cuda" and not present:
        raise InputError("training.device = cuda: this machine has no CUDA device; use cpu or auto")
    return "cuda" if present and choice != "cpu" else "cpu"


def _workload(scenario: Scenario) -> Workload:
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
        _arithmetic(scenario),
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
        lora.rank,
        local,
        data.length,
        data.task,
        NUMBER_BITS[scenario.method.number_format],
        nf4,
        scenario.training.gradient_checkpointing,
        lora.dropout,
    )
    return Workload(dataset, shards, layout, lora, local, method, cost, tokenizer.pad_token)


def _arithmetic(scenario: Scenario) -> torch.dtype:
    """Number format the base computes in."""
    chosen = scenario.model.dtype
    dtype: torch.dtype = torch.bfloat16 if chosen == "nf4" else getattr(torch, chosen)
    return dtype


def _device(choice: str | Device) -> DevicePreset:
    """The median device of the fleet."""
    return PRESETS[choice] if isinstance(choice, str) else DevicePreset(**choice.model_dump())


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


def _server(scenario: Scenario) -> ServerOptimizer:
    choice = scenario.training.server.model_dump()
    return ServerOptimizer(rule=choice.pop("name"), **choice)


def _radio(scenario: Scenario) -> RadioParameters:
    radio = scenario.radio
    return RadioParameters(
        bandwidth_hz=radio.bandwidth_hz,
        downlink_bandwidth_hz=radio.downlink_bandwidth_hz,
        carrier_hz=radio.carrier_hz,
        cell_radius_m=radio.cell_radius_m,
        min_distance_m=radio.min_distance_m,
        bs_height_m=radio.bs_height_m,
        ut_height_m=radio.device_height_m,
        bs_power_dbm=radio.bs_power_dbm,
        bs_antenna_gain_db=radio.bs_antenna_gain_db,
        bs_noise_figure_db=radio.bs_noise_figure_db,
        ut_noise_figure_db=radio.device_noise_figure_db,
        extra_loss_db=radio.extra_loss_db,
        snr_gap_db=radio.snr_gap_db,
        fading=radio.fading,
    )


def _rank_cap(scenario: Scenario, fleet: Fleet, workload: Workload) -> NDArray[np.int64]:
    least = _min_rank(scenario, workload.method)
    cap = workload.cost.rank_cap(fleet.memory_bytes, scenario.lora.rank)
    short = np.flatnonzero(cap < least)
    if len(short):
        need = workload.cost.frozen_bytes + workload.cost.training_bytes(least)
        raise InputError(
            f"fleet.preset = '{_device(scenario.fleet.preset).name}': "
            f"{len(short)} of {len(fleet)} devices cannot hold the model at rank {least} (needs "
            f"{need / 2**30:.2f} GiB, device {short[0]} has "
            f"{fleet.memory_bytes[short[0]] / 2**30:.2f}); choose a larger preset, a smaller "
            "fleet.memory_sigma, model, training.batch or data.length"
        )
    if scenario.fleet.rank_caps is not None:
        if min(scenario.fleet.rank_caps) < least:
            raise InputError(
                f"fleet.rank_caps = {scenario.fleet.rank_caps}: method {workload.method.name} "
                f"trains no rank below {least}; leave them out or choose method fslora"
            )
        cap = np.minimum(cap, np.resize(scenario.fleet.rank_caps, len(fleet)))
    return cap


def _min_rank(scenario: Scenario, method: Method) -> int:
    """Lowest rank that the method trains."""
    rank = scenario.lora.rank
    return next(k for k in range(1, rank + 1) if method.accepts(rank, k))


def _at_once(scenario: Scenario, workload: Workload) -> int:
    """Devices per stack so that their training fits into the memory the scenario grants."""
    rank, layout = scenario.lora.rank, workload.layout
    # Beside what a device holds itself, the host keeps where it started and how far it came.
    kept = 2 * 4 * (rank * layout.numbers_per_rank + layout.head_numbers)
    granted = scenario.training.memory_gib * 2**30
    return max(1, int(granted // (workload.cost.training_bytes(rank) + kept)))
