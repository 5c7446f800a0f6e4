"""Totals of devices and rounds follow from the rows of the timeline."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.timeline import Interval
from sim.totals import Totals

DEVICES = 3
times = st.floats(0, 1e6)
joules = st.none() | st.floats(0, 1e3)
sizes = st.none() | st.integers(0, 2**40)


@st.composite
def dispatches(draw: st.DrawFn) -> list[Interval]:
    """One dispatch of a device, in every way it may end."""
    device, number = draw(st.integers(0, DEVICES - 1)), draw(st.integers(1, 9))
    ways = [
        [("compute", "dropped")],
        [("compute", "cancelled")],
        [("downlink", "cancelled")],
        *(
            [("downlink", "done"), ("compute", "done"), *[("uplink", "lost")] * lost, last]
            for lost, last in itertools.product(
                (0, 1, 3),
                [("uplink", word) for word in ("done", "dropped", "late", "cancelled")],
            )
        ),
    ]
    return [
        Interval(
            number,
            device,
            phase,  # type: ignore[arg-type]
            draw(times),
            draw(times),
            draw(sizes),
            energy_j=draw(joules),
            outcome=outcome,  # type: ignore[arg-type]
        )
        for phase, outcome in draw(st.sampled_from(ways))
    ]


@st.composite
def servers(draw: st.DrawFn) -> list[Interval]:
    """A row of the server."""
    phase = draw(st.sampled_from(["plan", "wait", "downlink", "aggregate", "evaluate"]))
    return [Interval(1, None, phase, draw(times), draw(times), draw(sizes))]


rounds = st.lists(st.lists(dispatches() | servers(), max_size=6), min_size=1, max_size=5)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(rounds=rounds, unicast=st.booleans(), step=st.integers(1, 7))
def test_totals_are_sums_of_rows_whatever_the_blocks(
    rounds: list[list[list[Interval]]], unicast: bool, step: int
) -> None:
    totals = Totals(DEVICES, unicast)
    for parts in rounds:
        rows = [row for part in parts for row in part]
        for first in range(0, len(rows), step):
            totals.add(rows[first : first + step])
        own = [row for row in rows if row.device is not None]
        heard = own if unicast else []
        heard = heard + [row for row in rows if row.device is None]
        energy = 0.0
        for row in own:
            energy += row.energy_j or 0.0
        assert totals.round() == (
            sum(row.bytes or 0 for row in heard if row.phase == "downlink"),
            sum(row.bytes or 0 for row in own if row.phase == "uplink"),
            energy,
        )
    activity = totals.activity()
    every = [part for parts in rounds for part in parts if part[0].device is not None]
    assert activity.sampled.tolist() == _counts(part[0].device for part in every)
    done = [part for part in every if part[-1][2::7] == ("uplink", "done")]
    assert activity.completed.tolist() == _counts(part[0].device for part in done)
    for n in range(DEVICES):
        rows = [row for part in every for row in part if row.device == n]
        assert activity.bytes_up[n] == sum(row.bytes or 0 for row in rows if row.phase == "uplink")
        down = sum(row.bytes or 0 for row in rows if row.phase == "downlink")
        assert activity.bytes_down[n] == down
        busy_s = energy_j = 0.0
        for row in rows:  # to the last bit, so one after the other
            busy_s += row.end_s - row.start_s
            energy_j += row.energy_j or 0.0
        assert (activity.busy_s[n], activity.energy_j[n]) == (busy_s, energy_j)


def _counts(devices: object) -> list[int]:
    count = Counter(devices)  # type: ignore[call-overload]
    return [count[n] for n in range(DEVICES)]
