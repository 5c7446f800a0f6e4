"""The network and its schedules against closed forms."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenario import Scenario
from sim.timeline import Interval
from tests.sim.nets import BAND_HZ, DOWNLINK_HZ, Recorder, Simulated, batch
from wireless.link import LinearLink, Link, PowerLimitedLink
from wireless.nr import whole_blocks
from wireless.power_control import PowerControlledLink
from wireless.spectrum import RULES


def test_one_device_alone() -> None:
    """Broadcast 8 S / R, computation, upload 8 U / rate, overhead; one after the other."""
    seen = Recorder()
    network, clock = seen.network, seen.clock
    clock.run(clock.process(network.broadcast(1, [0], 500, 8000.0, 0.5)))
    seen.take_part(batch([3.0], [1000], LinearLink(np.array([0.004])), 0.5))
    clock.run(clock.process(network.serve(1, "aggregate", 5.75)))
    uplink = seen.intervals.pop(3)
    assert seen.intervals == [
        Interval(1, None, "downlink", 0.0, 0.5, 500, DOWNLINK_HZ, 8000.0, None),
        Interval(1, 0, "downlink", 0.0, 0.5, 500, DOWNLINK_HZ, 8000.0, 0.0),
        Interval(1, 0, "compute", 0.5, 3.5, energy_j=6.0),
        Interval(1, None, "aggregate", 5.5, 5.75),
    ]
    assert (uplink.start_s, uplink.end_s, uplink.bytes) == (3.5, 5.5, 1000)
    assert uplink.bandwidth_hz == pytest.approx(BAND_HZ, rel=1e-12)
    assert uplink.rate_bps == pytest.approx(4000.0, rel=1e-12)
    assert uplink.energy_j == pytest.approx(2.0, rel=1e-12)
    assert [(row.time_s, row.active) for row in seen.spectrum] == [(3.5, 1), (5.5, 0)]


def test_broadcast_to_nobody_takes_as_long() -> None:
    seen = Recorder()
    seen.clock.run(seen.clock.process(seen.network.broadcast(1, [], 500, 8000.0, 0.5)))
    assert seen.intervals == [
        Interval(1, None, "downlink", 0.0, 0.5, 500, DOWNLINK_HZ, 8000.0, None)
    ]
    assert seen.spectrum == []


@pytest.mark.parametrize("name", ["equal-finish", "work-conserving", "equal-split", "proportional"])
def test_two_equal_transfers_share_the_band_in_halves(name: str) -> None:
    """Each takes twice as long as it would alone: tau + 2 u / (e B)."""
    rule = RULES[name]
    seen = Recorder(rule)
    link = LinearLink(np.array([0.004, 0.004]))
    seen.take_part(batch([1.0, 1.0], [1000, 1000], link))
    assert [row.end_s for row in seen.rows("uplink")] == pytest.approx([5.0, 5.0], rel=1e-12)
    assert [row.bandwidth_hz for row in seen.rows("uplink")] == pytest.approx([5e5, 5e5], rel=1e-12)
    assert seen.spectrum[0].time_s == 1.0
    assert seen.spectrum[0].bandwidth_in_use_hz == pytest.approx(BAND_HZ, rel=1e-12)
    assert seen.spectrum[0].active == 2
    assert seen.spectrum[-1].active == 0


def test_time_division_sends_one_after_the_other() -> None:
    rule = RULES["time-division"]
    seen = Recorder(rule)
    seen.take_part(batch([1.0, 1.0], [1000, 1000], LinearLink(np.array([0.004, 0.004]))))
    assert [(row.start_s, row.end_s) for row in seen.rows("uplink")] == [(1.0, 3.0), (3.0, 5.0)]
    assert [row.bandwidth_hz for row in seen.rows("uplink")] == [BAND_HZ, BAND_HZ]


def test_a_device_that_comes_later_takes_from_the_others() -> None:
    """Equal split: alone for 1 s, in halves from 2 s to 4 s, alone again; bits add up."""
    rule = RULES["equal-split"]
    seen = Recorder(rule)
    seen.take_part(batch([1.0, 2.0], [1000, 500], LinearLink(np.array([0.004, 0.004]))))
    # 8000 bit: 4000 in the first second, 2000 a second from then on; 4000 bit: 2000 a second.
    assert [row.end_s for row in seen.rows("uplink")] == pytest.approx([4.0, 4.0], rel=1e-12)
    assert seen.rows("uplink")[0].bandwidth_hz == pytest.approx(BAND_HZ * (1 + 0.5 + 0.5) / 3)


def test_cells_do_not_share_their_bands() -> None:
    """Two devices in two cells are each as fast as alone."""
    for rule in RULES.values():
        seen = Recorder(rule)
        link = LinearLink(np.array([0.004, 0.004]))
        seen.take_part(batch([1.0, 1.0], [1000, 1000], link, cell=[0, 4]))
        assert [row.end_s for row in seen.rows("uplink")] == pytest.approx([3.0, 3.0], rel=1e-12)
        assert {row.cell for row in seen.spectrum} == {0, 4}


def test_downloads_of_their_own_follow_each_other() -> None:
    rule = RULES["equal-finish"]
    seen = Recorder(rule)
    link = LinearLink(np.array([0.4, 0.4]))
    seen.take_part(batch([3.0, 1.0], [1000, 1000], link, download_s=0.5))
    spans = {
        (row.device, row.phase): (row.start_s, row.end_s)
        for row in seen.intervals
        if row.phase != "uplink"
    }
    assert spans == {
        (0, "downlink"): (0.0, 0.5),
        (1, "downlink"): (0.5, 1.0),
        (0, "compute"): (0.5, 3.5),
        (1, "compute"): (1.0, 2.0),
    }


def test_cells_serve_their_own_downloads() -> None:
    rule = RULES["equal-finish"]
    seen = Recorder(rule)
    link = LinearLink(np.full(3, 0.4))
    seen.take_part(batch([1.0] * 3, [10] * 3, link, cell=[0, 1, 0], download_s=0.5))
    ends = {row.device: row.end_s for row in seen.intervals if row.phase == "downlink"}
    assert ends == {0: 0.5, 1: 0.5, 2: 1.0}


FLEETS = st.lists(
    st.tuples(st.floats(0.01, 100.0), st.integers(1, 10**6), st.floats(0.1, 8.0)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30)
@given(FLEETS, st.booleans())
def test_engine_and_formula_agree(
    name: str, limited: bool, devices: list[tuple[float, int, float]], blocks: bool
) -> None:
    """Begin, end, bandwidth and energy of every transfer to 1e-9, band and bits conserved."""
    compute_s, size, strength = (list(column) for column in zip(*devices, strict=True))
    power = np.array(strength) * BAND_HZ
    link: Link = LinearLink(np.array(strength))
    if limited:
        link = PowerControlledLink(PowerLimitedLink(power), np.full(len(power), BAND_HZ / 3))

    rule = RULES[name]
    rounding = partial(whole_blocks, block_hz=1e4) if blocks else None
    formula = rule.transfers(np.array(compute_s), 8.0 * np.array(size), link, BAND_HZ, rounding)
    seen = Recorder(rule, rounding)
    seen.take_part(batch(compute_s, size, link))
    rows = seen.rows("uplink")
    for name_of, values in (
        ("start_s", formula.begin_s),
        ("end_s", formula.finish_s),
        ("bandwidth_hz", formula.bandwidth_hz),
        ("energy_j", formula.power_s),
    ):
        assert [getattr(row, name_of) for row in rows] == pytest.approx(list(values), rel=1e-9)
    lasted = np.array([row.end_s - row.start_s for row in rows])
    sent = np.array([row.rate_bps for row in rows]) * lasted
    assert sent == pytest.approx(8.0 * np.array(size), rel=1e-12)
    used = sum(row.bandwidth_hz * seconds for row, seconds in zip(rows, lasted, strict=True))
    time = np.array([row.time_s for row in seen.spectrum])
    in_use = np.array([row.bandwidth_in_use_hz for row in seen.spectrum])
    assert in_use[:-1] @ np.diff(time) == pytest.approx(used, rel=1e-9)
    assert in_use.max() <= BAND_HZ * (1 + 1e-12)
    assert (in_use[-1], seen.spectrum[-1].active) == (0.0, 0)
    if not blocks:
        end_s = rule.round_time(np.array(compute_s), 8.0 * np.array(size), link, BAND_HZ)
        assert seen.clock.now == pytest.approx(float(end_s), rel=1e-9)


def test_time_far_into_a_run_does_not_stall_the_engine() -> None:
    """At a million seconds a transfer of microseconds is next to the clock's resolution."""
    for rule in RULES.values():
        seen = Recorder(rule)
        seen.clock.run(until=1e6)
        link = LinearLink(np.array([1.0, 3.0, 7.0]))
        seen.take_part(batch([1e-6, 1e-6, 3e-6], [1, 2, 3], link, 1e6))
        assert len(seen.rows("uplink")) == 3
        assert seen.clock.now == pytest.approx(1e6 + 4e-5, abs=4e-5)


@pytest.mark.parametrize("allocation", RULES)
@pytest.mark.parametrize("fading", ["ergodic", "none"])
def test_synchronous_round_is_broadcast_plus_the_rule_plus_overhead(
    fading: str, allocation: str, tiny: Callable[..., Scenario]
) -> None:
    """All examples are of one length, so the planner's mean compute time is everyone's own."""
    changes = {
        "fleet.devices": 6,
        "radio.fading": fading,
        "radio.allocation": allocation,
        "schedule.overhead_s": 0.3,
    }
    run = Simulated(tiny(changes), 25)
    system, problem, rule = run.system, run.system.problem, RULES[allocation]
    assert {len(done) for done in run.merges} >= {1, 2, 3}
    for done in run.merges:
        device, rank = done.device, done.rank
        everyone = np.ones(problem.devices)
        everyone[device] = rank
        finish = rule.round_time(
            problem.compute_s(everyone)[device],
            problem.upload_bits(everyone)[device],
            problem.link.take(device),
            problem.bandwidth_hz,
        )
        wanted = system.broadcast_s + float(finish) + 0.3 + system.server_s(rank)
        assert done.end_s - done.start_s == pytest.approx(wanted, rel=1e-9)
        assert done.cohort_s == pytest.approx(wanted, rel=1e-9)


def test_rounds_follow_each_other_without_a_gap(tiny: Callable[..., Scenario]) -> None:
    seen = Simulated(tiny(), 10).merges
    assert [done.round for done in seen] == list(range(1, 11))
    assert seen[0].start_s == 0.0
    assert [done.start_s for done in seen[1:]] == [done.end_s for done in seen[:-1]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"radio.downlink": "unicast"},
        {"radio.allocation": "work-conserving"},
        {"fleet.jitter_sigma": 0.3, "radio.downlink": "unicast"},
    ],
    ids=["defaults", "unicast", "work-conserving", "jitter"],
)
def test_mean_round_time_is_the_planned_one(
    changes: dict[str, Any], tiny: Callable[..., Scenario]
) -> None:
    """Over many rounds the mean duration is the plan's expectation, within 4 standard errors."""
    rounds = 2000
    run = Simulated(tiny(changes), rounds)
    plan, seen = run.plan, run.merges
    lasted = np.array([done.end_s - done.start_s for done in seen])
    error = lasted.std(ddof=1) / np.sqrt(rounds)
    # The mean of a maximum is above the maximum of means, so jitter lengthens rounds somewhat.
    slack = 0.15 * plan.expected_round_s if "fleet.jitter_sigma" in changes else 0.0
    assert -4 * error < lasted.mean() - plan.expected_round_s < 4 * error + slack


def test_devices_that_are_away_do_not_take_part(tiny: Callable[..., Scenario]) -> None:
    """The cohort is thinned by presence at the round's start, and weights make up for it."""
    away = {"fleet.availability": {"name": "markov", "mean_on_s": 50.0, "mean_off_s": 150.0}}
    run = Simulated(tiny(away), 400)
    system, plan, seen = run.system, run.plan, run.merges
    present = system.world.availability
    for done in seen:
        start_s = done.start_s
        if not present.available(np.arange(4), start_s).any():
            start_s = float(present.next_available(np.arange(4), start_s).min())
        assert present.available(done.device, start_s).all()
        weight = 4 * system.problem.weight / plan.probability
        assert done.weight == pytest.approx(weight[done.device])
    waited = [done.cohort_s for done in seen]
    assert all(
        done.end_s - done.start_s == pytest.approx(s, rel=1e-9)
        for done, s in zip(seen, waited, strict=True)
    )


def test_server_waits_while_nobody_is_there_and_ends_when_nobody_returns(
    tiny: Callable[..., Scenario], tmp_path: Any
) -> None:
    trace = tmp_path / "presence.csv"
    trace.write_text("time_s,available\n0,0\n40,1\n41,0\n", encoding="utf-8")
    changes = {
        "fleet.availability": {"name": "trace", "file": str(trace), "period_s": 1000.0},
        "policy": "full",
    }
    run = Simulated(tiny(changes), 2)
    seen = run.merges
    waits = [row for row in run.intervals if row.phase == "wait"]
    assert (waits[0].start_s, waits[0].end_s) == (0.0, 40.0)
    assert waits[1].end_s == 1040.0
    assert [done.sampled for done in seen] == [4, 4]


def test_an_empty_battery_ends_a_device(tiny: Callable[..., Scenario]) -> None:
    """Everybody takes part until its charge is spent; then the run is deserted."""
    device = {
        "name": "small",
        "flops": 1e9,
        "memory_bytes": 4e9,
        "compute_power_w": 10.0,
        "battery_wh": 0.01,
    }
    changes = {"fleet.preset": device, "fleet.battery": True, "policy": "full"}
    run = Simulated(tiny(changes), 10_000)
    assert run.merges[-1].deserted
    spent = np.zeros(4)
    for row in run.intervals:
        if row.device is not None:
            spent[row.device] += row.energy_j or 0.0
    # It gives up in the middle of what it cannot finish, with all its charge spent.
    assert spent == pytest.approx(run.system.fleet.battery_j, rel=1e-9)
    assert sum(row.outcome == "dropped" for row in run.intervals) == 4


def test_outage_drops_devices_and_their_weight_makes_up_for_it(
    tiny: Callable[..., Scenario],
) -> None:
    """The share of sampled devices that complete is one minus the outage probability."""
    changes = {
        "radio.fading": {"name": "per-round", "outage_snr_db": 20.0},
        "policy": "full",
    }
    run = Simulated(tiny(changes), 3000)
    system, seen = run.system, run.merges
    completes = np.zeros(4)
    for done in seen:
        completes[done.device] += 1
    wanted = system.problem.completion
    error = np.sqrt(wanted * (1 - wanted) / len(seen))
    assert ((wanted > 0.05) & (wanted < 0.99)).any()
    assert (np.abs(completes / len(seen) - wanted) <= 5 * error + 1e-9).all()
    dropped = [row for row in run.intervals if row.outcome == "dropped"]
    assert len(dropped) == 4 * len(seen) - completes.sum()
    assert {(row.phase, row.bytes, row.energy_j) for row in dropped} == {("uplink", 0, 0.0)}


def test_time_division_duplex_changes_no_energy(tiny: Callable[..., Scenario]) -> None:
    """Sent in half of the time, an upload takes twice as long at half the mean power."""
    energy = []
    for share in (1.0, 0.5):
        changes = {"radio.uplink_share": share, "policy": "full"}
        done = Simulated(tiny(changes), 1)
        energy.append([row.energy_j for row in done.rows("uplink")])
    # In equal finish the band of each shifts a little with the time it takes.
    assert sum(energy[1]) == pytest.approx(sum(energy[0]), rel=0.02)


def test_weights_follow_devices_to_where_they_are(
    tiny: Callable[..., Scenario], tmp_path: Any
) -> None:
    """A device that walks away from the mast completes more rarely, and counts for as much more."""
    trace = tmp_path / "places.csv"
    trace.write_text("time_s,device,x_m,y_m\n0,a,100,0\n1,a,400,0\n", encoding="utf-8")
    changes = {
        "radio.fading": {"name": "per-round", "outage_snr_db": 15.0},
        "fleet.mobility": {"name": "trace", "file": str(trace)},
        "policy": "full",
    }
    run = Simulated(tiny(changes), 3000)
    system, seen = run.system, run.merges
    total = np.zeros(4)
    for done in seen[1:]:
        total[done.device] += done.weight
    now = system.fleet.channel.at(np.arange(4), 1e3).sends_probability
    assert (now < 0.95 * system.fleet.channel.start.sends_probability).all()
    share = total / (len(seen) - 1) / system.problem.weight
    error = np.sqrt((1 / now - 1) / len(seen))
    assert (np.abs(share - 1) < 5 * error).all()


def test_job_follows_from_device_and_dispatch_not_from_the_round(
    tiny: Callable[..., Scenario],
) -> None:
    """A device's m-th job has the same draws in whichever round it comes."""
    full, some = (Simulated(tiny({"policy": policy}), 30) for policy in ("full", "uniform"))
    keys = [
        {
            n: [int(done.key[done.device == n][0]) for done in run.merges if n in done.device]
            for n in range(4)
        }
        for run in (full, some)
    ]
    assert len({key for each in keys[0].values() for key in each}) == 120
    for n in range(4):
        assert keys[1][n] == keys[0][n][: len(keys[1][n])]
        assert len(keys[1][n]) > 2
