"""Bandwidths, rates and energies of uploads, and the bands in use that they add up to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.findings import MOST, TOLERANCE, Finding, differs, of_clock, where
from sim.part_rows import Attempts
from sim.sent import FloatArray, IntArray, Sent
from sim.system import System
from wireless.link import linear_efficiency, linear_power
from wireless.spectrum import EqualSplit, OverTheAir, TimeDivision

_UP = 1 + TOLERANCE
_TIMELINE, _SPECTRUM, _PIECES = "timeline.csv", "spectrum.csv", "pieces.csv"


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the scenario promises of every upload.

    Parameters
    ----------
    same_link
        Whether an upload keeps the link that it was sent out with.
    steady
        Whether it keeps one bandwidth from begin to end.
    stalls
        Whether it may hold no band for a while.
    even
        Whether whoever sends holds the same part of the whole band.
    together
        Whether all who send hold the whole band at once.
    """

    same_link: bool
    steady: bool
    stalls: bool
    even: bool
    together: bool

    @classmethod
    def of(cls, system: System) -> Sharing:
        """What a scenario promises."""
        world, scenario = system.world, system.scenario
        radio, rule = world.fleet.channel.radio, world.rule
        at_once = scenario.radio.reallocation_s == 0
        same_link = not (radio.fades and radio.fading.kind == "block")
        constant = same_link and world.band is None
        serial = isinstance(rule, TimeDivision) and at_once
        free = world.whole is None and world.band is None
        return cls(
            same_link,
            constant and (rule.reserves or serial),
            not free,
            isinstance(rule, EqualSplit) and free and at_once,
            isinstance(rule, OverTheAir),
        )


def uploads(
    system: System, timeline: pd.DataFrame, sent: Sent, tries: Attempts
) -> Iterator[Finding]:
    """Rates and energies are what the links give for the bandwidths.

    Links are concave: over a time in which the bandwidth changes, the mean rate is at most that of
    the mean bandwidth, and the same holds for the power (Jensen).
    """
    if sent.link is None:
        return
    rows, sharing = timeline.iloc[tries.row], Sharing.of(system)
    hz, seconds, bps = tries.bandwidth_hz, tries.lasted_s, tries.rate_bps
    most_hz = _most_hz(system)
    # What the clock's spacing makes of a mean over a short time.
    blur = of_clock(tries.end_s) / np.where(seconds > 0, seconds, np.inf)
    wrong = ~(hz <= most_hz * (_UP + blur)) | (hz < 0)
    yield from where(_TIMELINE, rows, wrong, "holds more than the band")
    hz = np.clip(hz, 0.0, most_hz)
    watts = sent.transmit_w[tries.sent]
    spent, slack = tries.energy_j, watts * of_clock(tries.end_s)
    if not sharing.same_link:
        over = spent > watts * seconds * _UP + slack
        yield from where(_TIMELINE, rows, over, "spends more than full power takes")
        return
    link = sent.link.take(tries.sent)
    best = link.rate(hz)
    yield from where(
        _TIMELINE, rows, bps > best * (_UP + blur), "sends faster than its link over its band"
    )
    exact = (seconds > 0) & (sharing.steady | np.isfinite(linear_efficiency(link, most_hz)))
    yield from where(
        _TIMELINE,
        rows,
        exact & differs(bps, best, blur * best),
        "sends at another rate than its link's",
    )
    full = watts * link.power_share(hz) * np.maximum(seconds, 0.0)
    yield from where(
        _TIMELINE, rows, spent > full * _UP + slack, "spends more than its power takes"
    )
    power = linear_power(link, most_hz)
    exact = (power > 0) | sharing.steady | (power == 0) & (not sharing.stalls)
    wrong = exact & differs(spent, full, slack)
    yield from where(_TIMELINE, rows, wrong, "spends {energy_j} J, not what its power takes")


def bands_in_use(
    system: System, timeline: pd.DataFrame, spectrum: pd.DataFrame, sent: Sent, tries: Attempts
) -> Iterator[Finding]:
    """No cell ever uses more than its band, and what it uses is what its uploads hold."""
    cell_of = sent.cell[tries.sent]
    sharing = Sharing.of(system)
    table_cell = spectrum["cell"].to_numpy()
    for cell in np.union1d(table_cell, cell_of).tolist():
        lines = np.flatnonzero(table_cell == cell)
        mine = np.flatnonzero((cell_of == cell) & (tries.lasted_s > 0))
        yield from _cell(system, sharing, timeline, spectrum.iloc[lines], tries, mine)


def _cell(
    system: System,
    sharing: Sharing,
    timeline: pd.DataFrame,
    rows: pd.DataFrame,
    tries: Attempts,
    mine: NDArray[np.intp],
) -> Iterator[Finding]:
    """The band of one cell."""
    time_s, in_use = rows["time_s"].to_numpy(), rows["bandwidth_in_use_hz"].to_numpy()
    active = rows["active"].to_numpy()
    yield from where(
        _SPECTRUM,
        rows,
        np.diff(time_s, prepend=-math.inf) <= 0,
        "is not later than its cell's row before",
    )
    same = (np.diff(in_use, prepend=-1.0) == 0) & (np.diff(active, prepend=-1) == 0)
    yield from where(_SPECTRUM, rows, same, "says the same as its cell's row before")
    yield from where(
        _SPECTRUM,
        rows,
        (in_use < 0) | ((in_use > 0) != (active > 0)),
        "a band in use without anybody, or the reverse",
    )
    for name, moments in (("from", time_s), ("up to", np.append(time_s[1:], np.inf))):
        over = in_use > _band_hz(system, moments, name == "up to") * _UP
        yield from where(_SPECTRUM, rows, over, f"more than the band is in use {name} this time")
    if len(time_s) and not (np.diff(time_s) > 0).all():
        return
    begin_s, end_s = tries.start_s[mine], tries.end_s[mine]
    yield from _active(sharing, rows, time_s, active, begin_s, end_s)
    if not len(time_s):
        return
    if sharing.together:
        wanted = np.where(active > 0, _most_hz(system), 0.0)
        yield from where(_SPECTRUM, rows, differs(in_use, wanted), "is not the whole band")
        return
    yield from _busy_periods(system, rows, tries, mine)
    if sharing.even:
        each_hz = np.where(active > 0, _most_hz(system) / np.maximum(active, 1), 0.0)
        done = np.append(0.0, np.cumsum(each_hz[:-1] * np.diff(time_s)))
        given = _at(time_s, done, each_hz, end_s) - _at(time_s, done, each_hz, begin_s)
        held = tries.bandwidth_hz[mine] * tries.lasted_s[mine]
        slack = 64 * np.spacing(np.maximum(done[-1], 1.0)) + _most_hz(system) * of_clock(end_s)
        wrong = differs(held, given, slack)
        holders = timeline.iloc[tries.row[mine]]
        yield from where(
            _TIMELINE, holders, wrong, "bandwidth_hz is not an even part of the band in use"
        )


def _active(
    sharing: Sharing,
    rows: pd.DataFrame,
    time_s: FloatArray,
    active: IntArray,
    begin_s: FloatArray,
    end_s: FloatArray,
) -> Iterator[Finding]:
    """As many are active as hold some of the band by their rows; some may stall."""
    moments = np.unique(np.concatenate([time_s, begin_s, end_s]))
    holds = np.searchsorted(np.sort(begin_s), moments, "right")
    holds = holds - np.searchsorted(np.sort(end_s), moments, "right")
    place = np.searchsorted(time_s, moments, "right") - 1
    told = np.where(place >= 0, np.append(active, 0)[place], 0)
    wrong = told > holds if sharing.stalls else told != holds
    for moment in np.flatnonzero(wrong)[:MOST]:
        number = place[moment]
        yield Finding(
            _SPECTRUM,
            int(rows.index[number]) + 2 if number >= 0 else None,
            f"{told[moment]:.0f} are active at {moments[moment]} s, {holds[moment]} uploads are "
            "under way",
        )


def _busy_periods(
    system: System, rows: pd.DataFrame, tries: Attempts, mine: NDArray[np.intp]
) -> Iterator[Finding]:
    """Over each time in which somebody sends, band in use times time is that of the uploads."""
    time_s = rows["time_s"].to_numpy()
    in_use = rows["bandwidth_in_use_hz"].to_numpy()
    begin_s, end_s = tries.start_s[mine], tries.end_s[mine]
    # Uploads may all stall at once; a period ends when none is under way.
    holds = np.searchsorted(np.sort(begin_s), time_s, "right")
    holds = holds - np.searchsorted(np.sort(end_s), time_s, "right")
    idle = holds == 0
    first = np.flatnonzero(~idle & np.append(True, idle[:-1]))
    if not len(first):
        return
    period = np.cumsum(np.bincount(first, minlength=len(rows))) - 1
    lasts = np.append(np.diff(time_s), 0.0)
    used = np.bincount(np.maximum(period, 0), in_use * lasts, len(first))
    of_mine = np.clip(np.searchsorted(time_s[first], begin_s, "right") - 1, 0, None)
    held = np.bincount(of_mine, tries.bandwidth_hz[mine] * tries.lasted_s[mine], len(first))
    events = np.bincount(np.maximum(period, 0), minlength=len(first))
    events += np.bincount(of_mine, minlength=len(first))
    last = np.append(first[1:], len(rows)) - 1
    slack = _most_hz(system) * of_clock(time_s[last]) * events
    for number in np.flatnonzero(differs(used, held, slack))[:MOST]:
        yield Finding(
            _SPECTRUM,
            int(rows.index[first[number]]) + 2,
            f"from here to {time_s[last[number]]} s {used[number]:.12g} hertz seconds are used, "
            f"the uploads' add up to {held[number]:.12g}",
        )


def _at(time_s: FloatArray, done: FloatArray, speed: FloatArray, moment: FloatArray) -> FloatArray:
    """Integral (M,) of a step function up to some moments."""
    place = np.clip(np.searchsorted(time_s, moment, "right") - 1, 0, None)
    return done[place] + speed[place] * np.maximum(moment - time_s[place], 0.0)


def _most_hz(system: System) -> float:
    """Widest uplink band of a cell."""
    band = system.world.band
    return system.scenario.radio.bandwidth_hz if band is None else float(band.level.max())


def _band_hz(system: System, time_s: FloatArray, before: bool) -> FloatArray:
    """Uplink band of a cell at some moments (M,), or just before them; at infinity the widest."""
    band = system.world.band
    if band is None:
        return np.full(len(time_s), system.scenario.radio.bandwidth_hz)
    finite = np.isfinite(time_s)
    moments = np.where(finite, time_s, 0.0)
    if before:
        moments = np.nextafter(moments, 0.0)
    return np.where(finite, band.value(np.zeros(len(time_s), dtype=np.int64), moments), np.inf)


def pieces_of(
    system: System,
    pieces: pd.DataFrame,
    timeline: pd.DataFrame,
    spectrum: pd.DataFrame,
    sent: Sent,
    tries: Attempts,
) -> Iterator[Finding]:
    """Pieces lie within their uploads, one after the other, and add up to them."""
    owner = _owners(pieces, sent, tries)
    start_s, end_s = pieces["start_s"].to_numpy(), pieces["end_s"].to_numpy()
    hz, bps = pieces["bandwidth_hz"].to_numpy(), pieces["rate_bps"].to_numpy()
    inside = owner >= 0
    of = np.maximum(owner, 0)
    if len(tries):
        inside &= (end_s <= tries.end_s[of]) & (start_s < end_s)
        inside &= pieces["round"].to_numpy() == sent.round[tries.sent[of]]
    yield from where(_PIECES, pieces, ~inside, "lies in no upload of device {device}")
    falls = np.diff(end_s, prepend=-math.inf) < 0
    yield from where(_PIECES, pieces, falls, "ends before the row above it")
    order = np.lexsort((start_s, of))
    order = order[inside[order]]
    early = np.zeros(len(pieces), dtype=np.bool_)
    early[order[1:]] = (np.diff(of[order]) == 0) & (start_s[order[1:]] < end_s[order[:-1]])
    yield from where(_PIECES, pieces, early, "begins before device {device}'s piece before ends")
    count = len(tries)
    seconds = np.where(inside, end_s - start_s, 0.0)
    number = np.bincount(of[inside], minlength=count)
    for name, each, mean in (
        ("bits", bps, tries.rate_bps),
        ("hertz seconds", hz, tries.bandwidth_hz),
    ):
        total = np.bincount(of[inside], (each * seconds)[inside], count)
        slack = mean * of_clock(tries.end_s) * (number + 1)
        wrong = differs(total, mean * np.maximum(tries.lasted_s, 0.0), slack)
        yield from where(
            _TIMELINE, timeline.iloc[tries.row], wrong, f"its pieces add up to other {name}"
        )
    if sent.link is not None and Sharing.of(system).same_link:
        best = sent.link.take(tries.sent[of[inside]]).rate(np.clip(hz[inside], 0, None))
        wrong = differs(bps[inside], best)
        yield from where(
            _PIECES,
            pieces.iloc[np.flatnonzero(inside)],
            wrong,
            "sends at another rate than its link's",
        )
    table_cell = spectrum["cell"].to_numpy()
    cell_of = np.where(inside, sent.cell[tries.sent[of]], -1) if count else owner
    for cell in np.union1d(table_cell, cell_of[inside]).tolist():
        mine = cell_of == cell
        yield from _sum_of_pieces(
            system, spectrum[table_cell == cell], start_s[mine], end_s[mine], hz[mine]
        )


def _owners(pieces: pd.DataFrame, sent: Sent, tries: Attempts) -> IntArray:
    """The attempt that each piece would lie in, by device and begin; -1 for none."""
    device = np.concatenate([sent.device[tries.sent], pieces["device"].to_numpy()])
    start_s = np.concatenate([tries.start_s, pieces["start_s"].to_numpy()])
    is_piece = np.arange(len(device)) >= len(tries)
    # Of attempts that begin at one moment the one that lasts comes last.
    lasts = np.append(tries.lasted_s, np.zeros(len(pieces)))
    order = np.lexsort((lasts, is_piece, start_s, device))
    place = np.where(is_piece[order], -1, order)
    latest = np.maximum.accumulate(np.where(place >= 0, np.arange(len(order)), -1))
    owner = np.where(latest >= 0, place[np.maximum(latest, 0)], -1)
    owner = np.where((owner >= 0) & (device[np.maximum(owner, 0)] == device[order]), owner, -1)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = owner
    return found[len(tries) :]


def _sum_of_pieces(
    system: System, rows: pd.DataFrame, start_s: FloatArray, end_s: FloatArray, hz: FloatArray
) -> Iterator[Finding]:
    """At every change of a cell's band in use, the pieces that lie there add up to it."""
    time_s = rows["time_s"].to_numpy()
    moment = np.concatenate([start_s, end_s])
    order = np.argsort(moment, kind="stable")
    place = np.searchsorted(moment[order], time_s, "right")
    held = np.append(0.0, np.cumsum(np.concatenate([hz, -hz])[order]))[place]
    one = np.ones(len(hz), dtype=np.int64)
    count = np.append(0, np.cumsum(np.concatenate([one, -one])[order]))[place]
    if Sharing.of(system).together:
        held = held / np.maximum(count, 1)
    wrong = differs(rows["bandwidth_in_use_hz"].to_numpy(), held, _most_hz(system) * TOLERANCE)
    yield from where(_SPECTRUM, rows, wrong, "the pieces at this time hold another band")
    wrong = rows["active"].to_numpy() != count
    yield from where(_SPECTRUM, rows, wrong, "another number of pieces lies at this time")
