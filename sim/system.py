"""From a scenario to what is simulated: workload, fleet and problem."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Method
from optimizer import Problem
from sim.errors import InputError
from sim.physical import World, build_world
from sim.round_models import round_model
from sim.scenario import Scenario
from sim.sections.policy import PolicyChoice
from sim.workload import Workload, build_workload
from wireless.channel import LEAST_PROBABILITY, LinkState
from wireless.compute import compute_time_s, throttled_time_s
from wireless.fleet import Fleet
from wireless.planning import planning_link

#: Upload that plans reckon with where the uplink is analog, whose time is overhead: they know no
#: uploads of nothing, and of this one microseconds are left.
_TOKEN_BITS = 1.0


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

    def server_s(self, rank: NDArray[np.int64]) -> float:
        """Seconds that the server takes for the arithmetic of a merge of updates at ranks (M,)."""
        work, method = self.workload, self.workload.method
        flops = method.server_flops(work.layout, self.scenario.lora.rank, rank.tolist())
        return flops / self.scenario.schedule.server_flops

    def slot_s(self, round_index: int) -> float:
        """Airtime of a round's sum over the air, which passes whoever sends; zero if digital."""
        if self.world.fleet.channel.radio.analog is None:
            return 0.0
        bits = float(self.workload.cost_of(round_index).upload_bits(self.scenario.lora.rank))
        return bits / float(self.solo_bps[0])

    def band_hz(self, time_s: float) -> float:
        """Uplink band of a cell at a moment."""
        if self.world.band is None:
            return self.scenario.radio.bandwidth_hz
        return float(self.world.band.value(np.zeros(1, dtype=np.int64), time_s)[0])

    def next_band_s(self, time_s: float) -> float:
        """Next moment at which the uplink band changes; infinite if never."""
        if self.world.band is None:
            return math.inf
        return float(self.world.band.next_change(np.zeros(1, dtype=np.int64), time_s)[0])


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
    policy = scenario.policy
    overhead_s = scenario.schedule.overhead_s + broadcast_s
    exchange = workload.expected_exchange(scenario.lora.rank)
    fixed_bits = cost.upload_bits_fixed + exchange.up_bits
    link = planning_link(fleet.channel)
    solo_bps = link.rate(_band_hz(world, radio.bandwidth_hz))
    if fleet.channel.radio.analog is not None:
        # The slot of the sum passes whoever sends. What is left for plans to divide is a token.
        overhead_s += float(cost.upload_bits_fixed) / float(solo_bps[0])
        fixed_bits = np.full(len(fleet), _TOKEN_BITS)
    if policy.deadline_s is not None and policy.deadline_s <= overhead_s:
        raise InputError(
            f"policy.deadline_s = {policy.deadline_s:g}: every round costs {overhead_s:.6g} s of "
            "broadcast and overhead; give more"
        )
    completion = _completion(world)
    download_bps = _download_bps(scenario, start)
    try:
        problem = Problem(
            weight=workload.weight,
            # Local gradient norms are not known before training; equal ones say so.
            gradient_norm=np.ones(len(fleet)),
            compute_base_s=none,
            compute_per_rank_s=(full - none) / scenario.lora.rank,
            fixed_bits=fixed_bits,
            bits_per_rank=float(cost.upload_bits_per_rank),
            link=link,
            bandwidth_hz=_band_hz(world, radio.bandwidth_hz),
            overhead_s=overhead_s,
            rank=scenario.lora.rank,
            rank_cap=_rank_cap(scenario, world, workload),
            min_rank=_min_rank(scenario, workload.method),
            min_probability=_min_probability(policy, completion),
            min_cohort=policy.min_cohort,
            max_noise=math.inf if policy.max_noise is None else policy.max_noise,
            rounds=round_model(policy, scenario.lora.rank, len(fleet)),
            allocation=radio.allocation,
            completion=completion,
            cell=start.cell,
            download_bps=download_bps,
            fixed_down_bits=_down_bits(scenario, workload, download_bps),
            down_bits_per_rank=float(cost.download_bits_per_rank),
            deadline_s=math.inf if policy.deadline_s is None else policy.deadline_s,
            energy_limit_j=np.full(
                len(fleet), math.inf if policy.energy_limit_j is None else policy.energy_limit_j
            ),
            compute_power_w=fleet.compute_power_w,
            transmit_power_w=10 ** ((mean_power_dbm(world, radio.uplink_share) - 30) / 10),
        )
    except ValueError as error:
        raise InputError(f"the scenario cannot be planned: {error}") from None
    return System(scenario, workload, world, broadcast_bps, broadcast_s, problem, solo_bps)


def problem_at(system: System, time_s: float) -> tuple[Problem, LinkState]:
    """The problem with the channels as they are at a moment, and their state.

    Places, path loss and serving cells are those of the moment; compute speed, presence and the
    band keep their means over time, and a broadcast its rate.

    Parameters
    ----------
    system
        What is simulated.
    time_s
        Simulated time.
    """
    world, problem = system.world, system.problem
    channel = world.fleet.channel
    if not channel.changes:
        return problem, channel.start
    state = channel.at(np.arange(len(channel)), time_s)
    there = world.availability.share(np.arange(len(channel)))
    # Whoever has walked out of reach for now is planned as barely within it.
    completion = there * np.maximum(state.sends_probability, LEAST_PROBABILITY)
    download_bps = _download_bps(system.scenario, state)
    return replace(
        problem,
        link=planning_link(channel, state),
        completion=completion,
        min_probability=np.minimum(_least_probability(system.scenario.policy, completion), 1.0),
        cell=state.cell,
        download_bps=download_bps,
        fixed_down_bits=_down_bits(system.scenario, system.workload, download_bps),
    ), state


def _download_bps(scenario: Scenario, state: LinkState) -> NDArray[np.float64] | None:
    """Rates (N,) of the devices' own downloads, if the server does not broadcast."""
    if scenario.radio.downlink != "unicast":
        return None
    return state.downlink.rate(scenario.radio.downlink_bandwidth_hz)


def _down_bits(
    scenario: Scenario, workload: Workload, download_bps: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Bits (N,) of the devices' own downloads at rank zero, with what their local steps bring."""
    exchange = workload.expected_exchange(scenario.lora.rank)
    bits = np.asarray(workload.cost.download_bits_fixed + exchange.down_bits)
    if download_bps is None:
        return bits
    # The server's arithmetic keeps a device waiting like bits that the downlink sends it.
    return np.asarray(bits + exchange.flops / scenario.schedule.server_flops * download_bps)


def _least_probability(
    policy: PolicyChoice, completion: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sampling probability (N,) that each device must have; above 1 where none is enough."""
    wanted = 0.0 if policy.min_participation is None else policy.min_participation
    return np.maximum(policy.min_probability, wanted / completion)


def _min_probability(policy: PolicyChoice, completion: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same, refused where no sampling probability is enough."""
    least = _least_probability(policy, completion)
    # A share that a device just reaches is a rounding above it.
    rare = np.flatnonzero(least > 1 + 1e-12)
    if len(rare):
        worst = rare[np.argmin(completion[rare])]
        raise InputError(
            f"policy.min_participation = {policy.min_participation:g}: device {worst} is there and "
            f"not in outage in {completion[worst]:.4g} of the rounds; give no more than that"
        )
    return np.minimum(least, 1.0)


def mean_power_dbm(world: World, uplink_share: float) -> NDArray[np.float64]:
    """Full power (N,) over the time of a transfer, of which the uplink has its share."""
    return np.asarray(world.fleet.channel.max_power_dbm + 10 * math.log10(uplink_share))


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
