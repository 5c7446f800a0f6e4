"""Rounds: a cohort is drawn and sent out, and the server merges what it has once it closes.

Device n is in the cohort with probability q_n, independently (arXiv 2505.23555), if it is there. A
broadcast goes out before the server knows who takes part, so an empty cohort still costs broadcast
and overhead, and the global state stays as it is. While nobody at all is there, the server waits;
inclusion probabilities are then those of the moment somebody comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from simpy import Event

from fslora.analog import Air
from sim.dispatch import Batch, Dispatcher
from sim.errors import RunError
from sim.network import Member, Network, Process
from sim.predict import foretell
from sim.schedules.base import (
    IntArray,
    Merge,
    OnMerge,
    ServerFailures,
    count_as_free,
    wake,
)
from sim.steering import Steering
from sim.system import System
from wireless import streams


@dataclass(frozen=True, slots=True)
class Closing:
    """When a round is closed, unless everybody's part has ended before.

    Parameters
    ----------
    after_s
        Seconds from when the devices were sent out; whoever arrives at that very moment counts.
    share
        Share of the cohort whose updates are enough, rounded up; whoever arrives at the same moment
        as the last of them counts too. Weights are divided by the share that counts.
    late
        Whether those who are late go on for nothing, instead of being sent home.
    """

    after_s: float = math.inf
    share: float = 1.0
    late: bool = False


def run_rounds(
    network: Network, system: System, steering: Steering, on_merge: OnMerge, closing: Closing
) -> Process:
    """Run rounds until `on_merge` returns False, as it has to once nobody will take part again.

    A server that fails loses the round with all that it cost; what it does by itself, planning,
    broadcasting and merging, it finishes before.

    Raises
    ------
    RunError
        If nobody ever takes part.
    """
    clock, overhead_s = network.clock, system.scenario.schedule.overhead_s
    dispatcher, server = Dispatcher(system), ServerFailures(system)
    waiting = _Waiting(network, dispatcher, closing)
    number, goes_on = 0, True
    while goes_on:
        number += 1
        start_s = clock.now
        waiting.settle()
        back_s = server.back_s(start_s)
        planned_s = back_s + steering.planning_s
        chance_s = _first_chance(dispatcher, server, planned_s)
        size_bits = dispatcher.broadcast_bits(number)
        heard_s = chance_s
        if system.broadcast_bps:
            heard_s += size_bits / system.broadcast_bps
        dropped, batch = draw(system, steering, dispatcher, number, chance_s, heard_s)
        yield from network.serve(number, "wait", back_s)
        yield from network.serve(number, "plan", planned_s)
        yield from network.serve(number, "wait", chance_s)
        if system.scenario.radio.downlink == "broadcast":
            yield from network.broadcast(
                number,
                sorted([*batch.device.tolist(), *dropped.tolist()]),
                int(size_bits) // 8,
                system.broadcast_bps,
                batch.heard_s,
            )
        for device in dropped.tolist():
            network.drop(number, device)
        foretold = foretell(system, batch, system.band_hz(chance_s), closing.share, closing.after_s)
        members = network.send_out(batch, foretold.reserved_hz)
        if not members:
            yield from network.serve(number, "wait", clock.now + system.slot_s(number))
        yield waiting.for_(members, server.next_s)
        yield clock.moment_over()
        waiting.close(members)
        counted: list[Member] = []
        if clock.now < server.next_s:
            counted = [member for member in members if member.outcome == "done"]
        place = np.array([member.place for member in counted], dtype=np.int64)
        server_s = overhead_s + system.server_s(batch.rank[place])
        if clock.now < server.next_s:
            yield from network.serve(number, "aggregate", clock.now + server_s)
        weight = batch.weight[place]
        if closing.share < 1 and len(counted):
            weight = weight * (len(batch) / len(counted))
        dispatcher.merged(batch.rank[place])
        goes_on = on_merge(
            Merge(
                number,
                start_s,
                clock.now,
                batch.device[place],
                batch.rank[place],
                batch.key[place],
                weight,
                np.full(len(counted), number - 1),
                np.array([member.end_s for member in counted]) - batch.sent_s,
                len(batch) + len(dropped),
                clock.now - chance_s,
                number,
                dispatcher.first_chance(clock.now) is None,
                (batch.heard_s - start_s) + foretold.closed_after_s + server_s,
                air=_air(system, batch, number),
            )
        )


def _air(system: System, batch: Batch, number: int) -> Air | None:
    """What the updates of a round are added up by, if that is the air."""
    channel = system.fleet.channel
    if channel.radio.analog is None:
        return None
    state = channel.at(batch.device, batch.sent_s)
    key = streams.key(system.scenario.seed, "radio.analog", number)
    return Air(tuple(channel.inverse_snr(state).tolist()), key)


def _first_chance(dispatcher: Dispatcher, server: ServerFailures, time_s: float) -> float:
    """First moment from a time on at which somebody is there and the server is up."""
    while True:
        chance_s = dispatcher.first_chance(time_s)
        if chance_s is None:
            raise RunError("no device is ever there, charged, and with a band to send in")
        # A server that fails while it waits for somebody loses nothing but time.
        time_s = server.back_s(chance_s)
        if time_s == chance_s:
            return chance_s


def draw(
    system: System,
    steering: Steering,
    dispatcher: Dispatcher,
    number: int,
    start_s: float,
    heard_s: float,
) -> tuple[IntArray, Batch]:
    """Draw the cohort of a round that begins at a moment, and whose broadcast is heard at another.

    Returns
    -------
    dropped
        Devices that a broadcast reaches, but that fading keeps from sending.
    batch
        The others who are there.
    """
    drawn = steering.draw(number)
    reached = drawn.only(dispatcher.free(drawn.device, start_s))
    state = system.fleet.channel.at(reached.device, start_s)
    weight = steering.corrected(reached.device, reached.weight, state.sends_probability)
    reached = replace(reached, weight=weight)
    dropped = reached.device[state.outage]
    if len(dropped):
        reached, state = reached.only(~state.outage), state.take(~state.outage)
    return dropped, dispatcher.send_out(number, reached, state, start_s, heard_s)


class _Waiting:
    """Waits until a round can be closed, and closes it."""

    def __init__(self, network: Network, dispatcher: Dispatcher, closing: Closing) -> None:
        self._network, self._dispatcher, self._closing = network, dispatcher, closing
        self._event = network.clock.event()
        self._back: list[Member] = []
        self._batch: Batch | None = None
        self._out = self._needed = 0
        network.on_end = self._ended

    def for_(self, members: list[Member], fails_s: float) -> Event:
        """An event for the moment at which the round of these members is to be closed.

        Parameters
        ----------
        members
            Who is out.
        fails_s
            Simulated seconds at which the server fails.
        """
        clock = self._network.clock
        self._event = clock.event()
        self._batch = members[0].batch if members else None
        self._out = len(members)
        self._needed = math.ceil(self._closing.share * len(members))
        latest_s = min(clock.now + self._closing.after_s, max(fails_s, clock.now))
        if not members:
            self._event.succeed()
        elif latest_s < math.inf:
            round_ = self._event
            clock.at(latest_s).callbacks.append(lambda _: wake(round_))
        return self._event

    def close(self, members: list[Member]) -> None:
        """Send those home who are still out, or let them go on for nothing."""
        if self._out and not self._closing.late:
            self._network.cancel(members)
        elif self._out:
            for member in members:
                member.late = True
        self._back += [member for member in members if member.outcome is not None]
        self._batch = None
        self.settle()

    def settle(self) -> None:
        """Count everybody whose part has ended as free again."""
        count_as_free(self._dispatcher, self._back)
        self._back = []

    def _ended(self, member: Member) -> None:
        """A member's part has ended by itself."""
        if member.batch is not self._batch:
            self._back.append(member)  # late, of a round before
            return
        self._out -= 1
        self._needed -= member.outcome == "done"
        if self._out == 0 or self._needed == 0:
            wake(self._event)
