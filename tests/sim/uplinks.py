"""Uplinks driven by a script, and everything that they reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.clock import Clock
from sim.uplink import DividedUplink, Transfer, Uplink
from sim.uplink.reserved import ReservedUplink
from sim.uplink.serial import SerialUplink
from sim.uplink.shared import SharedUplink
from wireless.link import Link
from wireless.spectrum import RULES, Whole

BAND_HZ = 1e6

Make = Callable[..., Uplink]


def divided(name: str, whole: Whole | None = None, reallocation_s: float = 0.0) -> Make:
    """A maker of the general uplink."""
    return lambda *rest: DividedUplink(RULES[name], whole, reallocation_s, *rest)


def quick(name: str, whole: Whole | None = None) -> Make:
    """A maker of the rule's own uplink."""
    rule = RULES[name]
    if rule.reserves:
        return lambda *rest: ReservedUplink(rule, whole, *rest)
    if name == "time-division":
        return lambda *rest: SerialUplink(whole, *rest)
    return lambda *rest: SharedUplink(rule, *rest)


@dataclass
class Seen:
    """An attempt: the span over which it held band, what it took, and whether it ended itself."""

    begin_s: float | None
    end_s: float
    sent_bits: float
    used_hz_s: float
    power_s: float
    by_itself: bool


@dataclass
class Driver:
    """A clock, an uplink, and what happened.

    Parameters
    ----------
    make
        Makes the uplink from clock, band and callbacks.
    pieces
        Whether spans of constant band are asked for.
    """

    make: Make
    pieces: bool = False
    band_hz: float = BAND_HZ
    clock: Clock = field(default_factory=Clock)
    seen: dict[int, list[Seen]] = field(default_factory=dict)
    changes: list[tuple[float, float, int]] = field(default_factory=list)
    spans: list[tuple[int, float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.number: dict[int, int] = {}
        self.transfers: list[Transfer] = []
        self.on_end: Callable[[int], None] = lambda _: None
        on_piece = (lambda t, *row: self.spans.append((self.number[id(t)], *row))) or None
        self.uplink = self.make(
            self.clock, self.band_hz, self._end, self._change, on_piece if self.pieces else None
        )

    def prepare(self, link: Link, bits: Sequence[float], ready_s: Sequence[float]) -> None:
        """Add a batch."""
        batch = self.uplink.prepare(link, np.array(bits, float), np.array(ready_s, float))
        for transfer in batch:
            self.number[id(transfer)] = len(self.transfers)
            self.transfers.append(transfer)

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do something at a moment."""
        self.clock.at(time_s).callbacks.append(lambda _: action())

    def start(self, n: int, part: float = 1.0, power_s: float = np.inf) -> None:
        """Begin an attempt that ends after a part of the payload."""
        self.uplink.start(self.transfers[n], part * self.transfers[n].bits, power_s)

    def stop(self, n: int) -> None:
        """Cut an attempt off if it is under way."""
        if self.transfers[n].sending:
            self.uplink.stop(self.transfers[n])
            self._note(self.transfers[n], False)

    def run(self) -> "Driver":
        """Until nothing is left to happen."""
        self.clock.run()
        return self

    def last(self, n: int) -> Seen:
        """A transfer's latest attempt."""
        return self.seen[n][-1]

    def usage(self) -> list[tuple[float, float, int]]:
        """Changes, of those at one moment the last one."""
        kept: list[tuple[float, float, int]] = []
        for row in self.changes:
            if kept and kept[-1][0] == row[0]:
                kept.pop()
            if not kept or kept[-1][1:] != row[1:]:
                kept.append(row)
        return kept

    def _end(self, transfer: Transfer) -> None:
        assert not transfer.sending
        self._note(transfer, True)
        self.on_end(self.number[id(transfer)])

    def _change(self, band_hz: float, senders: int) -> None:
        self.changes.append((self.clock.now, band_hz, senders))

    def _note(self, transfer: Transfer, by_itself: bool) -> None:
        self.seen.setdefault(self.number[id(transfer)], []).append(
            Seen(
                transfer.begin_s,
                self.clock.now,
                transfer.sent_bits,
                transfer.used_hz_s,
                transfer.power_s,
                by_itself,
            )
        )
