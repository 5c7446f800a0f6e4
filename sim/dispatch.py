"""Who takes part in a round, over which links, and for how long: the facts that events play out.

The event engine and the verification both open rounds here; how the uplink band is then shared they
find out each in its own way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Job
from optimizer import Cohort
from optimizer.problem import in_turn
from sim.errors import RunError
from sim.steering import Steering
from sim.system import System, mean_power_dbm
from wireless import streams
from wireless.availability import AlwaysOn
from wireless.battery import Battery
from wireless.channel import LinkState
from wireless.compute import compute_jitter, compute_time_s, throttled_time_s
from wireless.energy import compute_energy_j, uplink_energy_j
from wireless.link import Link
from wireless.spectrum import Transfers

#: Devices that are asked at once whether anybody is there.
_FEW = 4096


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One device's part of one round.

    Parameters
    ----------
    round, device, cell
        Who, when, and from which base station.
    download_s, download_bytes, download_bps
        Its own download, if the server does not broadcast: duration, payload and rate.
    compute_s, compute_j
        Duration and energy of its local training.
    upload_bytes
        Payload of its upload.
    tx_power_dbm
        Power of its transmitter while it sends at full power, averaged over the uplink's share of
        the time.
    """

    round: int
    device: int
    cell: int
    download_s: float
    download_bytes: int
    download_bps: float
    compute_s: float
    compute_j: float
    upload_bytes: int
    tx_power_dbm: float


@dataclass(frozen=True, slots=True)
class Opened:
    """A round about to run.

    Parameters
    ----------
    round
        Its number.
    plan_s, wait_s
        Time that planning it takes, and then until there is anybody, and a band.
    band_hz
        Uplink band of a cell.
    cohort
        Who will complete, at which rank and aggregation weight.
    jobs, dispatches
        What they train, and what it costs.
    link
        Their uplinks.
    ready_s
        (M,) when each is ready to send, in seconds after the broadcast.
    bits
        (M,) what each sends.
    dropped
        Devices that the broadcast reaches, but that fading keeps from sending.
    transfers
        The uploads of each cell's members by the rule's own formula, with the members' positions
        in the cohort; times as `ready_s`.
    """

    round: int
    plan_s: float
    wait_s: float
    band_hz: float
    cohort: Cohort
    jobs: tuple[Job, ...]
    dispatches: tuple[Dispatch, ...]
    link: Link
    ready_s: NDArray[np.float64]
    bits: NDArray[np.float64]
    dropped: NDArray[np.int64]
    transfers: tuple[tuple[NDArray[np.intp], Transfers], ...]

    @property
    def finish_s(self) -> float:
        """When the last upload ends, in seconds after the broadcast; 0 for an empty cohort."""
        return max((each.end_s for _, each in self.transfers), default=0.0)

    @property
    def sampled(self) -> int:
        """Number of devices that the plan drew and that were there."""
        return len(self.jobs) + len(self.dropped)


def cohort_s(system: System, opened: Opened) -> float:
    """Duration of a round by formula, with the time of planning it and of waiting."""
    overhead_s = system.scenario.schedule.overhead_s
    return opened.plan_s + opened.wait_s + system.broadcast_s + opened.finish_s + overhead_s


class Dispatcher:
    """Opens one round after the other; remembers how often devices trained and what is left.

    Parameters
    ----------
    system
        What is simulated.
    steering
        Who is sampled, at which rank.
    """

    def __init__(self, system: System, steering: Steering) -> None:
        self._system, self._steering = system, steering
        self._dispatched = np.zeros(len(system.fleet), dtype=np.int64)
        self._battery = Battery(system.battery_j)

    def open(self, round_index: int, now_s: float) -> Opened:
        """Draw the cohort of a round and find out what its part will be.

        A job's draws are keyed by how often its device was dispatched before, so a device's m-th
        job trains on the same data whatever the policy.

        Raises
        ------
        RunError
            If nobody will take part again, or a device would never end its training.
        """
        system = self._system
        world, scenario = system.world, system.scenario
        plan_s = self._steering.planning_s
        start_s = self._first_chance(now_s + plan_s)
        if start_s is None:
            raise RunError("no device is ever there, charged, and with a band to send in")
        drawn = self._steering.draw(round_index)
        there = ~self._battery.empty[drawn.device]
        there &= world.availability.available(drawn.device, start_s)
        reached = drawn.only(there)
        state = world.fleet.channel.at(reached.device, start_s)
        weight = self._steering.corrected(reached.device, reached.weight, state.sends_probability)
        reached = replace(reached, weight=weight)
        cohort, state = reached.only(~state.outage), state.take(~state.outage)
        device = cohort.device
        jobs = tuple(
            Job(
                int(n),
                int(rank),
                streams.key(scenario.seed, "job", n, self._dispatched[n]),
                round_index,
            )
            for n, rank in zip(device, cohort.rank, strict=True)
        )
        download_s, download_bytes, download_bps = self._downloads(cohort, state.downlink)
        heard_s = in_turn(download_s, state.cell)
        compute_s = self._compute_s(jobs, start_s + system.broadcast_s + heard_s)
        ready_s = heard_s + compute_s
        bits = system.workload.cost.upload_bits(cohort.rank)
        band_hz = self._band_hz(start_s)
        transfers = self._transfers(state, ready_s, bits, band_hz)
        compute_j = compute_energy_j(world.fleet.compute_power_w[device], compute_s)
        self._dispatched[device] += 1
        self._battery = self._battery.spend(device, compute_j)
        power_dbm = mean_power_dbm(world, scenario.radio.uplink_share)[device]
        for members, sent in transfers:
            upload_j = uplink_energy_j(power_dbm[members], sent.power_s)
            self._battery = self._battery.spend(device[members], upload_j)
        return Opened(
            round_index,
            plan_s,
            start_s - (now_s + plan_s),
            band_hz,
            cohort,
            jobs,
            tuple(
                Dispatch(
                    round_index,
                    job.device,
                    int(state.cell[m]),
                    float(download_s[m]),
                    int(download_bytes[m]),
                    float(download_bps[m]),
                    float(compute_s[m]),
                    float(compute_j[m]),
                    int(bits[m]) // 8,
                    float(power_dbm[m]),
                )
                for m, job in enumerate(jobs)
            ),
            state.uplink,
            ready_s,
            bits,
            reached.device[~np.isin(reached.device, device)],
            transfers,
        )

    def deserted(self, now_s: float) -> bool:
        """Whether nobody will take part from a moment on."""
        return self._first_chance(now_s) is None

    def _transfers(
        self,
        state: LinkState,
        ready_s: NDArray[np.float64],
        bits: NDArray[np.float64],
        band_hz: float,
    ) -> tuple[tuple[NDArray[np.intp], Transfers], ...]:
        """Uploads of each cell's members by the rule's own formula."""
        world, found = self._system.world, []
        for cell in np.unique(state.cell):
            members = np.flatnonzero(state.cell == cell)
            link = state.uplink.take(members)
            try:
                sent = world.rule.transfers(
                    ready_s[members], bits[members], link, band_hz, world.whole
                )
            except ValueError as error:
                if world.whole is None:
                    raise
                raise RunError(
                    f"radio.block_hz: {len(members)} devices share {band_hz:g} Hz ({error})"
                ) from None
            found.append((members, sent))
        return tuple(found)

    def _first_chance(self, now_s: float) -> float | None:
        """First moment from now on at which somebody is there and has a band, if there is one."""
        world = self._system.world
        if isinstance(world.availability, AlwaysOn) and world.band is None:
            return now_s if not self._battery.empty.all() else None
        alive = np.flatnonzero(~self._battery.empty)
        moment = now_s
        while len(alive):
            there_s = self._somebody(alive, moment)
            if not math.isfinite(there_s):
                break
            if self._band_hz(there_s) > 0:
                return there_s
            assert world.band is not None
            moment = float(world.band.next_change(np.zeros(1, dtype=np.int64), there_s)[0])
            if not math.isfinite(moment):
                break
        return None

    def _somebody(self, alive: NDArray[np.intp], time_s: float) -> float:
        """First moment from a time on at which any of some devices is there."""
        availability = self._system.world.availability
        # Mostly somebody is there now, and a few of many are enough to know.
        for first in range(0, len(alive), _FEW):
            if availability.available(alive[first : first + _FEW], time_s).any():
                return time_s
        return float(availability.next_available(alive, time_s).min())

    def _band_hz(self, time_s: float) -> float:
        """Uplink band of a cell at a moment."""
        band = self._system.world.band
        if band is None:
            return self._system.scenario.radio.bandwidth_hz
        return float(band.value(np.zeros(1, dtype=np.int64), time_s)[0])

    def _downloads(
        self, cohort: Cohort, link: Link
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """Durations, bytes and rates of the members' own downloads; zeros after a broadcast."""
        radio, cost = self._system.scenario.radio, self._system.workload.cost
        if radio.downlink == "broadcast":
            nothing = np.zeros(len(cohort.device))
            return nothing, nothing.astype(np.int64), nothing
        bits = cost.download_bits(cohort.rank)
        rate = link.rate(radio.downlink_bandwidth_hz)
        return bits / rate, bits.astype(np.int64) // 8, rate

    def _compute_s(
        self, jobs: tuple[Job, ...], start_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Compute times (M,) of jobs that start at given times, from their own tokens and ranks."""
        system, choice = self._system, self._system.scenario.fleet
        workload, fleet, speed = system.workload, system.world.fleet, system.world.speed
        device = np.array([job.device for job in jobs], dtype=np.int64)
        flops = np.array([workload.flops(job) for job in jobs], dtype=np.float64)
        seconds = compute_time_s(
            flops,
            workload.steps[device],
            fleet.compute_flops[device],
            fleet.step_overhead_s[device],
        )
        if choice.jitter_sigma > 0:
            seconds = seconds * compute_jitter(
                system.scenario.seed, device, self._dispatched[device], choice.jitter_sigma
            )
        if choice.throttle is not None:
            # Seconds at full speed are the work here, done at one second per second.
            seconds = throttled_time_s(seconds, 1.0, choice.throttle.after_s, choice.throttle.share)
        if speed is not None:
            seconds = speed.finish_s(device, start_s, seconds) - start_s
            if not np.isfinite(seconds).all():
                stuck = int(device[~np.isfinite(seconds)][0])
                raise RunError(
                    f"fleet.compute_trace: device {stuck} stands still from some time on, its "
                    "training would never end"
                )
        return np.asarray(seconds)
