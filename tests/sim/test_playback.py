"""A network that repeats a timeline: who ends when, and that nothing is asked for twice."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.dispatch import Batch
from sim.findings import compare_table, matched
from sim.network import Member, Network
from sim.parts import COMPUTE, DONE, UPLINK, Parts
from sim.playback import Playback, PlayedMember
from sim.timeline import Interval, columns
from wireless.link import LinearLink


def table(*rows: Interval) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=columns(Interval))
    return frame.astype({"device": "float64", "energy_j": "float64"})


def part(number: int, device: int, start_s: float, *ends: tuple[float, str]) -> list[Interval]:
    """Training, and attempts that end at some times."""
    first, *others = ends
    rows = [Interval(number, device, "compute", start_s, first[0], energy_j=1.0, outcome=first[1])]  # type: ignore[arg-type]
    before = first[0]
    for end_s, outcome in others:
        rows.append(
            Interval(number, device, "uplink", before, end_s, 8, 1.0, 1.0, 0.5, outcome)  # type: ignore[arg-type]
        )
        before = end_s
    return rows


def in_order(*parts: list[Interval]) -> pd.DataFrame:
    return table(*sorted((row for rows in parts for row in rows), key=lambda row: row.end_s))


def batch(number: int, *device: int) -> Batch:
    count = len(device)
    zeros, far = np.zeros(count), np.full(count, np.inf)
    whole = np.zeros(count, dtype=np.int64)
    return Batch(
        number, np.array(device), whole, zeros, whole, whole, LinearLink(np.ones(count)), 0.0, 0.0,
        zeros, whole, zeros, zeros, zeros, zeros, zeros, zeros, far, far, far, np.ones((count, 1)),
    )  # fmt: skip


def playback_of(timeline: pd.DataFrame, devices: int = 4) -> Playback:
    parts = Parts.of(timeline, timeline["device"].notna().to_numpy())
    return Playback(Clock(), parts, timeline[timeline["device"].isna()], devices)


def test_it_has_what_schedules_ask_of_a_network_and_of_members() -> None:
    for name in ("serve", "broadcast", "drop", "send_out", "finish"):
        theirs, mine = (inspect.signature(getattr(each, name)) for each in (Network, Playback))
        assert list(theirs.parameters) == list(mine.parameters)
    for name in ("batch", "place", "device", "outcome", "late", "energy_j", "end_s"):
        assert name in Member.__slots__
        assert name in PlayedMember.__slots__


def test_members_end_when_and_how_the_timeline_says() -> None:
    timeline = in_order(
        part(1, 0, 0.0, (1.0, "done"), (3.0, "lost"), (5.0, "done")),
        part(1, 1, 0.0, (2.0, "dropped")),
        part(1, 2, 0.0, (1.0, "done"), (4.0, "cancelled")),
    )
    playback = playback_of(timeline)
    ended: list[tuple[int, float, Any, float]] = []
    playback.on_end = lambda m: ended.append((m.device, playback.clock.now, m.outcome, m.energy_j))
    members = playback.send_out(batch(1, 0, 1, 2))
    playback.clock.at(4.0).callbacks.append(lambda _: playback.cancel(members[2:]))
    playback.clock.run()
    assert ended == [(1, 2.0, "dropped", 1.0), (0, 5.0, "done", 2.0)]
    assert [(m.outcome, m.end_s) for m in members][2] == ("cancelled", 4.0)
    assert members[2].energy_j == 1.5
    assert playback.out == []


def test_what_ends_at_once_ends_in_the_order_of_the_rows() -> None:
    parts = [part(1, n, 0.0, (1.0, "done"), (2.0, "done")) for n in (3, 0, 2, 1)]
    playback = playback_of(table(*(p[0] for p in parts), *(p[1] for p in parts)))
    ended: list[int] = []
    playback.on_end = lambda member: ended.append(member.device)
    playback.send_out(batch(1, 0, 1, 2, 3))
    playback.clock.run()
    assert ended == [3, 0, 2, 1]


def test_rows_of_rounds_that_nobody_was_sent_out_in_are_left_over() -> None:
    timeline = in_order(
        part(1, 0, 0.0, (1.0, "done"), (2.0, "done")),
        part(2, 0, 2.0, (3.0, "done"), (4.0, "done")),
        part(3, 0, 4.0, (5.0, "done"), (6.0, "done")),
    )
    playback = playback_of(timeline)
    playback.send_out(batch(2, 0))
    playback.send_out(batch(2, 1))
    assert playback.part == [1, -1]


def test_the_server_keeps_recorded_times_but_for_a_rounding() -> None:
    timeline = table(
        Interval(1, None, "wait", 0.0, 1.0 + 1e-13), Interval(2, None, "wait", 1.0, 3.0)
    )
    playback = playback_of(timeline)
    playback.clock.process(playback.serve(1, "wait", 1.0))
    playback.clock.run()
    playback.clock.process(playback.serve(2, "wait", 2.0))
    playback.clock.run()
    ends = [end_s for _, _, _, end_s, *_ in playback.served]
    assert ends == [1.0 + 1e-13, 2.0]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 2)), max_size=8))
@settings(deadline=None, derandomize=True)
def test_parts_hold_every_row_once(shape: list[tuple[int, int, int]]) -> None:
    rows, now = [], 0.0
    for device, number, losses in shape:
        ends = [now + 1 + step for step in range(losses + 2)]
        outcomes = ["done", *["lost"] * losses, "done"]
        rows += part(number, device, now, *zip(ends, outcomes, strict=True))
        now = ends[-1]
    timeline = table(*rows)
    parts = Parts.of(timeline, np.ones(len(timeline), dtype=np.bool_))
    assert sorted(parts.row.tolist()) == list(range(len(timeline)))
    assert len(parts) == len(shape)
    assert parts.closed.all()
    assert (parts.phase == UPLINK).all()
    assert (parts.outcome == DONE).all()
    assert (parts.computes == 1).all()
    assert parts.attempts.sum() == sum(n + 1 for *_, n in shape)
    in_time = np.argsort(parts.last)
    assert parts.device[in_time].tolist() == [device for device, *_ in shape]
    # Computing takes a joule and each attempt half of one.
    assert parts.energy_j[in_time].tolist() == [1 + (n + 1) / 2 for *_, n in shape]


def test_a_part_that_breaks_off_is_not_closed() -> None:
    rows = part(1, 0, 0.0, (1.0, "done")) + part(2, 0, 1.0, (2.0, "done"), (3.0, "done"))
    parts = Parts.of(table(*rows), np.ones(3, dtype=np.bool_))
    assert parts.closed.tolist() == [False, True]
    assert parts.phase.tolist() == [COMPUTE, UPLINK]


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
@settings(deadline=None, derandomize=True)
def test_rows_are_matched_in_order_as_often_as_both_have_them(
    found: list[int], wanted: list[int]
) -> None:
    frame = pd.DataFrame({"key": np.array(found, dtype=np.int64)})
    place = matched(frame, {"key": np.array(wanted, dtype=np.int64)}, ["key"])
    there = place[place >= 0]
    assert len(set(there.tolist())) == len(there)
    for key in range(4):
        mine = [int(p) for p, k in zip(place, wanted, strict=True) if k == key and p >= 0]
        assert len(mine) == min(found.count(key), wanted.count(key))
        assert mine == [n for n, k in enumerate(found) if k == key][: len(mine)]


def test_a_table_out_of_order_names_the_row_that_moved() -> None:
    wanted = {"key": np.arange(5), "value": np.arange(5.0)}
    frame = pd.DataFrame(wanted)
    moved = pd.concat([frame.iloc[1:], frame.iloc[:1]], ignore_index=True)
    assert list(compare_table("t", frame, wanted, ["key"])) == []
    assert [finding.line for finding in compare_table("t", moved, wanted, ["key"])] == [6]
    twice = pd.concat([frame.iloc[:2], frame.iloc[1:]], ignore_index=True)
    assert [finding.line for finding in compare_table("t", twice, wanted, ["key"])] == [3, 4]
