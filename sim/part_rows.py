"""What the rows of each device's part must be: download, computation, attempts to upload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.findings import MOST, TOLERANCE, Finding, compare, differs, of_clock, where
from sim.parts import (
    CANCELLED,
    COMPUTE,
    DONE,
    DOWNLINK,
    DROPPED,
    LATE,
    OUTCOMES,
    PHASES,
    UPLINK,
    Parts,
    codes,
)
from sim.sent import FloatArray, IntArray, Sent
from sim.system import System

FILE = "timeline.csv"
_KEYS = ("round", "device", "phase")
_UP = 1 + TOLERANCE
_OUTCOMES = np.array([*OUTCOMES, ""], dtype=object)


@dataclass(frozen=True, slots=True, eq=False)
class Attempts:
    """U attempts to upload, each by its row of the timeline.

    Parameters
    ----------
    row
        (U,) rows of the timeline.
    sent
        (U,) whose they are, by their numbers among all who were sent out.
    number
        (U,) of the attempt, from 0.
    last
        (U,) whether it is the last one.
    start_s, end_s, bytes, bandwidth_hz, rate_bps, energy_j
        (U,) of the row; rates and bands of attempts that got none are zero.
    outcome
        (U,) by its place in `OUTCOMES`.
    """

    row: IntArray
    sent: IntArray
    number: IntArray
    last: NDArray[np.bool_]
    start_s: FloatArray
    end_s: FloatArray
    bytes: FloatArray
    bandwidth_hz: FloatArray
    rate_bps: FloatArray
    energy_j: FloatArray
    outcome: IntArray

    def __len__(self) -> int:
        """Return the number of attempts U."""
        return len(self.row)

    @property
    def lasted_s(self) -> FloatArray:
        """How long each took, (U,)."""
        return self.end_s - self.start_s


def attempts_of(timeline: pd.DataFrame, parts: Parts, sent: Sent) -> Attempts:
    """The attempts of all who were sent out."""
    there = np.flatnonzero(sent.part >= 0)
    part = sent.part[there]
    count = parts.attempts[part]
    first = parts.first[part] + parts.length[part] - count
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row = parts.row[np.repeat(first, count) + number]

    def column(name: str) -> FloatArray:
        return np.asarray(timeline[name].to_numpy(dtype=np.float64)[row])

    outcome = codes(timeline["outcome"], OUTCOMES)
    return Attempts(
        row,
        np.repeat(there, count),
        number,
        number == np.repeat(count, count) - 1,
        column("start_s"),
        column("end_s"),
        np.nan_to_num(column("bytes")),
        np.nan_to_num(column("bandwidth_hz")),
        np.nan_to_num(column("rate_bps")),
        np.nan_to_num(column("energy_j")),
        outcome[row],
    )


def parts_as_sent(
    system: System, timeline: pd.DataFrame, parts: Parts, sent: Sent, followed_s: float
) -> Iterator[Finding]:
    """Every part is there as it was sent out, once, and nothing else is.

    Parameters
    ----------
    system
        What was simulated.
    timeline, parts, sent
        The rows, and what they should tell.
    followed_s
        Until when the run could be followed; what ends later is not judged.
    """
    for number in np.flatnonzero(sent.part < 0)[:MOST]:
        yield Finding(
            FILE,
            None,
            f"a part is missing: device {sent.device[number]}, sent out in round "
            f"{sent.round[number]}",
        )
    there = np.flatnonzero(sent.part >= 0)
    there = there[parts.end_s[sent.part[there]] <= followed_s * _UP]
    part = sent.part[there]
    ends = timeline.iloc[parts.last[part]]
    phase, outcome = _ends(sent, there)
    found_phase, found_outcome = parts.phase[part], parts.outcome[part]
    # What falls on one moment but for a rounding may have come in either order.
    turn_s = np.minimum(sent.ready_s, sent.fails_s)[there]
    either = ~differs(sent.cancelled_s[there], turn_s)
    either |= ~differs(sent.cancelled_s[there], sent.start_s[there])
    other = parts.closed[part] & (found_phase != phase) & ~either
    told = phase != UPLINK
    other |= parts.closed[part] & told & (found_outcome != outcome) & ~either
    for place in np.flatnonzero(other)[:MOST]:
        row = ends.iloc[place]
        yield Finding(
            FILE,
            int(ends.index[place]) + 2,
            f"device {row['device']:.0f} ends its part of round {row['round']:.0f} "
            f"{row['outcome']} in {row['phase']}, expected "
            f"{OUTCOMES[outcome[place]] if told[place] else 'it to end'} in {PHASES[phase[place]]}",
        )
    yield from _downloads(system, timeline, parts, sent, there)
    yield from _computations(timeline, parts, sent, there)


def _ends(sent: Sent, there: IntArray) -> tuple[IntArray, IntArray]:
    """In which phase parts end by what they were sent out to do, and, before an upload, how."""
    turn_s = np.minimum(sent.ready_s, sent.fails_s)
    cancelled = sent.cancelled_s < turn_s
    phase = np.where(cancelled | np.isfinite(sent.fails_s), COMPUTE, UPLINK)
    phase[sent.cancelled_s < sent.start_s] = DOWNLINK
    return phase[there], np.where(cancelled, CANCELLED, DROPPED)[there]


def _downloads(
    system: System, timeline: pd.DataFrame, parts: Parts, sent: Sent, there: IntArray
) -> Iterator[Finding]:
    """Each device's own download, whole or broken off."""
    part = sent.part[there]
    wanted = sent.download_s[there] > 0
    has = parts.downlinks[part] > 0
    ends = timeline.iloc[parts.last[part]]
    # Who is missed at the very end of its download may be so before the download is noted.
    missed = ~differs(parts.end_s[part], sent.start_s[there])
    without = wanted & ~has & ~missed
    yield from where(FILE, ends, without, "device {device} has no download before")
    row = timeline.iloc[parts.row[parts.first[part[has]]]]
    yield from where(FILE, row, ~wanted[has], "unexpected row: download of device {device}")
    who = there[has]
    broken = parts.phase[part[has]] == DOWNLINK
    begin_s = sent.start_s[who] - sent.download_s[who]
    end_s = np.where(broken, sent.cancelled_s[who], sent.start_s[who])
    start_s = np.minimum(begin_s, end_s)
    yield from compare(
        FILE,
        row,
        {
            "start_s": start_s,
            "end_s": end_s,
            "bandwidth_hz": np.full(len(who), system.scenario.radio.downlink_bandwidth_hz),
            "rate_bps": sent.download_bps[who],
            "energy_j": np.zeros(len(who)),
        },
        _KEYS,
    )
    bits = np.nan_to_num(sent.download_bps[who] * (end_s - start_s), posinf=0.0)
    # A rounding of the time may be worth the next whole byte.
    least, most = (np.floor(bits * rounded) // 8 for rounded in (1 - TOLERANCE, _UP))
    least, most = (np.where(broken, each, sent.download_bytes[who]) for each in (least, most))
    found = row["bytes"].to_numpy(dtype=np.float64)
    yield from where(
        FILE,
        row,
        ~((least <= found) & (found <= most)),
        "device {device} downloads {bytes} bytes, not what it was sent",
    )


def _computations(
    timeline: pd.DataFrame, parts: Parts, sent: Sent, there: IntArray
) -> Iterator[Finding]:
    """Each device's training, to the end, to a failure, or to its being cancelled."""
    part = sent.part[there]
    has = parts.computes[part] > 0
    who, of = there[has], part[has]
    row = timeline.iloc[parts.row[parts.first[of] + parts.downlinks[of]]]
    end_s = np.minimum(np.minimum(sent.ready_s, sent.fails_s), sent.cancelled_s)[who]
    seconds = end_s - sent.start_s[who]
    yield from compare(
        FILE,
        row,
        {
            "start_s": sent.start_s[who],
            "end_s": end_s,
            "bytes": np.full(len(who), np.nan),
            "bandwidth_hz": np.full(len(who), np.nan),
            "rate_bps": np.full(len(who), np.nan),
            "energy_j": sent.compute_w[who] * seconds,
        },
        _KEYS,
        {"energy_j": sent.compute_w[who] * of_clock(end_s)},
    )


def attempts_as_sent(
    system: System, timeline: pd.DataFrame, sent: Sent, tries: Attempts, followed_s: float
) -> Iterator[Finding]:
    """Every attempt begins when it may, gets through what it should, and ends for a reason."""
    rows = timeline.iloc[tries.row]
    judged = tries.end_s <= followed_s * _UP
    who = tries.sent
    most = sent.delivered.shape[1]
    yield from where(
        FILE, rows, tries.number >= most, f"is attempt {most + 1} or later of device {{device}}"
    )
    delivered = sent.delivered[who, np.minimum(tries.number, most - 1)]
    bits = sent.bits[who] * delivered
    size = np.floor(bits) // 8
    begin_s = _may_begin_s(system, sent, tries)
    yield from where(
        FILE,
        rows,
        ~(tries.start_s >= begin_s - TOLERANCE * begin_s),
        "begins before device {device} may send",
    )
    # How it ends.
    whole = delivered == 1.0
    done = (tries.outcome == DONE) | (tries.outcome == LATE)
    cancelled = tries.outcome == CANCELLED
    dropped = tries.outcome == DROPPED
    through = tries.bytes == size
    gone = ~differs(tries.end_s, sent.leaves_s[who])
    empty = ~differs(_spent_j(sent, tries), sent.charge_j[who])
    gave_up = through & ~whole & (tries.number == most - 1)
    reason = done & whole & through & ((tries.outcome == LATE) == sent.late[who])
    reason |= cancelled & ~differs(tries.end_s, sent.cancelled_s[who])
    reason |= dropped & (gone | empty | gave_up)
    reason |= ~tries.last & ~whole & through
    for place in np.flatnonzero(judged & ~reason)[:MOST]:
        row = rows.iloc[place]
        yield Finding(
            FILE,
            int(tries.row[place]) + 2,
            f"{row['outcome']} is not how attempt {tries.number[place] + 1} of device "
            f"{row['device']:.0f} ends with {tries.bytes[place]:.0f} bytes at "
            f"{tries.end_s[place]} s, {size[place]:.0f} of {sent.bits[who[place]] // 8:.0f} bytes "
            "would get through",
        )
    yield from where(FILE, rows, tries.bytes > size, "more gets through than device {device} sends")
    yield from where(
        FILE,
        rows,
        judged & (tries.end_s > sent.leaves_s[who] * _UP),
        "device {device} is away by then",
    )
    still = judged & (tries.end_s > sent.cancelled_s[who] * _UP)
    yield from where(FILE, rows, still, "device {device} was cancelled before")
    # What it carries.
    seconds = tries.lasted_s
    carried = tries.rate_bps * seconds
    ends_whole = reason & (done | ~tries.last | dropped & gave_up & ~gone & ~empty)
    wrong = ends_whole & differs(carried, bits)
    part = np.floor(np.maximum(carried, 0.0) * _UP) // 8 - tries.bytes
    wrong |= ~ends_whole & ~((part >= 0) & (carried * (1 - TOLERANCE) < 8 * (tries.bytes + 1)))
    yield from where(FILE, rows, wrong, "rate_bps times the duration is not what the bytes are")
    for name in ("bandwidth_hz", "rate_bps"):
        given = rows[name].notna().to_numpy()
        yield from where(
            FILE, rows, given != (seconds > 0), f"{name} belongs to a transfer that takes time"
        )
    yield from where(
        FILE,
        rows,
        rows["bytes"].isna().to_numpy() | rows["energy_j"].isna().to_numpy(),
        "bytes or energy_j is missing",
    )


def _may_begin_s(system: System, sent: Sent, tries: Attempts) -> FloatArray:
    """From when on attempts may begin: once the device is ready, or has paused, (U,)."""
    losses = system.scenario.failures.losses
    begin_s = sent.ready_s[tries.sent]
    if losses is None or not len(tries):
        return begin_s
    before_s = np.roll(tries.end_s, 1) + losses.backoff_s * 2.0 ** (tries.number - 1)
    # Whoever goes away in a pause, or is cancelled in it, is no attempt.
    idle = tries.last & (tries.lasted_s == 0)
    return np.where(tries.number == 0, begin_s, np.where(idle, np.roll(tries.end_s, 1), before_s))


def _spent_j(sent: Sent, tries: Attempts) -> FloatArray:
    """What devices have spent at the end of an attempt, (U,)."""
    who = tries.sent
    spent = sent.compute_w[who] * (sent.ready_s - sent.start_s)[who] + tries.energy_j
    for number in range(1, int(tries.number.max(initial=0)) + 1):
        again = np.flatnonzero(tries.number == number)
        spent[again] = spent[again - 1] + tries.energy_j[again]
    return spent


def others_unasked(timeline: pd.DataFrame, parts: Parts, asked: IntArray) -> Iterator[Finding]:
    """Rows of parts that nobody was sent out for."""
    strange = np.ones(len(parts), dtype=np.bool_)
    strange[asked] = False
    of_row = np.repeat(strange, parts.length)
    rows = timeline.iloc[np.sort(parts.row[of_row])]
    yield from where(
        FILE,
        rows,
        np.ones(len(rows), dtype=np.bool_),
        "unexpected row: round {round}, device {device}, {phase}",
    )
