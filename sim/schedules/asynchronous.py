"""Without rounds: devices are sent out one by one, and the server merges what has arrived.

A number of devices, the concurrency, is out at any time; whoever comes back, or is lost, is
replaced by another, drawn in proportion to the plan's probabilities from those who are free. What a
device trains from is the global state at the moment it was sent out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from simpy import Event

from optimizer import Cohort
from optimizer.one_by_one import OneByOne
from sim.dispatch import Dispatcher
from sim.errors import RunError
from sim.network import Member, Network, Process
from sim.schedules.base import (
    FloatArray,
    IntArray,
    Merge,
    OnMerge,
    ServerFailures,
    count_as_free,
    identities,
    wake,
)
from sim.sections.schedule import Asynchronous
from sim.steering import Steering
from sim.system import System

#: Devices in succession of whom none arrives, after which none is expected any more.
_MISSED = 10_000


def staleness_factor(choice: Asynchronous, merges: IntArray) -> FloatArray:
    """Factors (M,) on updates that are so many merges old.

    Source: arXiv 1903.03934, which names them constant, polynomial and hinge; the square root of
    arXiv 2106.06639 is the polynomial of exponent 1/2.
    """
    if choice.staleness == "constant":
        return np.ones(len(merges))
    if choice.staleness == "polynomial":
        return np.asarray((1.0 + merges) ** -choice.exponent)
    return np.asarray(1 / (choice.exponent * np.maximum(merges - choice.delay, 0) + 1))


@dataclass(frozen=True, slots=True)
class Merging:
    """What the server does with arrivals.

    Parameters
    ----------
    count
        Updates that it waits for.
    weigh
        From the unbiased weights (M,) and the staleness factors (M,) of the updates to aggregation
        weights (M,) and, where models are mixed, the share of the device's own.
    """

    count: int
    weigh: Callable[[FloatArray, FloatArray], tuple[FloatArray, float | None]]


def run_asynchronously(
    network: Network, system: System, steering: Steering, on_merge: OnMerge, merging: Merging
) -> Process:
    """Keep devices out and merge, until `on_merge` returns False.

    A server that fails loses who is out and what it has not merged, which counts as a merge of
    nothing; a merge that has begun it finishes before. If nobody will ever take part again, or the
    simulated time is over, what has arrived is merged, and the run ends.

    Raises
    ------
    RunError
        If nobody ever takes part, or nobody of very many arrives.
    """
    clock, choice = network.clock, system.scenario.schedule
    assert isinstance(choice, Asynchronous)
    fleet, server = _Out(network, system, steering, choice), ServerFailures(system)
    if fleet.deserted():
        raise RunError("no device is ever there, charged, and with a band to send in")
    version, start_s, goes_on = 0, 0.0, True
    over_s = system.scenario.stop.simulated_s or math.inf
    while goes_on:
        lost = clock.now >= server.next_s
        if lost:
            fleet.lose_everything()
        else:
            fleet.refill(version + 1)
            ends = clock.now >= over_s or (not fleet.members and fleet.deserted())
            if len(fleet.arrived) < merging.count and not ends:
                yield fleet.next_event(min(server.next_s, over_s))
                yield clock.moment_over()
                fleet.settle()
                continue
        members = fleet.take(merging.count)
        device, rank, key, trained_from = identities(members)
        version += 1
        if not lost:
            server_s = choice.overhead_s + system.server_s(rank)
            yield from network.serve(version, "aggregate", clock.now + server_s)
            fleet.settle()
        factor = staleness_factor(choice, version - 1 - trained_from)
        unbiased = np.array([member.batch.weight[member.place] for member in members])
        weight, mixing = merging.weigh(unbiased, factor)
        goes_on = on_merge(
            Merge(
                version,
                start_s,
                clock.now,
                device,
                rank,
                key,
                weight,
                trained_from,
                np.array([member.end_s - member.batch.sent_s for member in members]),
                fleet.sent_out(),
                clock.now - start_s,
                fleet.oldest(version),
                not fleet.members and fleet.deserted(),
                None,
                mixing,
            )
        )
        start_s = clock.now
        if goes_on:
            yield from network.serve(
                version + 1, "wait", server.back_s(start_s) if lost else start_s
            )
            yield from network.serve(version + 1, "plan", clock.now + steering.planning_s)
            fleet.settle()


class _Out:
    """The devices that are out, and those that have arrived and are not merged yet.

    Attributes
    ----------
    members
        Who is out.
    arrived
        Whose update waits to be merged, in the order of arrival.
    """

    def __init__(
        self, network: Network, system: System, steering: Steering, choice: Asynchronous
    ) -> None:
        self._network, self._system, self._steering = network, system, steering
        self._dispatcher = Dispatcher(system)
        self._concurrency = choice.concurrency
        self.members: dict[Member, None] = {}
        self.arrived: list[Member] = []
        self._ended: list[Member] = []
        self._event = network.clock.event()
        self._draws = self._sent = self._missed = 0
        self._downlink_free_s: dict[int, float] = {}
        self._plan = steering.plan
        self._picker = self._make_picker()
        network.on_end = self._on_end

    def refill(self, round_index: int) -> None:
        """Send out as many as there is room for."""
        steering, dispatcher = self._steering, self._dispatcher
        plan, now = steering.plan, self._network.clock.now
        if plan is not self._plan:
            self._plan = plan
            self._picker = self._make_picker()
        together = self._concurrency or max(1, round(plan.certificate.expected_cohort))
        taken: list[int] = []
        if self._system.band_hz(now) <= 0:
            return

        def free(device: IntArray) -> np.ndarray:
            return dispatcher.free(device, now) & ~np.isin(device, taken)

        while len(self.members) + len(taken) < together:
            device = self._picker.draw(self._draws, free)
            if device is None:
                break
            self._draws += 1
            taken.append(device)
        if taken:
            self._send(np.sort(np.array(taken, dtype=np.int64)), round_index, now)

    def next_event(self, latest_s: float) -> Event:
        """An event for the next moment at which a device comes back or can be sent.

        Parameters
        ----------
        latest_s
            Simulated seconds at which it comes at the latest.
        """
        clock, dispatcher = self._network.clock, self._dispatcher
        self._event = event = clock.event()
        later_s = min(latest_s, self._system.next_band_s(clock.now))
        free_s = dispatcher.next_free_s(clock.now)
        if free_s > clock.now:
            later_s = min(later_s, free_s)
        if later_s < math.inf:
            clock.at(max(later_s, clock.now)).callbacks.append(lambda _: wake(event))
        return event

    def take(self, count: int) -> list[Member]:
        """Take the first that have arrived, at most so many."""
        taken, self.arrived = self.arrived[:count], self.arrived[count:]
        return taken

    def settle(self) -> None:
        """Count everybody whose part has ended as free again."""
        for member in self._ended:
            self.members.pop(member, None)
            if member.outcome == "done":
                self.arrived.append(member)
                self._missed = 0
            else:
                self._missed += 1
        if self._missed > _MISSED:
            raise RunError(
                f"none of the last {self._missed} devices that were sent out has arrived; give "
                "them fewer failures, more charge, or less to do"
            )
        count_as_free(self._dispatcher, self._ended)
        self._ended = []

    def lose_everything(self) -> None:
        """The server forgets who is out and what has arrived."""
        self._network.cancel(self.members)
        self._ended += list(self.members)
        self.settle()
        self.arrived = []
        self._downlink_free_s = {}

    def sent_out(self) -> int:
        """How many were sent out since the last call."""
        sent, self._sent = self._sent, 0
        return sent

    def oldest(self, version: int) -> int:
        """The oldest version that somebody trains from, or has trained from and is not merged."""
        versions = [member.batch.round - 1 for member in (*self.members, *self.arrived)]
        return min(versions, default=version)

    def deserted(self) -> bool:
        """Whether nobody will take part from now on, of those who are not out."""
        return self._dispatcher.first_chance(self._network.clock.now) is None

    def _make_picker(self) -> OneByOne:
        """Who is sent out under the plan in force."""
        steering = self._steering
        return OneByOne(steering.problem, steering.plan, self._system.scenario.seed)

    def _send(self, device: IntArray, round_index: int, now_s: float) -> None:
        """Send devices out, each after the downloads that are still going on in its cell."""
        system, steering = self._system, self._steering
        state = system.fleet.channel.at(device, now_s)
        weight = steering.corrected(device, self._picker.weight[device], state.sends_probability)
        cohort = Cohort(device, steering.plan.rank[device], weight)
        busy = self._downlink_free_s
        behind_s = np.array([max(busy.get(c, 0.0) - now_s, 0.0) for c in state.cell.tolist()])
        batch = self._dispatcher.send_out(round_index, cohort, state, now_s, now_s, behind_s)
        if state.outage.any():
            # It finds out when it has its download.
            lost_s = np.where(state.outage, batch.start_s, batch.fails_s)
            batch = replace(batch, fails_s=lost_s)
        for cell, free_s in zip(state.cell.tolist(), batch.start_s.tolist(), strict=True):
            busy[cell] = max(busy.get(cell, 0.0), free_s)
        self._sent += len(device)
        self.members.update(dict.fromkeys(self._network.send_out(batch)))

    def _on_end(self, member: Member) -> None:
        self._ended.append(member)
        wake(self._event)
