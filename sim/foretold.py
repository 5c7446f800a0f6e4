"""Uploads by the closed form of their rule, where nothing comes between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from sim.bands import Sharing
from sim.dispatch import Batch
from sim.errors import RunError
from sim.findings import TOLERANCE, Finding, compare, of_clock, where
from sim.part_rows import Attempts
from sim.predict import transfers_of
from sim.sections.schedule import Asynchronous, Deadline, OverSelection, Synchronous
from sim.sent import FloatArray, Sent
from sim.system import System
from sim.timeline import Round

_TIMELINE = "timeline.csv"


def foretells(system: System) -> bool:
    """Whether the round-time formula tells all of a round beforehand, once its cohort is drawn, at
    least while the band does not change.
    """
    scenario = system.scenario
    schedule = scenario.schedule
    alone = isinstance(schedule, Synchronous | OverSelection)
    alone |= isinstance(schedule, Deadline) and schedule.late == "cancel"
    return (
        alone
        and not isinstance(schedule, Asynchronous)
        and not scenario.failures.any
        and not scenario.fleet.battery
        and Sharing.of(system).same_link
        and (scenario.radio.reallocation_s == 0 or system.world.rule.reserves)
    )


def as_foretold(
    system: System,
    timeline: pd.DataFrame,
    sent: Sent,
    tries: Attempts,
    rounds: Sequence[Round],
) -> Iterator[Finding]:
    """Every upload against the closed form of its rule, round by round.

    Whoever was cancelled would have ended later.
    """
    if not foretells(system) or not len(sent):
        return
    begin_s, end_s, hz, bps, power_s = np.full((5, len(sent)), np.nan)
    first = 0
    for batch in sent.batches:
        places = slice(first, first := first + len(batch))
        if not system.next_band_s(batch.sent_s) > rounds[batch.round].end_s:
            continue  # the formula knows one band only
        forms = _transfers(system, batch)
        begin_s[places], end_s[places], hz[places], power_s[places] = forms
        bps[places] = batch.bits / (end_s[places] - begin_s[places])
    told = np.isfinite(end_s[tries.sent])
    cut = sent.cancelled_s[tries.sent] < np.inf
    rows, who = timeline.iloc[tries.row], tries.sent
    early = end_s[who] < sent.cancelled_s[who] * (1 - TOLERANCE)
    yield from where(
        _TIMELINE, rows, told & cut & early, "device {device} would have been through before"
    )
    whole = np.flatnonzero(told & ~cut)
    rows, who = rows.iloc[whole], who[whole]
    seconds = end_s[who] - begin_s[who]
    # What the clock's spacing makes of means over an interval, and of energies.
    share = of_clock(end_s[who]) / seconds
    energy_j = sent.transmit_w[who] * power_s[who]
    yield from compare(
        _TIMELINE,
        rows,
        {
            "start_s": begin_s[who],
            "end_s": end_s[who],
            "bandwidth_hz": hz[who],
            "rate_bps": bps[who],
            "energy_j": energy_j,
        },
        ["round", "device", "phase"],
        {
            "bandwidth_hz": share * hz[who],
            "rate_bps": share * bps[who],
            "energy_j": share * energy_j,
        },
    )


def _transfers(system: System, batch: Batch) -> FloatArray:
    """Begins, ends, mean bandwidths and seconds at full power of a batch's uploads, (4, M)."""
    found = np.full((4, len(batch)), np.nan)
    try:
        for places, sent in transfers_of(system, batch, system.band_hz(batch.sent_s)):
            times = (batch.heard_s + sent.begin_s, batch.heard_s + sent.finish_s)
            found[:, places] = (*times, sent.bandwidth_hz, sent.power_s)
    except RunError:
        pass  # too few resource blocks: no such run ends, and the playback has said so
    return found
