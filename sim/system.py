"""From a scenario to what is simulated: workload, fleet, problem and plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Method
from optimizer import Plan, Problem, Progress, solve
from sim.errors import InputError
from sim.physical import World, build_world
from sim.scenario import Scenario
from sim.workload import Workload, build_workload
from wireless import streams
from wireless.channel import LEAST_PROBABILITY
from wireless.compute import compute_time_s, throttled_time_s
from wireless.fleet import Fleet
from wireless.planning import planning_link


@dataclass(frozen=True, slots=True)
class System:
    """A scenario made concrete.

    Parameters
    ----------
    scenario
        The choices.
    workload, world
        What is to be done, and who does it over which links.
    broadcast_bps, broadcast_s
        Rate and duration of one downlink broadcast; both zero if there is none.
    problem
        What policies plan on.
    solo_bps
        (N,) rate of each device alone on the whole uplink band, as plans reckon with it.
    """

    scenario: Scenario
    workload: Workload
    world: World
    broadcast_bps: float
    broadcast_s: float
    problem: Problem
    solo_bps: NDArray[np.float64]

    @property
    def fleet(self) -> Fleet:
        """The devices."""
        return self.world.fleet

    @property
    def battery_j(self) -> NDArray[np.float64]:
        """Energy (N,) that each device has for the run."""
        if self.scenario.fleet.battery:
            return self.fleet.battery_j
        return np.full(len(self.fleet), np.inf)


def build_system(scenario: Scenario) -> System:
    """Load the data, count the cost, draw the fleet, and state the problem.

    Raises
    ------
    InputError
        If data or model cannot be had, the radio's values do not fit together, or the devices
        cannot hold the model or never take part.
    """
    workload = build_workload(scenario)
    cost, length = workload.cost, scenario.data.length
    world = build_world(scenario, float(cost.example_flops(scenario.lora.rank, length)) / length)
    fleet, start = world.fleet, world.fleet.channel.start
    radio = scenario.radio
    broadcast_bps = broadcast_s = 0.0
    if radio.downlink == "broadcast":
        broadcast_bps = fleet.broadcast_bps
        broadcast_s = float(cost.download_bits(scenario.lora.rank)) / broadcast_bps
    none, full = (_compute_s(scenario, workload, world, k) for k in (0, scenario.lora.rank))
    model = scenario.policy.rounds
    problem = Problem(
        weight=workload.weight,
        # Local gradient norms are not known before training; equal ones say so.
        gradient_norm=np.ones(len(fleet)),
        compute_base_s=none,
        compute_per_rank_s=(full - none) / scenario.lora.rank,
        fixed_bits=float(cost.upload_bits_fixed),
        bits_per_rank=float(cost.upload_bits_per_rank),
        link=planning_link(fleet.channel),
        bandwidth_hz=_band_hz(world, radio.bandwidth_hz),
        overhead_s=scenario.schedule.overhead_s + broadcast_s,
        rank=scenario.lora.rank,
        rank_cap=_rank_cap(scenario, world, workload),
        min_rank=_min_rank(scenario, workload.method),
        min_probability=np.full(len(fleet), scenario.policy.min_probability),
        min_cohort=scenario.policy.min_cohort,
        rounds=Progress(model.base, model.sampling, model.rank_exponent),
        allocation=radio.allocation,
        completion=_completion(world),
        cell=start.cell,
        download_bps=(
            start.downlink.rate(radio.downlink_bandwidth_hz)
            if radio.downlink == "unicast"
            else None
        ),
        fixed_down_bits=float(cost.download_bits_fixed),
        down_bits_per_rank=float(cost.download_bits_per_rank),
    )
    solo_bps = problem.link.rate(problem.bandwidth_hz)
    return System(scenario, workload, world, broadcast_bps, broadcast_s, problem, solo_bps)


def _compute_s(
    scenario: Scenario, workload: Workload, world: World, rank: int
) -> NDArray[np.float64]:
    """Compute time (N,) at one rank that plans reckon with, at the mean of jitter and traces."""
    fleet, throttle = world.fleet, scenario.fleet.throttle
    seconds = compute_time_s(
        workload.expected_flops(rank), workload.steps, fleet.compute_flops, fleet.step_overhead_s
    )
    if throttle is not None:
        seconds = throttled_time_s(seconds, 1.0, throttle.after_s, throttle.share)
    if world.speed is None:
        return seconds
    mean = world.speed.long_run_mean(np.arange(len(fleet)))
    if not mean.all():
        raise InputError(
            f"fleet.compute_trace: device {int(np.argmin(mean))} ends at speed zero; give another "
            "last speed, or period_s for a trace that starts again"
        )
    return np.asarray(seconds / mean)


def _completion(world: World) -> NDArray[np.float64]:
    """Probability (N,) that a sampled device is there and not in outage."""
    fleet = world.fleet
    there = world.availability.share(np.arange(len(fleet)))
    never = np.flatnonzero(there <= 0)
    if len(never):
        raise InputError(
            f"fleet.availability: device {never[0]} is never there; leave it out of the trace"
        )
    sends = fleet.channel.start.sends_probability
    mute = np.flatnonzero(sends < LEAST_PROBABILITY)
    if len(mute):
        raise InputError(
            f"radio.fading.outage_snr_db = {fleet.channel.radio.fading.outage_snr_db:g}: device "
            f"{mute[0]} would send in {sends[mute[0]]:.2g} of the rounds, at least "
            f"{LEAST_PROBABILITY:g} is needed; lower it or bring the devices nearer"
        )
    return np.asarray(there * sends)


def _band_hz(world: World, constant_hz: float) -> float:
    """Uplink band that plans reckon with: the mean of a trace."""
    if world.band is None:
        return constant_hz
    mean = float(world.band.long_run_mean(np.zeros(1, dtype=np.int64))[0])
    if mean <= 0:
        raise InputError("radio.bandwidth_trace: its mean band is zero; give a band or a period")
    return mean


def make_plan(system: System, policy: str | None = None) -> Plan:
    """Plan by the scenario's policy, or by another one with its defaults.

    Raises
    ------
    InputError
        If the method cannot train the rank that the scenario asks for, or the cohort needs more
        resource blocks than there are.
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
    plan = solve(system.problem, policy, streams.key(scenario.seed, "plan"), **parameters)
    _check_blocks(system, plan)
    return plan


def _check_blocks(system: System, plan: Plan) -> None:
    """Refuse resource blocks of which there are too few for those who take part for certain."""
    radio, problem, world = system.scenario.radio, system.problem, system.world
    if radio.block_hz is None:
        return
    least_hz = radio.bandwidth_hz
    if world.band is not None:
        least_hz = float(world.band.level[world.band.level > 0].min())
    certain = problem.takes_part(plan.probability) >= 1
    together = int(np.bincount(problem.cell[certain], minlength=1).max())
    needed = 1 if radio.allocation == "time-division" else max(1, together)
    blocks = int(least_hz // radio.block_hz)
    if blocks < needed:
        raise InputError(
            f"radio.block_hz = {radio.block_hz:g}: {least_hz:g} Hz are {blocks} blocks, and "
            f"{needed} are needed; take narrower blocks, or a policy of smaller cohorts"
        )


def _rank_cap(scenario: Scenario, world: World, workload: Workload) -> NDArray[np.int64]:
    fleet, least = world.fleet, _min_rank(scenario, workload.method)
    cap = workload.cost.rank_cap(fleet.memory_bytes, scenario.lora.rank)
    short = np.flatnonzero(cap < least)
    if len(short):
        need = workload.cost.frozen_bytes + workload.cost.training_bytes(least)
        raise InputError(
            f"fleet.preset = {_kinds(world)}: {len(short)} of {len(fleet)} devices cannot hold the "
            f"model at rank {least} (needs {need / 2**30:.2f} GiB, device {short[0]} has "
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


def _kinds(world: World) -> str:
    """Names of the kinds of devices, as a message shows them."""
    return ", ".join(f"'{name}'" for name in world.kinds)


def _min_rank(scenario: Scenario, method: Method) -> int:
    """Lowest rank that the method trains."""
    rank = scenario.lora.rank
    return next(k for k in range(1, rank + 1) if method.accepts(rank, k))
