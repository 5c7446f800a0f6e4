"""A band that all use at once, as their signals add up on the air."""

from __future__ import annotations

import math
from itertools import count

from sim.clock import Clock
from sim.uplink.alarm import Alarm
from sim.uplink.attempts import SteadyAttempt, steady
from sim.uplink.base import FloatArray, OnChange, OnEnd, OnPiece, Transfer, Uplink
from wireless.link import Link


class AnalogUplink(Uplink):
    """Over-the-air aggregation: all of a batch begin once the last of them is ready.

    They send over the whole band for the same time, and nobody drops out on the way.

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
        self._awaited = 0
        self._ready: list[SteadyAttempt] = []
        self._alarm = Alarm(clock, self._end)

    def prepare(
        self, link: Link, bits: FloatArray, reserved_hz: FloatArray | None = None
    ) -> list[Transfer]:
        """Wait for these devices as well: see `Uplink.prepare`."""
        assert reserved_hz is not None
        self._awaited += len(link)
        return steady(bits, reserved_hz, link)

    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Be ready to send: see `Uplink.start`."""
        assert isinstance(transfer, SteadyAttempt)
        self._open(transfer, bits, power_s)
        transfer.aim(next(self._numbers), bits, power_s)
        self._ready.append(transfer)
        if len(self._ready) == self._awaited:
            self._begin()

    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off: see `Uplink.stop`."""
        assert isinstance(transfer, SteadyAttempt)
        self._check_open(transfer)
        self._ready.remove(transfer)
        self._awaited -= 1
        if transfer.begin_s is None:
            transfer.number, transfer.sending = 0, False
            if self._ready and len(self._ready) == self._awaited:
                self._begin()
            return
        self._close(transfer, ended=False)
        self._on_change(self._band_hz if self._ready else 0.0, len(self._ready))
        if not self._ready:
            self._alarm.set(math.inf)

    def _begin(self) -> None:
        """All send from now on."""
        now = self._clock.now
        for transfer in self._ready:
            transfer.begin_s = now
        self._alarm.set(now + max(transfer.lasts_s for transfer in self._ready))
        self._on_change(self._band_hz, len(self._ready))

    def _end(self) -> None:
        """All have ended."""
        ended, self._ready, self._awaited = self._ready, [], 0
        for transfer in ended:
            self._close(transfer, ended=True)
        self._on_change(0.0, 0)
        for transfer in ended:
            self._on_end(transfer)

    def _close(self, transfer: SteadyAttempt, ended: bool) -> None:
        """Count what an attempt has taken."""
        begin_s, now = transfer.begin_s, self._clock.now
        transfer.close(now, ended)
        transfer.sending = False
        if self._on_piece is not None and begin_s is not None and begin_s < now:
            self._on_piece(transfer, begin_s, now, transfer.band_hz, transfer.rate_bps)
