"""Uplinks driven by hand, and everything that they reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sim.clock import Clock
from sim.uplink import DividedUplink, Transfer, Uplink
from sim.uplink.reserved import ReservedUplink
from sim.uplink.serial import SerialUplink
from sim.uplink.shared import SharedUplink
from wireless.link import Link
from wireless.nr import whole_blocks
from wireless.spectrum import RULES, Rule, Whole

BAND_HZ = 1e6
BLOCKS = partial(whole_blocks, block_hz=1e4)


@dataclass(frozen=True)
class Make:
    """A maker of uplinks under a rule, from clock, band and callbacks."""

    build: Callable[..., Uplink]
    rule: Rule
    whole: Whole | None = None

    def __call__(self, *rest: object) -> Uplink:
        return self.build(*rest)


def divided(name: str, whole: Whole | None = None, reallocation_s: float = 0.0) -> Make:
    """A maker of the general uplink."""
    rule = RULES[name]
    return Make(partial(DividedUplink, rule, whole, reallocation_s), rule, whole)


def quick(name: str, whole: Whole | None = None) -> Make:
    """A maker of the rule's own uplink."""
    rule = RULES[name]
    if rule.reserves:
        return Make(ReservedUplink, rule, whole)
    if name == "time-division":
        return Make(partial(SerialUplink, whole), rule, whole)
    return Make(partial(SharedUplink, rule), rule, whole)


def reservation(
    rule: Rule,
    whole: Whole | None,
    link: Link,
    bits: np.ndarray,
    ready_s: np.ndarray,
    band_hz: float,
) -> np.ndarray | None:
    """Band that a rule that reserves gives to each of a batch."""
    if not rule.reserves:
        return None
    return rule.transfers(ready_s, bits, link, band_hz, whole).bandwidth_hz


@dataclass
class Attempt:
    """The span over which it held band, what it took, and whether it ended by itself."""

    begin_s: float | None
    end_s: float
    sent_bits: float
    used_hz_s: float
    power_s: float
    by_itself: bool


@dataclass
class Cell:
    """A clock, an uplink, and what happened on it.

    Parameters
    ----------
    make
        Makes the uplink.
    on_piece
        Whether spans of constant band are asked for.
    """

    make: Make
    on_piece: bool = False
    band_hz: float = BAND_HZ
    clock: Clock = field(default_factory=Clock)
    attempts: dict[int, list[Attempt]] = field(default_factory=dict)
    changes: list[tuple[float, float, int]] = field(default_factory=list)
    pieces: list[tuple[int, float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.number: dict[int, int] = {}
        self.transfers: list[Transfer] = []
        self.on_end: Callable[[int], None] = lambda _: None
        self.uplink = self.make(
            self.clock,
            self.band_hz,
            self._end,
            lambda hz, senders: self.changes.append((self.clock.now, hz, senders)),
            self._piece if self.on_piece else None,
        )

    def prepare(self, link: Link, bits: Sequence[float], ready_s: Sequence[float]) -> None:
        """Add a batch."""
        columns = (np.array(bits, float), np.array(ready_s, float))
        held = reservation(self.make.rule, self.make.whole, link, *columns, self.band_hz)
        batch = self.uplink.prepare(link, columns[0], held)
        for transfer in batch:
            self.number[id(transfer)] = len(self.transfers)
            self.transfers.append(transfer)

    def at(self, time_s: float, action: Callable[[], object]) -> None:
        """Do something at a moment."""
        self.clock.at(time_s).callbacks.append(lambda _: action())

    def start(self, n: int, part: float = 1.0, power_s: float = np.inf) -> None:
        """Begin an attempt that ends after a part of the payload."""
        self.uplink.start(self.transfers[n], part * self.transfers[n].bits, power_s)

    def stop(self, n: int) -> None:
        """Cut an attempt off if it is under way."""
        if self.transfers[n].sending:
            self.uplink.stop(self.transfers[n])
            assert not self.transfers[n].sending
            self._note(self.transfers[n], False)

    def run(self) -> "Cell":
        """Until nothing is left to happen."""
        self.clock.run()
        return self

    def ends(self) -> list[float]:
        """When the latest attempts ended."""
        return [self.attempts[n][-1].end_s for n in range(len(self.transfers))]

    def usage(self) -> np.ndarray:
        """Time, band in use and senders from then on; of changes at one moment the last one."""
        kept: list[tuple[float, float, int]] = []
        for row in self.changes:
            if kept and kept[-1][0] == row[0]:
                kept.pop()
            kept.append(row)
        return np.array(kept)

    def _end(self, transfer: Transfer) -> None:
        assert not transfer.sending
        self._note(transfer, True)
        self.on_end(self.number[id(transfer)])

    def _piece(self, transfer: Transfer, *row: float) -> None:
        self.pieces.append((self.number[id(transfer)], *row))

    def _note(self, transfer: Transfer, by_itself: bool) -> None:
        self.attempts.setdefault(self.number[id(transfer)], []).append(
            Attempt(
                transfer.begin_s,
                self.clock.now,
                transfer.sent_bits,
                transfer.used_hz_s,
                transfer.power_s,
                by_itself,
            )
        )


def cell_of(
    make: Make, link: Link, bits: Sequence[float], ready_s: Sequence[float], on_piece: bool = False
) -> Cell:
    """One batch whose payloads start when they are ready; not run yet."""
    cell = Cell(make, on_piece)
    cell.prepare(link, bits, ready_s)
    for n, time_s in enumerate(ready_s):
        cell.at(time_s, partial(cell.start, n))
    return cell
