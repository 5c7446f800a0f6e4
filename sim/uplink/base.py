"""What every way of sharing an uplink band in simulated time has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.clock import Clock
from wireless.link import Link

FloatArray = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class Transfer:
    """An upload, and what its present attempt has taken.

    Parameters
    ----------
    bits
        Whole payload.
    sending
        Whether an attempt is under way.
    begin_s
        When the attempt first held some of the band; None before, and if it was stopped at that
        same moment.
    sent_bits, used_hz_s, power_s
        What got through, bandwidth times time, and seconds at full power that take as much energy:
        of the attempt, known once it has ended or was stopped.
    owner
        Whose it is, for whoever started it.
    """

    bits: float
    sending: bool = False
    begin_s: float | None = None
    sent_bits: float = 0.0
    used_hz_s: float = 0.0
    power_s: float = 0.0
    owner: Any = None


OnEnd = Callable[[Transfer], None]
OnChange = Callable[[float, int], None]
OnPiece = Callable[[Transfer, float, float, float, float], None]


class Uplink(ABC):
    """The uplink band of one cell, shared by all who have something to send.

    Parameters
    ----------
    clock
        Simulated time.
    band_hz
        Width of the band.
    on_end
        Called with every transfer whose attempt ends by itself, at that moment.
    on_change
        Called with the band in use and the number of senders that hold some of it, whenever they
        may have changed; of several calls at one moment the last one holds.
    on_piece
        Called with a transfer, a span of time over which it held a constant band, that band and its
        rate: (transfer, start_s, end_s, bandwidth_hz, rate_bps); None to spare the work. The run
        does not depend on it.
    """

    def __init__(
        self,
        clock: Clock,
        band_hz: float,
        on_end: OnEnd,
        on_change: OnChange,
        on_piece: OnPiece | None = None,
    ) -> None:
        self._clock, self._band_hz = clock, band_hz
        self._on_end, self._on_change, self._on_piece = on_end, on_change, on_piece
        # Transfers whose attempts have ended now, but of whom nobody has been told.
        self._ended: deque[Transfer] = deque()

    @abstractmethod
    def prepare(
        self, link: Link, bits: FloatArray, reserved_hz: FloatArray | None = None
    ) -> list[Transfer]:
        """Uploads of M devices that were sent out together, none of them begun.

        Parameters
        ----------
        link
            Their uplinks.
        bits
            (M,) payloads, > 0.
        reserved_hz
            (M,) band that a rule that reserves gives to each; None under another rule.
        """

    @abstractmethod
    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Begin an attempt now.

        Parameters
        ----------
        transfer
            Not under way.
        bits
            The attempt ends once so many bits are through: the payload, or less if it is going to
            be lost on the way, > 0. How the band is divided does not foresee the loss.
        power_s
            It ends no later than when it has taken so many seconds at full power, which is what is
            left of the battery, >= 0.

        Raises
        ------
        ValueError
            If the transfer is under way, or a value out of range.
        """

    @abstractmethod
    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off now; `on_end` is not called.

        Raises
        ------
        ValueError
            If the transfer is not under way.
        """

    def _open(self, transfer: Transfer, bits: float, power_s: float) -> None:
        """Check an attempt, and forget the one before."""
        if transfer.sending:
            raise ValueError("the transfer is under way already")
        if not (0 < bits <= transfer.bits and power_s >= 0):
            raise ValueError(
                f"bits must be positive and at most {transfer.bits}, power_s not negative, got "
                f"{bits} and {power_s}"
            )
        transfer.sending, transfer.begin_s = True, None
        transfer.sent_bits = transfer.used_hz_s = transfer.power_s = 0.0

    @staticmethod
    def _check_open(transfer: Transfer) -> None:
        """Refuse to stop what is not under way."""
        if not transfer.sending:
            raise ValueError("the transfer is not under way")

    def _tell(self) -> None:
        """Tell of the attempts that have ended; whoever hears of one may stop or start others."""
        while self._ended:
            transfer = self._ended.popleft()
            transfer.sending = False
            self._on_end(transfer)
