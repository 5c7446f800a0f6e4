"""A band that one device at a time has to itself, first ready first."""

from __future__ import annotations

import math
from collections import deque
from itertools import count

import numpy as np

from sim.clock import Clock
from sim.uplink.alarm import Alarm
from sim.uplink.attempts import SteadyAttempt, steady
from sim.uplink.base import FloatArray, OnChange, OnEnd, OnPiece, Transfer, Uplink
from wireless.link import Link
from wireless.spectrum import Whole


class SerialUplink(Uplink):
    """Time division: a queue for the whole band, as long as neither band nor links change.

    A start and an end cost O(1).

    Parameters
    ----------
    whole
        How the band is rounded to whole resource blocks, if it is.
    clock, band_hz, on_end, on_change, on_piece
        As of `Uplink`.
    """

    def __init__(
        self,
        whole: Whole | None,
        clock: Clock,
        band_hz: float,
        on_end: OnEnd,
        on_change: OnChange,
        on_piece: OnPiece | None = None,
    ) -> None:
        if whole is not None:
            band_hz = float(whole(np.array([band_hz]), band_hz)[0])
            if not band_hz > 0:
                raise ValueError("whole must leave some band to the device whose turn it is")
        super().__init__(clock, band_hz, on_end, on_change, on_piece)
        self._numbers = count(1)
        # Whoever was stopped while waiting has another number by now.
        self._waiting: deque[tuple[int, SteadyAttempt]] = deque()
        self._sender: SteadyAttempt | None = None
        self._alarm = Alarm(clock, self._end)

    def prepare(
        self,
        link: Link,
        bits: FloatArray,
        reserved_hz: FloatArray | None = None,  # noqa: ARG002
    ) -> list[Transfer]:
        """Work out rates over the whole band: see `Uplink.prepare`."""
        return steady(bits, np.full(len(link), self._band_hz), link)

    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Begin an attempt: see `Uplink.start`."""
        assert isinstance(transfer, SteadyAttempt)
        self._open(transfer, bits, power_s)
        transfer.aim(next(self._numbers), bits, power_s)
        if self._sender is None:
            self._send(transfer)
            self._on_change(self._band_hz, 1)
        else:
            self._waiting.append((transfer.number, transfer))

    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off: see `Uplink.stop`."""
        assert isinstance(transfer, SteadyAttempt)
        self._check_open(transfer)
        if transfer is self._sender:
            self._close(transfer, ended=False)
            self._next()
        transfer.number, transfer.sending = 0, False

    def _send(self, transfer: SteadyAttempt) -> None:
        """Give the band to a transfer."""
        self._sender, transfer.begin_s = transfer, self._clock.now
        self._alarm.set(transfer.begin_s + transfer.lasts_s)

    def _next(self) -> None:
        """Give the band to whoever has waited longest, if anybody has."""
        while self._waiting:
            number, transfer = self._waiting.popleft()
            if number == transfer.number:
                self._send(transfer)
                return
        self._sender = None
        self._alarm.set(math.inf)
        self._on_change(0.0, 0)

    def _end(self) -> None:
        """End the sender's attempt."""
        transfer = self._sender
        assert transfer is not None
        self._close(transfer, ended=True)
        transfer.sending = False
        self._next()
        self._on_end(transfer)

    def _close(self, transfer: SteadyAttempt, ended: bool) -> None:
        """Count what the sender's attempt has taken."""
        begin_s, now = transfer.begin_s, self._clock.now
        transfer.close(now, ended)
        if self._on_piece is not None and begin_s is not None and begin_s < now:
            self._on_piece(transfer, begin_s, now, transfer.band_hz, transfer.rate_bps)
