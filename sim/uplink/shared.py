"""A band that linear links share at the same time: virtual time.

On linear links, rate e b, an attempt is a number of hertz seconds. Let each of the active hold band
in proportion to a weight, b_n = B phi_n / S with S the sum of the weights, and let a virtual time V
run at V' = B / S. Then n is given phi_n V' of work a second, whoever comes and goes: an attempt
that begins at V_n and takes x_n hertz seconds ends at

    V = V_n + x_n / phi_n,

which is known when it begins. So a queue in order of these numbers replaces all divisions: this is
the virtual time of generalized processor sharing (Parekh and Gallager, "A generalized processor
sharing approach to flow control in integrated services networks", IEEE/ACM Trans. Networking 1,
1993). With w_n the work of the whole payload the rules are

=============== ========================= ======================
rule            weight phi_n              V when nobody sends
=============== ========================= ======================
equal-split     1                         0
proportional    w_n                       0
work-conserving w_n / -V_n                -1
=============== ========================= ======================

The last one (own derivation): whoever is to end together keeps the same part of its work, so what n
has left is w_n V / V_n for a common V that falls in size to zero when all have ended, and band in
proportion to what is left is band in proportion to w_n / -V_n. The sum of what is left is S (-V),
it falls by B a second, and S stays as long as nobody comes or goes: V' = B / S here as well. Whole
payloads end at V = 0, all together; an attempt that is lost after a part p of its payload ends at
V_n (1 - p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

import numpy as np

from sim.clock import Clock
from sim.uplink.alarm import Alarm
from sim.uplink.attempts import TIE, UNIT, Attempt, Queue, is_rounding
from sim.uplink.base import FloatArray, OnChange, OnEnd, OnPiece, Transfer, Uplink
from wireless.link import Link, linear_efficiency, linear_power
from wireless.spectrum import EqualSplit, Proportional, Rule, WorkConserving

#: A virtual time smaller than this is counted in other units, before it underflows.
_SMALL = 1e-150


@dataclass(slots=True, eq=False, kw_only=True)
class _Shared(Attempt):
    """A transfer over a linear link.

    Parameters
    ----------
    bps_hz, power_per_hz
        Its efficiency; its share of full power per hertz, zero if it sends at full power.
    work_hz_s
        Work of the whole payload.
    goal_hz_s
        Work that ends the attempt.
    weight
        phi, in units.
    begin_v
        Virtual time at which the attempt began.
    """

    bps_hz: float
    power_per_hz: float
    work_hz_s: float
    goal_hz_s: float = 0.0
    weight: int = 0
    begin_v: float = 0.0


class SharedUplink(Uplink):
    """Equal split, proportional or work-conserving on links that are linear over the whole band.

    As long as neither band nor links change and the band is divided freely and at once. A start and
    an end cost O(log active), with `on_piece` O(active).

    Parameters
    ----------
    rule
        One of the three.
    clock, band_hz, on_end, on_change, on_piece
        As of `Uplink`.

    Raises
    ------
    ValueError
        If the rule is another one.
    """

    def __init__(
        self,
        rule: Rule,
        clock: Clock,
        band_hz: float,
        on_end: OnEnd,
        on_change: OnChange,
        on_piece: OnPiece | None = None,
    ) -> None:
        super().__init__(clock, band_hz, on_end, on_change, on_piece)
        if not isinstance(rule, EqualSplit | Proportional | WorkConserving):
            raise ValueError(f"rule {rule.name} does not share by weights")
        self._equal = isinstance(rule, EqualSplit)
        self._together = isinstance(rule, WorkConserving)
        self._idle_v = -1.0 if self._together else 0.0
        self._numbers = count(1)
        self._senders = self._weights = 0
        # Who ends at which virtual time, and whose battery at which time.
        self._ends: Queue[_Shared] = Queue()
        self._batteries: Queue[_Shared] = Queue()
        # The virtual time of a moment; when it gets to the next end if nobody comes or goes, and
        # that or an empty battery, whichever is first.
        self._since_s, self._v = clock.now, self._idle_v
        self._end_s = self._due_s = math.inf
        self._telling = False
        self._alarm = Alarm(clock, self._end)

    def prepare(
        self,
        link: Link,
        bits: FloatArray,
        reserved_hz: FloatArray | None = None,  # noqa: ARG002
    ) -> list[Transfer]:
        """Work out the work of each payload: see `Uplink.prepare`.

        Raises
        ------
        ValueError
            If a link is not linear over the whole band.
        """
        efficiency = linear_efficiency(link, self._band_hz)
        power = linear_power(link, self._band_hz)
        if np.isnan(efficiency + power).any():
            raise ValueError("links must be linear over the whole band")
        columns = (bits, efficiency, power, bits / efficiency)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [_Shared(u, bps_hz=e, power_per_hz=p, work_hz_s=w) for u, e, p, w in rows]

    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Begin an attempt: see `Uplink.start`."""
        assert isinstance(transfer, _Shared)
        self._open(transfer, bits, power_s)
        now = self._clock.now
        self._settle(now)
        transfer.number, transfer.begin_s = next(self._numbers), now
        transfer.goal_bits, transfer.budget_s = bits, power_s
        work, goal = transfer.work_hz_s, bits / transfer.bps_hz
        transfer.runs_dry = False
        if power_s < math.inf:
            if transfer.power_per_hz:
                # Power goes with the band, so a budget of it is one of hertz seconds.
                most = power_s / transfer.power_per_hz
                transfer.runs_dry = most < goal
                goal = min(goal, most)
            else:
                self._batteries.push(now + power_s, transfer)
        transfer.goal_hz_s = goal
        v = transfer.begin_v = self._v
        if self._equal:
            weight, end_v = 1.0, v + goal
        elif self._together:
            # V_n + x_n / phi_n would lose the digits near zero.
            weight, end_v = -work / v, v * (1 - goal / work)
        else:
            weight, end_v = work, v + goal / work
        transfer.weight = int(weight / UNIT)
        self._weights += transfer.weight
        self._senders += 1
        self._ends.push(end_v, transfer)
        self._wait(now)
        self._on_change(self._band_hz, self._senders)

    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off: see `Uplink.stop`."""
        assert isinstance(transfer, _Shared)
        self._check_open(transfer)
        now = self._clock.now
        self._settle(now)
        if transfer in self._ended:
            self._ended.remove(transfer)
        else:
            self._close(transfer, now)
        if transfer.begin_s == now:
            transfer.begin_s = None
        transfer.sending = False
        self._wait(now)
        self._on_change(self._band_hz if self._senders else 0.0, self._senders)

    def _end(self) -> None:
        """Let those go who have ended, and wait for the next."""
        now = self._clock.now
        self._settle(now)
        self._on_change(self._band_hz if self._senders else 0.0, self._senders)
        # Whoever hears of an end often starts something; the next end is looked for once.
        self._telling, self._end_s, self._due_s = True, math.inf, math.inf
        self._tell()
        self._telling = False
        self._wait(now)

    def _wait(self, now: float) -> None:
        """Wait for the next end, once the virtual time is that of now."""
        if self._telling:
            return
        due_s = math.inf
        if (first := self._ends.first()) is not None:
            ahead = first[0] - self._v
            due_s = now
            if ahead > 0:
                due_s += ahead * (self._weights * UNIT / self._band_hz)
        self._end_s = due_s
        if (battery := self._batteries.first()) is not None and battery[0] < due_s:
            due_s = battery[0]
        if self._ended:
            due_s = now
        self._due_s = due_s
        self._alarm.set(due_s)

    def _settle(self, now: float) -> None:
        """Move the virtual time on to now, and close the attempts that have ended by then."""
        since, self._since_s = self._since_s, now
        if not self._senders:
            return
        speed = self._band_hz / (self._weights * UNIT)
        if self._on_piece is not None and now > since:
            for each in sorted(self._ends, key=lambda each: each.number):
                hz = each.weight * UNIT * speed
                self._on_piece(each, since, now, hz, hz * each.bps_hz)
        self._v += speed * (now - since)
        if -_SMALL < self._v < 0:
            self._change_units()
            speed = self._band_hz / (self._weights * UNIT)
        if now + TIE * now < self._due_s:
            return  # nobody has
        if now >= self._end_s and (first := self._ends.first()) is not None:
            self._v = max(self._v, first[0])
        self._close_ended(now, self._v, speed)

    def _close_ended(self, now: float, v: float, speed: float) -> None:
        """Close the attempts that have ended by a virtual time, but for a rounding."""
        while (first := self._ends.first()) is not None:
            end_v, _, transfer = first
            assert transfer.begin_s is not None
            if not is_rounding((end_v - v) / speed, now, transfer.begin_s):
                break
            self._close(transfer, now)
            transfer.used_hz_s = transfer.goal_hz_s
            if transfer.runs_dry:
                transfer.power_s = transfer.budget_s
            else:
                transfer.sent_bits = transfer.goal_bits
            self._ended.append(transfer)
        while (battery := self._batteries.first()) is not None:
            empty_s, _, transfer = battery
            assert transfer.begin_s is not None
            if not is_rounding(empty_s - now, now, transfer.begin_s):
                break
            self._close(transfer, now)
            transfer.power_s = transfer.budget_s
            self._ended.append(transfer)

    def _close(self, transfer: _Shared, now: float) -> None:
        """Count what an attempt has taken, and share among the others."""
        begin_s = transfer.begin_s
        assert begin_s is not None
        if self._together:
            served = transfer.work_hz_s * (1 - self._v / transfer.begin_v)
        else:
            served = transfer.weight * UNIT * (self._v - transfer.begin_v)
        goal = transfer.goal_hz_s
        used = transfer.used_hz_s = goal if served > goal else max(served, 0.0)
        transfer.sent_bits = min(used * transfer.bps_hz, transfer.goal_bits)
        power_s = used * transfer.power_per_hz if transfer.power_per_hz else now - begin_s
        transfer.power_s = power_s if power_s < transfer.budget_s else transfer.budget_s
        transfer.number = 0
        self._weights -= transfer.weight
        self._senders -= 1
        if not self._senders:
            self._ends.clear()
            self._batteries.clear()
            self._v = self._idle_v

    def _change_units(self) -> None:
        """Count the virtual time in other units, so that it is -1 now."""
        factor = -1 / self._v
        active = list(self._ends)
        for each in active:
            each.begin_v *= factor
            # Whose weight vanishes beside the others has sent everything but for a rounding.
            each.weight = max(int(each.weight / factor), 1)
        self._ends.scale(factor)
        self._weights = sum(each.weight for each in active)
        self._v = -1.0
