"""Devices sent out together, over which links, and for how long: the facts that events play out.

Everything here is a function of (device, how often it was dispatched, time); how the uplink bands
are then shared, and what that does to each upload, is found out by events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer import Cohort
from optimizer.problem import in_turn
from sim.errors import RunError
from sim.sections.base import NUMBER_BITS
from sim.system import System, mean_power_dbm
from wireless import failures, streams
from wireless.availability import AlwaysOn
from wireless.battery import Battery
from wireless.channel import LinkState
from wireless.compute import compute_jitter, compute_time_s, throttled_time_s
from wireless.energy import compute_energy_j, uplink_energy_j
from wireless.link import Link

FloatArray = NDArray[np.float64]

#: A battery with so small a part of its charge is empty: the rest is a rounding of what was spent.
_FLAT = 1e-9

#: Devices that are asked at once whether anybody is there.
_FEW = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """M devices that are sent out together, and what their part is going to be.

    Parameters
    ----------
    round
        The round, or the next merge, at whose beginning they were sent out.
    device, rank, weight
        (M,) who, at which rank, with which aggregation weight.
    key
        (M,) seeds of their jobs.
    cell, link
        (M,) base stations, and the uplinks to them.
    sent_s, heard_s
        Simulated seconds at which they were sent for, and at which the first downloads begin or the
        broadcast has been received.
    download_s, download_bytes, download_bps
        (M,) duration, payload and rate of their own downloads; zeros after a broadcast.
    after_s, compute_s
        (M,) seconds after `heard_s` at which they begin to compute, and for how long they do.
    compute_w, transmit_w
        (M,) powers drawn while computing, and radiated at full power, averaged over the uplink's
        share of the time; over an analog uplink more, by the rounds in which the device is silent.
    bits
        (M,) what they send.
    fails_s
        (M,) simulated seconds at which they fail before they are ready; infinite if they do not.
    leaves_s
        (M,) simulated seconds at which they go away; infinite if never.
    charge_j
        (M,) what their batteries hold at the start.
    delivered
        (M, A) share of the payload that each attempt of an upload gets through.
    """

    round: int
    device: NDArray[np.int64]
    rank: NDArray[np.int64]
    weight: FloatArray
    key: NDArray[np.int64]
    cell: NDArray[np.int64]
    link: Link
    sent_s: float
    heard_s: float
    download_s: FloatArray
    download_bytes: NDArray[np.int64]
    download_bps: FloatArray
    after_s: FloatArray
    compute_s: FloatArray
    compute_w: FloatArray
    transmit_w: FloatArray
    bits: FloatArray
    fails_s: FloatArray
    leaves_s: FloatArray
    charge_j: FloatArray
    delivered: FloatArray

    def __len__(self) -> int:
        """Return the number of devices M."""
        return len(self.device)

    @property
    def start_s(self) -> FloatArray:
        """Simulated seconds (M,) at which they begin to compute."""
        return self.heard_s + self.after_s

    @property
    def ready_s(self) -> FloatArray:
        """Simulated seconds (M,) at which they are ready to send, if they do not fail before."""
        return self.heard_s + (self.after_s + self.compute_s)

    @property
    def at_risk(self) -> bool:
        """Whether uploads may break off: by loss, departure, or an empty battery."""
        return bool(
            self.delivered.shape[1] > 1
            or (self.delivered < 1).any()
            or np.isfinite(self.leaves_s).any()
            or np.isfinite(self.charge_j).any()
        )

    @property
    def compute_j(self) -> FloatArray:
        """Energy (M,) of computing to the end."""
        return compute_energy_j(self.compute_w, self.compute_s)


class Dispatcher:
    """Sends devices out; knows how often each was, who is out, and what batteries hold.

    Parameters
    ----------
    system
        What is simulated.
    """

    def __init__(self, system: System) -> None:
        devices = len(system.fleet)
        self._system = system
        self._dispatched = np.zeros(devices, dtype=np.int64)
        self._out = np.zeros(devices, dtype=np.bool_)
        self._battery = Battery(system.battery_j) if system.scenario.fleet.battery else None
        self._empty = np.zeros(devices, dtype=np.bool_)
        choice = system.scenario.failures
        self._may_fail = (
            self._battery is not None or choice.departures or choice.crashes is not None
        )
        self._steps = system.workload.steps
        # Bits that merges have added to what devices need, and how many of them each has.
        self._merged_bits = self._everybody_has_bits = 0.0
        self._has_bits = np.zeros(devices)
        self._transmit_w = _watts(mean_power_dbm(system.world, system.scenario.radio.uplink_share))

    def free(self, device: NDArray[np.int64], time_s: float) -> NDArray[np.bool_]:
        """Which of some devices (M,) are there, charged, and not out already."""
        free: NDArray[np.bool_] = ~self._out[device]
        if not isinstance(self._system.world.availability, AlwaysOn):
            free &= self._system.world.availability.available(device, time_s)
        if self._battery is not None:
            free &= ~self._empty[device]
        return free

    def send_out(
        self,
        round_index: int,
        cohort: Cohort,
        state: LinkState,
        start_s: float,
        heard_s: float,
        behind_s: FloatArray | None = None,
    ) -> Batch:
        """Find out what the part of some devices will be, and count them as out.

        A job's draws are keyed by how often its device was dispatched before, so a device's m-th
        job trains on the same data whatever the policy and the schedule.

        Parameters
        ----------
        round_index
            Round that they are sent out in.
        cohort
            The devices, all of them free.
        state
            Their links.
        start_s, heard_s
            Simulated seconds at which they are sent for, and at which the broadcast has been
            received or the first download begins.
        behind_s
            (M,) seconds for which the downlinks of their cells are still busy with others.

        Raises
        ------
        RunError
            If a device would never end its training.
        """
        system, device = self._system, cohort.device
        seed, dispatch = system.scenario.seed, self._dispatched[device]
        key = streams.keys(seed, "job", device, dispatch)
        exchange = system.workload.exchange_of(device, key, cohort.rank, round_index)
        downloads = self._downloads(round_index, cohort, state.downlink, exchange.down_bits)
        download_s, download_bytes, download_bps = downloads
        # Gradients come with the download, after the server's own part in all the steps.
        served_s = exchange.flops / system.scenario.schedule.server_flops + download_s
        after_s = in_turn(served_s, state.cell) if download_s.any() else download_s
        if behind_s is not None:
            after_s = after_s + behind_s
        compute_s = self._compute_s(round_index, cohort, key, dispatch, heard_s + after_s)
        charge_j = leaves_s = fails_s = np.full(len(device), np.inf)
        if self._battery is not None:
            charge_j = self._battery.left_j[device]
        if system.scenario.failures.departures:
            leaves_s = system.world.availability.next_unavailable(device, start_s)
        compute_w, transmit_w = system.fleet.compute_power_w[device], self._transmit_w[device]
        if system.fleet.channel.radio.analog is not None:
            # Their limit is a mean in which the rounds of silence count.
            transmit_w = transmit_w / state.sends_probability
        if self._may_fail:
            lives_s = self._lives_s(device, dispatch, compute_w, charge_j)
            begin_s = heard_s + after_s
            # Whoever goes away during its download is missed when it should begin to compute.
            fails_s = np.maximum(np.minimum(begin_s + lives_s, leaves_s), begin_s)
            fails_s[(lives_s >= compute_s) & (leaves_s >= begin_s + compute_s)] = np.inf
        self._dispatched[device] += 1
        self._out[device] = True
        return Batch(
            round_index,
            device,
            cohort.rank,
            cohort.weight,
            key,
            state.cell,
            state.uplink,
            start_s,
            heard_s,
            download_s,
            download_bytes,
            download_bps,
            after_s,
            compute_s,
            compute_w,
            transmit_w,
            system.workload.cost_of(round_index).upload_bits(cohort.rank) + exchange.up_bits,
            fails_s,
            leaves_s,
            charge_j,
            self._delivered(device, dispatch),
        )

    def broadcast_bits(self, round_index: int) -> float:
        """What the broadcast of a round holds, after which everybody has all that was merged."""
        workload = self._system.workload
        behind = self._behind_bits(self._merged_bits - self._everybody_has_bits)
        self._everybody_has_bits = self._merged_bits
        rank = self._system.scenario.lora.rank
        return float(workload.cost_of(round_index).download_bits(rank)) + float(behind)

    def merged(self, rank: NDArray[np.int64]) -> None:
        """Take note of what a merge of updates at ranks (M,) adds to what devices need."""
        workload, scenario = self._system.workload, self._system.scenario
        if len(rank):
            numbers = workload.method.merged_numbers(
                workload.layout, scenario.lora.rank, rank.tolist()
            )
            self._merged_bits += numbers * NUMBER_BITS[scenario.method.number_format]

    def came_back(self, device: NDArray[np.int64], energy_j: FloatArray) -> None:
        """Count devices (M,) as free again, with what they have spent."""
        self._out[device] = False
        if self._battery is not None:
            self._battery = self._battery.spend(device, energy_j)
            capacity_j = self._battery.capacity_j
            self._empty = np.isfinite(capacity_j) & (self._battery.left_j <= _FLAT * capacity_j)

    def next_free_s(self, now_s: float) -> float:
        """Next moment at which somebody who is not out becomes free; infinite if never."""
        idle = ~self._out
        if self._battery is not None:
            idle &= ~self._empty
        device = np.flatnonzero(idle)
        if not len(device):
            return math.inf
        return float(self._system.world.availability.next_available(device, now_s).min())

    def first_chance(self, now_s: float) -> float | None:
        """First moment from now on at which somebody is there and has a band, if there is one.

        Who is out now counts as there.
        """
        world = self._system.world
        if isinstance(world.availability, AlwaysOn) and world.band is None:
            alone = self._battery is not None and bool(self._empty.all())
            return None if alone else now_s
        alive = np.arange(len(self._out))
        if self._battery is not None:
            alive = np.flatnonzero(~self._empty)
        moment = now_s
        while len(alive):
            there_s = self._somebody(alive, moment)
            if not math.isfinite(there_s):
                break
            if self._system.band_hz(there_s) > 0:
                return there_s
            moment = self._system.next_band_s(there_s)
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

    def _lives_s(
        self,
        device: NDArray[np.int64],
        dispatch: NDArray[np.int64],
        compute_w: FloatArray,
        charge_j: FloatArray,
    ) -> FloatArray:
        """For how long devices (M,) could compute: until they crash, or are out of charge."""
        lives_s = np.divide(
            charge_j, compute_w, out=np.full(len(device), np.inf), where=compute_w > 0
        )
        crashes = self._system.scenario.failures.crashes
        if crashes is not None:
            seed = self._system.scenario.seed
            crash_s = failures.crash_s(seed, device, dispatch, crashes.mean_s)
            lives_s = np.minimum(lives_s, crash_s)
        return np.asarray(lives_s)

    def _delivered(self, device: NDArray[np.int64], dispatch: NDArray[np.int64]) -> FloatArray:
        """Shares (M, A) of the payload that attempts get through."""
        losses = self._system.scenario.failures.losses
        if losses is None:
            return np.ones((len(device), 1))
        return failures.delivered_share(
            self._system.scenario.seed, device, dispatch, losses.retries + 1, losses.probability
        )

    def _downloads(
        self, round_index: int, cohort: Cohort, link: Link, gradient_bits: FloatArray
    ) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
        """Durations, bytes and rates of the members' own downloads; zeros after a broadcast."""
        radio = self._system.scenario.radio
        cost = self._system.workload.cost_of(round_index)
        if radio.downlink == "broadcast":
            nothing = np.zeros(len(cohort.device))
            return nothing, nothing.astype(np.int64), nothing
        behind = self._behind_bits(self._merged_bits - self._has_bits[cohort.device])
        self._has_bits[cohort.device] = self._merged_bits
        bits = cost.download_bits(cohort.rank) + behind + gradient_bits
        rate = link.rate(radio.downlink_bandwidth_hz)
        return bits / rate, bits.astype(np.int64) // 8, rate

    def _behind_bits(self, missed: float | FloatArray) -> FloatArray:
        """What it takes to make good for bits that were merged meanwhile: no more than the changed
        weights themselves."""
        scenario, layers = self._system.scenario, self._system.workload.layout.layers
        dense = sum(d_in * d_out for d_in, d_out in layers.values())
        most = dense * NUMBER_BITS[scenario.method.number_format]
        return np.minimum(np.asarray(missed, dtype=np.float64), most)

    def _compute_s(
        self,
        round_index: int,
        cohort: Cohort,
        key: NDArray[np.int64],
        dispatch: NDArray[np.int64],
        start_s: FloatArray,
    ) -> FloatArray:
        """Compute times (M,) of jobs that start at given times, from their own tokens and ranks."""
        system, choice, device = self._system, self._system.scenario.fleet, cohort.device
        workload, fleet, speed = system.workload, system.world.fleet, system.world.speed
        seconds = compute_time_s(
            workload.flops_of(device, key, cohort.rank, round_index),
            self._steps[device],
            fleet.compute_flops[device],
            fleet.step_overhead_s[device],
        )
        if choice.jitter_sigma > 0:
            seed = system.scenario.seed
            seconds = seconds * compute_jitter(seed, device, dispatch, choice.jitter_sigma)
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


def _watts(power_dbm: FloatArray) -> FloatArray:
    """Power in watts."""
    return uplink_energy_j(power_dbm, 1.0)
