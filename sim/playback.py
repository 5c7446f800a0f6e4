"""A network that repeats what a timeline tells: when each device's part ended, and how.

It stands in the place of `sim.network.Network`, so that a schedule can be run again on the files of
a finished run. No uplink is simulated; all that the schedule asks for is noted, to be held against
the rows.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.clock import Clock
from sim.dispatch import Batch, FloatArray
from sim.findings import close
from sim.network import Process
from sim.parts import CANCELLED, OUTCOMES, Parts
from sim.timeline import Outcome, Phase


@dataclass(slots=True, eq=False)
class PlayedMember:
    """A device that is out: what schedules see of `sim.network.Member`.

    Parameters
    ----------
    batch, place, device
        The batch, the device's place in it, and its number.
    number
        How many were sent out before it.
    part
        Its part in the timeline, -1 if there is none left.
    outcome, late, energy_j, end_s
        As of `Member`.
    """

    batch: Batch
    place: int
    device: int
    number: int
    part: int
    outcome: Outcome | None = None
    late: bool = False
    energy_j: float = 0.0
    end_s: float = 0.0


class Playback:
    """The server and the devices of a finished run.

    Parameters
    ----------
    clock
        Simulated time.
    parts
        Rows of the devices' parts.
    server
        Rows of the server.
    devices
        Number of devices in the fleet.

    Attributes
    ----------
    on_end
        Called with every member whose part ends by itself, at the time that the timeline tells.
    batches
        What was sent out, in order.
    part
        For every device that was sent out its part in the timeline, -1 if there is none left.
    cancelled_s
        By the numbers of those that were cancelled: when.
    late
        Numbers of those whose update no longer counted when they ended.
    served
        What the server did: (round, phase, start_s, end_s, bytes, rate_bps); the last two are nan
        but for a broadcast.
    received
        Receptions: (round, devices, start_s, end_s, bytes, rate_bps).
    dropped
        Devices that fading kept from sending: (round, device, time_s, part).
    """

    def __init__(self, clock: Clock, parts: Parts, server: pd.DataFrame, devices: int) -> None:
        self.clock = clock
        self.on_end: Callable[[PlayedMember], None] = lambda _: None
        self.batches: list[Batch] = []
        self.part: list[int] = []
        self.cancelled_s: dict[int, float] = {}
        self.late: list[int] = []
        self.served: list[tuple[int, str, float, float, float, float]] = []
        self.received: list[tuple[int, NDArray[np.int64], float, float, int, float]] = []
        self.dropped: list[tuple[int, int, float, int]] = []
        self._parts = parts
        # The parts of a device follow each other; the next one, and behind the last.
        bounds = np.searchsorted(parts.device, np.arange(devices + 1)).tolist()
        self._next, self._behind = bounds[:-1], bounds[1:]
        self._round = parts.round.tolist()
        self._outcome, self._energy_j = parts.outcome.tolist(), parts.energy_j.tolist()
        # Ends by themselves, in the order of the timeline.
        ends = np.flatnonzero(parts.closed & (parts.outcome != CANCELLED))
        ends = ends[np.argsort(parts.last[ends])]
        place = np.full(len(parts), -1, dtype=np.int64)
        place[ends] = np.arange(len(ends))
        self._ends, self._end_s = ends.tolist(), parts.end_s[ends].tolist()
        self._place, self._passed = place.tolist(), 0
        self._out: dict[PlayedMember, None] = {}
        self._member: dict[int, PlayedMember] = {}
        self._recorded_s: dict[tuple[int, str], deque[float]] = defaultdict(deque)
        for number, phase, end_s in zip(
            server["round"].tolist(), server["phase"], server["end_s"].tolist(), strict=True
        ):
            self._recorded_s[number, phase].append(end_s)
        self._wait()

    @property
    def out(self) -> list[PlayedMember]:
        """Who is out."""
        return list(self._out)

    # What schedules ask of a network.

    def serve(self, round_index: int, phase: Phase, until_s: float) -> Process:
        """The server's own time until a moment; where the timeline has it but for a rounding, until
        the time that it has.
        """
        start = self.clock.now
        if until_s > start:
            recorded = self._recorded_s.get((round_index, phase))
            if recorded:
                found_s = recorded.popleft()
                if close(found_s, until_s) and found_s > start:
                    until_s = found_s
            yield self.clock.at(until_s)
            self.served.append((round_index, phase, start, until_s, np.nan, np.nan))

    def broadcast(
        self, round_index: int, receivers: Iterable[int], size: int, rate_bps: float, until_s: float
    ) -> Process:
        """Send `size` bytes to everybody at once."""
        start = self.clock.now
        yield self.clock.at(until_s)
        device = np.fromiter(receivers, dtype=np.int64)
        self.served.append((round_index, "downlink", start, until_s, size, rate_bps))
        self.received.append((round_index, device, start, until_s, size, rate_bps))

    def drop(self, round_index: int, device: int) -> None:
        """A device that fading keeps from sending."""
        part = self._take(device, round_index)
        self.dropped.append((round_index, device, self.clock.now, part))

    def send_out(
        self,
        batch: Batch,
        reserved_hz: FloatArray | None = None,  # noqa: ARG002
    ) -> list[PlayedMember]:
        """Let the devices of a batch end as the timeline tells."""
        members = []
        for place, device in enumerate(batch.device.tolist()):
            part = self._take(device, batch.round)
            member = PlayedMember(batch, place, device, len(self.part), part)
            self.part.append(part)
            members.append(member)
            if part >= 0:
                self._member[part] = member
                if 0 <= self._place[part] < self._passed:
                    self._end_now(part)
        self._out.update(dict.fromkeys(members))
        self.batches.append(batch)
        return members

    def cancel(self, members: Iterable[PlayedMember]) -> None:
        """End the part of those members that are still out."""
        now = self.clock.now
        for member in list(members):
            if member.outcome is not None:
                continue
            del self._out[member]
            self.cancelled_s[member.number] = member.end_s = now
            member.outcome = "cancelled"
            if member.part >= 0:
                member.energy_j = self._energy_j[member.part]
                del self._member[member.part]

    def finish(self) -> None:
        """End what is still going on."""
        self.cancel(self.out)

    # The timeline.

    def _take(self, device: int, round_index: int) -> int:
        """The next part of a device; what belongs to rounds before is left over."""
        part, behind, number = self._next[device], self._behind[device], self._round
        while part < behind and number[part] < round_index:
            part += 1
        self._next[device] = part
        if part == behind or number[part] > round_index:
            return -1
        self._next[device] = part + 1
        return int(part)

    def _wait(self) -> None:
        """Wait for the next end."""
        if self._passed < len(self._ends):
            moment = max(self._end_s[self._passed], self.clock.now)
            self._call(moment, self._play)

    def _play(self) -> None:
        """Tell of everybody who ends now, in the order of the rows."""
        now, ends, end_s = self.clock.now, self._ends, self._end_s
        while self._passed < len(ends) and end_s[self._passed] <= now:
            part = ends[self._passed]
            self._passed += 1
            if part in self._member:
                self._end(part)
        self._wait()

    def _end_now(self, part: int) -> None:
        """Tell of an end that the timeline has before, or at the moment of, the sending out."""

        def end() -> None:
            if part in self._member:
                self._end(part)

        self._call(self.clock.now, end)

    def _end(self, part: int) -> None:
        """A part has ended by itself."""
        member = self._member.pop(part)
        del self._out[member]
        member.outcome = OUTCOMES[self._outcome[part]]  # type: ignore[assignment]  # one of them
        member.energy_j, member.end_s = self._energy_j[part], self.clock.now
        if member.late:
            self.late.append(member.number)
        self.on_end(member)

    def _call(self, time_s: float, what: Callable[[], None]) -> None:
        """Do something at a moment."""
        callbacks = self.clock.at(time_s).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: what())
