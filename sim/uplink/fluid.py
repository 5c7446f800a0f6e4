"""A shared uplink band in simulated time: a fluid that is divided anew at every event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from wireless.link import Link
from wireless.spectrum import Rule, Whole

#: Remainders that take less than this part of the time since the round's start are roundings.
_TIE = 1e-11


@dataclass(slots=True)
class Transfer:
    """An upload under way, and what it took once it is done.

    Parameters
    ----------
    member
        Position in the round's cohort.
    bits, left_bits
        Whole, and still to send.
    done
        Succeeds when everything is sent.
    begin_s
        When it first held some of the band.
    band_hz, rate_bps, power_share
        What it holds at present, and the share of full power that it takes.
    used_hz_s, power_s
        Bandwidth times time, and time at full power, so far.
    """

    member: int
    bits: float
    left_bits: float
    done: simpy.Event
    begin_s: float | None = None
    band_hz: float = 0.0
    rate_bps: float = 0.0
    power_share: float = 0.0
    used_hz_s: float = 0.0
    power_s: float = 0.0


class Uplink:
    """The uplink of one cell in one round.

    Parameters
    ----------
    env
        Clock.
    rule, whole
        How the band is divided, and rounded.
    link
        Uplinks of the round's cohort.
    band_hz
        Width of the band.
    reserved_hz
        What each of the cohort holds for the whole round, under a rule that reserves.
    on_change
        Called with the band in use and the number of senders whenever they change.
    """

    def __init__(
        self,
        env: simpy.Environment,
        rule: Rule,
        whole: Whole | None,
        link: Link,
        band_hz: float,
        reserved_hz: NDArray[np.float64] | None,
        on_change: Callable[[float, int], None],
    ) -> None:
        self._env, self._rule, self._whole = env, rule, whole
        self._link, self._band_hz, self._reserved_hz = link, band_hz, reserved_hz
        self._on_change = on_change
        self._active: list[Transfer] = []
        self._since_s = self._origin_s = env.now
        self._division = 0
        self._due = False

    def send(self, member: int, bits: float) -> Transfer:
        """Start an upload; wait for its `done`."""
        transfer = Transfer(member, bits, bits, self._env.event())
        if bits == 0:
            transfer.begin_s = self._env.now
            transfer.done.succeed()
            return transfer
        self._advance()
        self._active.append(transfer)
        self._divide_soon()
        return transfer

    def _advance(self) -> None:
        """Count what was sent since the last event."""
        elapsed = self._env.now - self._since_s
        self._since_s = self._env.now
        if elapsed > 0:
            for each in self._active:
                each.left_bits -= each.rate_bps * elapsed
                each.used_hz_s += each.band_hz * elapsed
                each.power_s += each.power_share * elapsed

    def _divide_soon(self) -> None:
        """Divide once everything that happens at this moment has happened."""
        if not self._due:
            self._due = True
            self._env.timeout(0).callbacks.append(lambda _: self._divide())

    def _divide(self) -> None:
        """Divide the band among those who have something left, and wait for the first to end."""
        self._due = False
        self._division += 1
        if not self._active:
            # The last one's `done` is still to be waited for, so this is heard in time.
            self._on_change(0.0, 0)
            return
        member = np.array([each.member for each in self._active])
        link = self._link.take(member)
        if self._reserved_hz is not None:
            band = self._reserved_hz[member]
        else:
            left = np.array([each.left_bits for each in self._active])
            bits = np.array([each.bits for each in self._active])
            band = self._rule.divide(left, bits, link, self._band_hz)
            if self._whole is not None:
                band = self._whole(band, self._band_hz)
        held = zip(
            band.tolist(), link.rate(band).tolist(), link.power_share(band).tolist(), strict=True
        )
        for each, (hz, bps, share) in zip(self._active, held, strict=True):
            each.band_hz, each.rate_bps, each.power_share = hz, bps, share
            if hz > 0 and each.begin_s is None:
                each.begin_s = self._env.now
        self._on_change(float(band.sum()), int(np.count_nonzero(band)))
        lasts = [each.left_bits / each.rate_bps for each in self._active if each.rate_bps > 0]
        division = self._division
        self._env.timeout(min(lasts)).callbacks.append(lambda _: self._end(division))

    def _end(self, division: int) -> None:
        """Let those go who have sent everything, unless the band was divided since."""
        if division != self._division or self._due:
            return
        self._advance()
        now = self._env.now
        slack_s = max(_TIE * (now - self._origin_s), 4 * np.spacing(now))
        ended = [each for each in self._active if each.left_bits <= each.rate_bps * slack_s]
        self._active = [each for each in self._active if each.left_bits > each.rate_bps * slack_s]
        for each in ended:
            each.done.succeed()
        self._divide_soon()
