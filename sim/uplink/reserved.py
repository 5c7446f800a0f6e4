"""A band that is divided once, before the transfers begin: constant rates."""

from __future__ import annotations

import math
from itertools import count

from sim.clock import Clock
from sim.uplink.alarm import Alarm
from sim.uplink.attempts import UNIT, Queue, SteadyAttempt, is_rounding, steady
from sim.uplink.base import FloatArray, OnChange, OnEnd, OnPiece, Transfer, Uplink
from wireless.link import Link


class ReservedUplink(Uplink):
    """Every attempt at the band that `prepare` has reserved for its transfer.

    For a rule that reserves, as long as neither band nor links change and no two batches of
    `prepare` are under way at once. Nobody's rate ever changes, so the end of an attempt is known
    when it begins; a start and an end cost O(log active).

    Parameters
    ----------
    clock, band_hz, on_end, on_change, on_piece
        As of `Uplink`.
    """

    def __init__(
        self,
        clock: Clock,
        band_hz: float,
        on_end: OnEnd,
        on_change: OnChange,
        on_piece: OnPiece | None = None,
    ) -> None:
        super().__init__(clock, band_hz, on_end, on_change, on_piece)
        self._numbers = count(1)
        self._ends: Queue[SteadyAttempt] = Queue()
        self._held = self._senders = 0
        self._due_s = math.inf
        self._alarm = Alarm(clock, self._end)

    def prepare(
        self, link: Link, bits: FloatArray, reserved_hz: FloatArray | None = None
    ) -> list[Transfer]:
        """Reserve bands: see `Uplink.prepare`."""
        assert reserved_hz is not None
        return steady(bits, reserved_hz, link)

    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Begin an attempt: see `Uplink.start`.

        Raises
        ------
        ValueError
            If reservations of several batches exceed the band.
        """
        assert isinstance(transfer, SteadyAttempt)
        self._open(transfer, bits, power_s)
        now = self._clock.now
        transfer.begin_s = now
        transfer.aim(next(self._numbers), bits, power_s)
        self._held += int(transfer.band_hz / UNIT)
        held_hz = self._held * UNIT
        if held_hz > self._band_hz * (1 + 1e-9):
            raise ValueError("reservations of several batches exceed the band")
        self._senders += 1
        end_s = now + transfer.lasts_s
        self._ends.push(end_s, transfer)
        if end_s < self._due_s:
            self._due_s = end_s
            self._alarm.set(end_s)
        self._on_change(held_hz, self._senders)

    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off: see `Uplink.stop`."""
        assert isinstance(transfer, SteadyAttempt)
        self._check_open(transfer)
        self._close(transfer, ended=False)

    def _end(self) -> None:
        """End whoever is due, and wait for the next."""
        now = self._clock.now
        while (first := self._ends.first()) is not None:
            end_s, _, transfer = first
            assert transfer.begin_s is not None
            if not is_rounding(end_s - now, now, transfer.begin_s):
                self._due_s = end_s
                self._alarm.set(end_s)
                return
            self._close(transfer, ended=True)
            self._on_end(transfer)
        self._due_s = math.inf

    def _close(self, transfer: SteadyAttempt, ended: bool) -> None:
        """Count what an attempt has taken, and give its band back."""
        begin_s, now = transfer.begin_s, self._clock.now
        transfer.close(now, ended)
        transfer.sending = False
        if self._on_piece is not None and begin_s is not None and begin_s < now:
            self._on_piece(transfer, begin_s, now, transfer.band_hz, transfer.rate_bps)
        self._senders -= 1
        self._held -= int(transfer.band_hz / UNIT)
        self._on_change(self._held * UNIT, self._senders)
