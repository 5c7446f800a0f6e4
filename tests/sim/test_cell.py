"""The event engine against closed forms."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer import Cohort
from sim.cell import Cell, Dispatch
from sim.scenario import Scenario
from sim.schedules import SCHEDULES, Finished
from sim.schedules.synchronous import grant
from sim.system import build_system, make_plan
from sim.timeline import Interval, Spectrum
from wireless.link import LinearLink
from wireless.spectrum import equal_finish, equal_finish_time

BAND_HZ = 1e6


class Recorder:
    """A cell and everything that it reported."""

    def __init__(self) -> None:
        self.intervals: list[Interval] = []
        self.spectrum: list[Spectrum] = []
        self.cell = Cell(self.intervals.append, self.spectrum.append)

    def together(self, jobs: list[Dispatch]) -> None:
        """Run all jobs from now on until the last one ends."""
        env = self.cell.env
        env.run(env.all_of([env.process(self.cell.take_part(job)) for job in jobs]))


def job(device: int, compute_s: float, bandwidth_hz: float, rate_bps: float) -> Dispatch:
    """A device of 2 W that sends 1000 bytes with 30 dBm, which is 1 W."""
    return Dispatch(1, device, compute_s, 2.0, 1000, bandwidth_hz, rate_bps, 30.0)


def test_one_device_alone() -> None:
    """Broadcast 8 S / R, computation, upload 8 U / rate, overhead; one after the other."""
    seen = Recorder()
    cell, env = seen.cell, seen.cell.env
    env.run(env.process(cell.broadcast(1, [7], 500, 2e6, 8000.0)))
    seen.together([job(7, 3.0, BAND_HZ, 4000.0)])
    env.run(env.process(cell.aggregate(1, 0.25)))
    assert seen.intervals == [
        Interval(1, None, "downlink", 0.0, 0.5, 500, 2e6, 8000.0, None),
        Interval(1, 7, "downlink", 0.0, 0.5, 500, 2e6, 8000.0, 0.0),
        Interval(1, 7, "compute", 0.5, 3.5, energy_j=6.0),
        Interval(1, 7, "uplink", 3.5, 5.5, 1000, BAND_HZ, 4000.0, 2.0),
        Interval(1, None, "aggregate", 5.5, 5.75),
    ]
    assert seen.spectrum == [Spectrum(3.5, BAND_HZ, 1), Spectrum(5.5, 0, 0)]


def test_broadcast_to_nobody_takes_as_long() -> None:
    seen = Recorder()
    seen.cell.env.run(seen.cell.env.process(seen.cell.broadcast(1, [], 500, 2e6, 8000.0)))
    assert seen.intervals == [Interval(1, None, "downlink", 0.0, 0.5, 500, 2e6, 8000.0, None)]
    assert seen.spectrum == []


def test_two_equal_transfers_share_the_band_in_halves() -> None:
    """Each takes twice as long as it would alone: tau + 2 u / (e B)."""
    link = LinearLink(np.array([0.004, 0.004]))
    shares = equal_finish([1.0, 1.0], [8000.0, 8000.0], link, BAND_HZ)
    rate = link.rate(shares.bandwidth_hz)
    seen = Recorder()
    seen.together([job(n, 1.0, shares.bandwidth_hz[n], rate[n]) for n in range(2)])
    assert [row.phase for row in seen.intervals] == ["compute", "compute", "uplink", "uplink"]
    assert [row.end_s for row in seen.intervals[2:]] == pytest.approx([5.0, 5.0], rel=1e-12)
    assert [row.time_s for row in seen.spectrum] == pytest.approx([1, 1, 5, 5], rel=1e-12)
    in_use = [row.bandwidth_in_use_hz for row in seen.spectrum]
    assert in_use == pytest.approx([BAND_HZ / 2, BAND_HZ, BAND_HZ / 2, 0], rel=1e-12)
    assert [row.active for row in seen.spectrum] == [1, 2, 1, 0]


def test_transfer_that_begins_later_is_added_to_the_band_in_use() -> None:
    seen = Recorder()
    seen.together([job(0, 1.0, 3e5, 2000.0), job(1, 2.0, 4e5, 8000.0)])
    assert seen.spectrum == [
        Spectrum(1.0, 3e5, 1),
        Spectrum(2.0, 7e5, 2),
        Spectrum(3.0, 3e5, 1),
        Spectrum(5.0, 0, 0),
    ]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.01, 100.0), st.integers(1, 10**6), st.floats(0.1, 8.0)),
        min_size=1,
        max_size=8,
    )
)
def test_equal_finish_in_the_cell(devices: list[tuple[float, int, float]]) -> None:
    """All uploads end together at the T that solves sum_n u_n / (e_n (T - tau_n)) = B."""
    compute_s, size, efficiency = (np.array(column) for column in zip(*devices, strict=True))
    link = LinearLink(efficiency)
    shares = equal_finish(compute_s, 8 * size, link, BAND_HZ)
    rate = link.rate(shares.bandwidth_hz)
    seen = Recorder()
    seen.together(
        [
            Dispatch(1, n, compute_s[n], 1.0, int(size[n]), shares.bandwidth_hz[n], rate[n], 20.0)
            for n in range(len(devices))
        ]
    )
    uplink = [row for row in seen.intervals if row.phase == "uplink"]
    finish = float(equal_finish_time(compute_s, 8 * size, link, BAND_HZ))
    assert [row.end_s for row in uplink] == pytest.approx([finish] * len(devices), rel=1e-9)
    assert sum(row.bytes or 0 for row in uplink) == size.sum()
    assert max(row.bandwidth_in_use_hz for row in seen.spectrum) <= BAND_HZ * (1 + 1e-12)
    assert seen.spectrum[-1].bandwidth_in_use_hz == 0
    assert [row.active for row in seen.spectrum][-1] == 0
    assert len(seen.spectrum) == 2 * len(devices)


def rounds_of(scenario: Scenario, count: int) -> tuple[Any, Any, list[Finished]]:
    """Simulate rounds without training."""
    system = build_system(scenario)
    plan = make_plan(system)
    seen: list[Finished] = []

    def on_round(done: Finished) -> bool:
        seen.append(done)
        return len(seen) < count

    recorder = Recorder()
    schedule = SCHEDULES[scenario.schedule.name]
    recorder.cell.env.process(schedule(recorder.cell, system, plan, on_round))
    recorder.cell.env.run()
    return system, plan, seen


@pytest.mark.parametrize("fading", ["rayleigh", "none"])
def test_synchronous_round_is_broadcast_plus_equal_finish_plus_overhead(
    fading: str, tiny: Callable[..., Scenario]
) -> None:
    """All examples are of one length, so the planner's mean compute time is everyone's own."""
    changes = {"fleet.devices": 6, "radio.fading": fading, "schedule.overhead_s": 0.3}
    system, _, seen = rounds_of(tiny(changes), 25)
    problem = system.problem
    assert {len(done.jobs) for done in seen} >= {1, 2, 3}
    for done in seen:
        device, rank = done.cohort.device, done.cohort.rank
        everyone = np.ones(problem.devices)
        everyone[device] = rank
        finish = equal_finish_time(
            problem.compute_s(everyone)[device],
            problem.upload_bits(everyone)[device],
            problem.link.take(device),
            problem.bandwidth_hz,
        )
        wanted = system.broadcast_s + float(finish) + 0.3
        assert done.end_s - done.start_s == pytest.approx(wanted, rel=1e-9)
        assert done.cohort_s == pytest.approx(wanted, rel=1e-9)


def test_rounds_follow_each_other_without_a_gap(tiny: Callable[..., Scenario]) -> None:
    _, _, seen = rounds_of(tiny(), 10)
    assert [done.round for done in seen] == list(range(1, 11))
    assert seen[0].start_s == 0.0
    assert [done.start_s for done in seen[1:]] == [done.end_s for done in seen[:-1]]


def test_mean_round_time_is_the_planned_one(tiny: Callable[..., Scenario]) -> None:
    """Over many rounds the mean duration is the plan's expectation, within 4 standard errors."""
    _, plan, seen = rounds_of(tiny(), 2000)
    lasted = np.array([done.end_s - done.start_s for done in seen])
    error = lasted.std(ddof=1) / np.sqrt(len(lasted))
    assert abs(lasted.mean() - plan.expected_round_s) < 4 * error


def test_job_follows_from_device_and_dispatch_not_from_the_round(
    tiny: Callable[..., Scenario],
) -> None:
    system = build_system(tiny())
    plan = make_plan(system)
    device = np.array([1, 3])
    cohort = Cohort(device, plan.rank[device], np.ones(2))
    first = grant(system, cohort, 1, np.array([0, 5, 0, 2])).jobs
    later = grant(system, cohort, 9, np.array([7, 5, 7, 2])).jobs
    again = grant(system, cohort, 1, np.array([0, 6, 0, 2])).jobs
    # The round itself bears on the learning rate alone.
    assert first == tuple(dataclasses.replace(job, round=1) for job in later)
    assert first[0].key != again[0].key
    assert first[1] == again[1]
