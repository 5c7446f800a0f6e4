"""From a scenario to what is simulated: workload, fleet, problem and plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Method
from optimizer import Plan, Problem, RoundModel, solve
from sim.errors import InputError
from sim.scenario import Scenario
from sim.sections.network import Device
from sim.workload import Workload, build_workload
from wireless import streams
from wireless.compute import compute_time_s
from wireless.devices import PRESETS, DevicePreset
from wireless.fleet import Fleet, RadioParameters, broadcast_rate_bps, draw_fleet


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
    workload = build_workload(scenario)
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


def _device(choice: str | Device) -> DevicePreset:
    """The median device of the fleet."""
    return PRESETS[choice] if isinstance(choice, str) else DevicePreset(**choice.model_dump())


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
