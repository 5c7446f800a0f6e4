"""What every way of sharing an uplink band in simulated time has in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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
        When the attempt first held some of the band; None before.
    sent_bits, used_hz_s, power_s
        What got through, bandwidth times time, and seconds at full power that take as much energy:
        of the attempt, known once it has ended or was stopped. An attempt of which everything got
        through has `sent_bits` exactly equal to what it was to send.
    owner
        Whose it is; for whoever started it.
    """

    bits: float
    sending: bool = False
    begin_s: float | None = None
    sent_bits: float = 0.0
    used_hz_s: float = 0.0
    power_s: float = 0.0
    owner: Any = None


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
        on_end: Callable[[Transfer], None],
        on_change: Callable[[float, int], None],
        on_piece: Callable[[Transfer, float, float, float, float], None] | None = None,
    ) -> None:
        self._clock, self._band_hz = clock, band_hz
        self._on_end, self._on_change, self._on_piece = on_end, on_change, on_piece

    @abstractmethod
    def prepare(self, link: Link, bits: FloatArray, ready_s: FloatArray) -> list[Transfer]:
        """Uploads of M devices that were sent out together, none of them begun.

        Parameters
        ----------
        link
            Their uplinks.
        bits
            (M,) payloads, > 0.
        ready_s
            (M,) simulated seconds at which they are expected to be ready; only a rule that
            reserves looks at them.

        Raises
        ------
        ValueError
            If rounding to whole resource blocks leaves nobody any band.
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
            be lost on the way.
        power_s
            It ends no later than when it has taken so many seconds at full power, which is what is
            left of the battery.
        """

    @abstractmethod
    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off now; `on_end` is not called."""
