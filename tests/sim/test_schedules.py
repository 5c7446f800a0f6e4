"""Schedules: when rounds close, who counts, and what asynchronous servers merge in which order."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sim.errors import RunError
from sim.scenario import Scenario
from sim.schedules import asynchronous
from sim.schedules.asynchronous import staleness_factor
from sim.sections.schedule import FedBuff
from sim.system import build_system
from tests.sim.nets import Simulated

Tiny = Callable[..., Scenario]

#: Five devices, each of its own speed, whose uploads take no time to speak of.
SPEEDS = {
    "training.timing_only": True,
    "data": {"source": "builtin:synthetic", "samples": 8, "length": 32},
    "fleet.devices": 5,
    "fleet.compute_sigma": 1.0,
    "radio.bandwidth_hz": 1e12,
    "radio.downlink_bandwidth_hz": 1e12,
    "radio.downlink": "unicast",
    "radio.allocation": "time-division",
    "radio.environment": "free-space",
    "radio.cell_radius_m": 40.0,
    "policy": {"name": "full"},
    "schedule": {"name": "synchronous", "overhead_s": 1e-9},
}


def speeds(changes: dict[str, Any]) -> dict[str, Any]:
    """The five devices with dotted keys changed."""
    return copy.deepcopy({**SPEEDS, **changes})


def test_equal_computing_ends_at_once(tiny: Tiny) -> None:
    """Devices alike compute until the same moment, and a synchronous round is as long as one."""
    run = Simulated(tiny(speeds({"fleet.compute_sigma": 0.0, "radio.downlink": "broadcast"})), 2)
    ends = {row.end_s for row in run.rows("compute") if row.round == 1}
    assert len(ends) == 1
    (first, _) = run.merges
    assert first.end_s == pytest.approx(ends.pop(), rel=1e-3)


def test_the_slowest_of_exponentials_is_waited_for(tiny: Tiny) -> None:
    """Crashes come after exponential times: the last of N ends after mean times H_N on average."""
    devices, mean_s, rounds = 4, 1e-6, 1500
    changes = {
        "fleet.devices": devices,
        "fleet.compute_sigma": 0.0,
        "failures": {"crashes": {"mean_s": mean_s}},
        "radio.downlink": "broadcast",
    }
    run = Simulated(tiny(speeds(changes)), rounds)
    crashed = {}
    for row in run.rows("compute"):
        assert row.outcome == "dropped"
        crashed[row.round] = max(crashed.get(row.round, 0.0), row.end_s - row.start_s)
    lasted = np.array(list(crashed.values()))
    wanted = mean_s * sum(1 / n for n in range(1, devices + 1))
    assert len(lasted) == rounds
    assert abs(lasted.mean() - wanted) < 4 * lasted.std(ddof=1) / np.sqrt(rounds)


class TestDeadline:
    """Rounds that are closed after a time."""

    def test_whoever_is_late_is_cancelled_at_that_moment(self, tiny: Tiny) -> None:
        solo_s = lone_times(tiny)
        deadline_s = float(np.median(solo_s)) * 1.001
        run = Simulated(
            tiny(speeds({"schedule": {"name": "deadline", "deadline_s": deadline_s}})), 3
        )
        for merge in run.merges:
            assert sorted(merge.device.tolist()) == np.flatnonzero(solo_s <= deadline_s).tolist()
        cancelled = [row for row in run.intervals if row.outcome == "cancelled"]
        assert len(cancelled) == 3 * int((solo_s > deadline_s).sum())
        for row in cancelled:
            begun_s = run.merges[row.round - 1].start_s
            assert row.end_s == pytest.approx(begun_s + deadline_s, rel=1e-12)
            power_w = run.system.fleet.compute_power_w[row.device]
            assert row.energy_j == pytest.approx(power_w * (row.end_s - row.start_s), rel=1e-9)

    def test_one_that_everybody_meets_changes_nothing(self, tiny: Tiny) -> None:
        plain = Simulated(tiny(speeds({})), 3)
        late = {"schedule": {"name": "deadline", "deadline_s": 1e6, "overhead_s": 1e-9}}
        assert Simulated(tiny(speeds(late)), 3).intervals == plain.intervals

    def test_discarded_devices_finish_for_nothing_and_are_missed_meanwhile(
        self, tiny: Tiny
    ) -> None:
        solo_s = lone_times(tiny)
        schedule = {"name": "deadline", "deadline_s": float(np.median(solo_s)), "late": "discard"}
        run = Simulated(tiny(speeds({"schedule": schedule})), 6)
        late = [row for row in run.intervals if row.outcome == "late"]
        assert late
        for row in late:
            merge = run.merges[row.round - 1]
            assert row.end_s > merge.end_s - run.system.scenario.schedule.overhead_s
            assert row.device not in merge.device
        for device in range(5):
            rows = [row for row in run.intervals if row.device == device]
            for before, after in pairwise(rows):
                assert after.start_s >= before.end_s - 1e-12


def test_over_selection_counts_the_first_and_keeps_the_mass(tiny: Tiny) -> None:
    """The three quickest of five; their weights are multiplied by 5 / 3."""
    solo_s = lone_times(tiny)
    run = Simulated(tiny(speeds({"schedule": {"name": "over-selection", "share": 0.6}})), 3)
    quickest = np.sort(np.argsort(solo_s)[:3])
    weight = run.system.problem.weight
    for merge in run.merges:
        assert merge.sampled == 5
        assert merge.device.tolist() == quickest.tolist()
        assert merge.weight == pytest.approx(weight[quickest] * 5 / 3, rel=1e-12)


def lone_times(tiny: Tiny) -> np.ndarray:
    """Seconds from being sent for until its update has arrived, of each of the five devices."""
    (merge,) = Simulated(tiny(speeds({})), 1).merges
    return merge.busy_s


def fedbuff(tiny: Tiny, merges: int, **schedule: Any) -> Simulated:
    """FedBuff on the five devices."""
    choice = {"name": "fedbuff", "overhead_s": 1e-9, **schedule}
    return Simulated(tiny(speeds({"schedule": choice})), merges)


class TestFedBuff:
    """The server merges whenever the buffer is full (arXiv 2106.06639)."""

    def test_order_on_a_trace_that_is_known(self, tiny: Tiny) -> None:
        """Five devices are always out, so each comes back again and again at its own pace.

        The k-th arrival of device n is at k times its time; the arrivals of all in order, three by
        three, are the buffers, and what a device trained from is the merge before it was sent out.
        """
        lasts_s = lone_times(tiny)
        run = fedbuff(tiny, 8, buffer=3, concurrency=5)
        trips = [(k * t, n) for n, t in enumerate(lasts_s) for k in range(1, 40)]
        known = [n for _, n in sorted(trips)][: 3 * 8]
        merged = [n for merge in run.merges for n in merge.device.tolist()]
        assert merged == known
        for number, merge in enumerate(run.merges, start=1):
            for device, version, busy in zip(
                merge.device, merge.version, merge.busy_s, strict=True
            ):
                sent_s = merge.end_s - busy
                before = [each.end_s for each in run.merges if each.end_s <= sent_s + 1e-6]
                assert version <= number - 1
                assert abs(version - len(before)) <= 1, device

    def test_weights_follow_data_probability_and_staleness(self, tiny: Tiny) -> None:
        run = fedbuff(tiny, 8, buffer=2, concurrency=4, exponent=1.0)
        share = run.system.problem.weight * 5  # everybody is as likely to be drawn
        stale = False
        for merge in run.merges:
            age = merge.round - 1 - merge.version
            stale |= bool((age > 0).any())
            assert merge.weight == pytest.approx(share[merge.device] / (2 * (1.0 + age)))
        assert stale

    def test_never_more_are_out_than_may_be(self, tiny: Tiny) -> None:
        run = fedbuff(tiny, 10, buffer=2, concurrency=3)
        edges = [(row.start_s, 1) for row in run.rows("downlink")]
        edges += [(row.end_s, -1) for row in run.rows("uplink")]
        edges += [(row.end_s, -1) for row in run.rows("compute") if row.outcome != "done"]
        out = np.cumsum([step for _, step in sorted(edges)])
        assert out.max() == 3

    def test_mean_of_the_arrivals_is_that_of_all(self, tiny: Tiny) -> None:
        """With few of many devices out, weights sum to one, and each device to its share."""
        changes = {
            "fleet.devices": 60,
            "data.samples_sigma": 1.0,
            "policy": {"name": "data-proportional"},
            "schedule": {
                "name": "fedbuff",
                "buffer": 4,
                "concurrency": 2,
                "overhead_s": 1e-9,
                "staleness": "constant",
            },
        }
        run = Simulated(tiny(speeds(changes)), 2500)
        total = np.zeros(60)
        for merge in run.merges:
            np.add.at(total, merge.device, merge.weight)
        mean = total / len(run.merges)
        arrivals = 4 * len(run.merges) * run.plan.probability / run.plan.probability.sum()
        assert mean.sum() == pytest.approx(1.0, abs=0.02)
        # Poisson's deviation of the number of arrivals, and 5 % for who is out and cannot be drawn.
        slack = 5 / np.sqrt(arrivals) + 0.05
        assert (np.abs(mean / run.system.problem.weight - 1) < slack).all()


def test_fedasync_mixes_each_arrival_with_its_staleness(tiny: Tiny) -> None:
    """alpha_t = alpha s(t), one device per merge (arXiv 1903.03934)."""
    choice = {"name": "fedasync", "concurrency": 4, "mixing": 0.5, "overhead_s": 1e-9}
    run = Simulated(tiny(speeds({"schedule": choice})), 12)
    for merge in run.merges:
        (age,) = merge.round - 1 - merge.version
        assert merge.mixing == pytest.approx(0.5 * (1.0 + age) ** -0.5)
        assert merge.weight.tolist() == [merge.mixing]
    assert {int(m.round - 1 - m.version[0]) for m in run.merges} > {0}


def test_staleness_factors_are_the_papers() -> None:
    age = np.array([0, 1, 4, 5, 9])
    base = FedBuff(name="fedbuff")
    polynomial = staleness_factor(base, age)
    assert polynomial == pytest.approx([1.0, 2**-0.5, 5**-0.5, 6**-0.5, 10**-0.5])
    constant = staleness_factor(FedBuff(name="fedbuff", staleness="constant"), age)
    assert constant.tolist() == [1.0] * 5
    hinge = FedBuff(name="fedbuff", staleness="hinge", exponent=2.0, delay=4)
    assert staleness_factor(hinge, age) == pytest.approx([1, 1, 1, 1 / 3, 1 / 11])


class TestNature:
    """Common random numbers: no choice of schedule moves what is drawn for a device."""

    CHOICES = (
        {},
        {"schedule": {"name": "deadline", "deadline_s": 0.5}},
        {"schedule": {"name": "over-selection"}},
        {"schedule": {"name": "fedbuff", "buffer": 2, "concurrency": 3}},
        {"schedule": {"name": "fedasync", "concurrency": 2}},
        {"policy": {"name": "uniform", "probability": 0.5}},
        {"failures": {"losses": {"probability": 0.5}}},
    )

    def test_places_fading_and_presence_stay(self, tiny: Tiny) -> None:
        world = {
            "fleet.mobility": {"name": "random-waypoint"},
            "fleet.availability": {"name": "markov", "mean_on_s": 5.0, "mean_off_s": 5.0},
            "radio.fading": {"name": "per-round"},
            "policy": {"name": "full"},
        }
        device, seen = np.arange(5), set()
        for choice in (*self.CHOICES, {"method": {"name": "fedit"}}):
            system = build_system(tiny(speeds({**world, **choice})))
            facts = []
            for time_s in (0.0, 3.25, 1000.0):
                state = system.fleet.channel.at(device, time_s)
                facts += [state.x_m, state.y_m, state.shadowing_db, state.outage]
                facts += [state.uplink.rate(1e5), state.downlink.rate(1e5)]
                facts.append(system.world.availability.available(device, time_s))
            seen.add(b"".join(each.tobytes() for each in facts))
        assert len(seen) == 1

    def test_jobs_and_speeds_are_those_of_device_and_dispatch(self, tiny: Tiny) -> None:
        seen: dict[tuple[int, int], set[tuple[int, float]]] = {}
        for choice in self.CHOICES:
            jitter = {"fleet.jitter_sigma": 0.5, "fleet.compute_sigma": 0.0}
            run = Simulated(tiny(speeds({**jitter, **choice})), 12)
            done = {
                (row.device, place): round(row.end_s - row.start_s, 9)
                for device in range(5)
                for place, row in enumerate(
                    row for row in run.rows("compute") if row.device == device
                )
                if row.outcome == "done"
            }
            for key, lasted in done.items():
                seen.setdefault(key, set()).add(lasted)
        often = [values for (_, place), values in seen.items() if place < 3]
        assert len(often) == 15
        assert all(len(values) == 1 for values in often)


class TestFailures:
    """What goes wrong, and what it costs."""

    def test_losses_are_tried_again_with_doubling_pauses(self, tiny: Tiny) -> None:
        failures = {"losses": {"probability": 0.6, "retries": 3, "backoff_s": 0.25}}
        run = Simulated(tiny(speeds({"failures": failures})), 60)
        retried = given_up = 0
        for merge in run.merges:
            for device in range(5):
                rows = [
                    row
                    for row in run.rows("uplink")
                    if (row.device, row.round) == (device, merge.round)
                ]
                assert [row.outcome for row in rows[:-1]] == ["lost"] * (len(rows) - 1)
                assert rows[-1].outcome == ("done" if device in merge.device else "dropped")
                pauses = [b.start_s - a.end_s for a, b in pairwise(rows)]
                # Time division may keep an attempt waiting for another, by next to nothing here.
                assert pauses == pytest.approx([0.25 * 2**k for k in range(len(pauses))], abs=1e-3)
                assert all(row.bytes < rows[-1].bytes for row in rows[:-1]) or len(rows) == 4
                retried += len(rows) > 1
                given_up += rows[-1].outcome == "dropped"
        assert retried
        # Four attempts are lost with probability 0.6^4.
        assert abs(given_up - 300 * 0.6**4) < 4 * np.sqrt(300 * 0.6**4 * (1 - 0.6**4))

    def test_crashes_hit_as_often_as_computing_lasts(self, tiny: Tiny) -> None:
        """P(crash) = 1 - exp(-t / mean)."""
        seconds = lone_times(tiny)
        mean_s = float(np.median(seconds))
        run = Simulated(tiny(speeds({"failures": {"crashes": {"mean_s": mean_s}}})), 800)
        done = np.zeros(5)
        for merge in run.merges:
            done[merge.device] += 1
        compute_s = run.system.problem.compute_s(run.plan.rank)
        wanted = np.exp(-compute_s / mean_s)
        error = np.sqrt(wanted * (1 - wanted) / 800)
        assert (np.abs(done / 800 - wanted) < 4.5 * error + 1e-3).all()

    def test_a_server_that_fails_loses_the_round(self, tiny: Tiny) -> None:
        restarts = {"mean_s": 3 * float(lone_times(tiny).max()), "down_s": 0.5}
        run = Simulated(tiny(speeds({"failures": {"restarts": restarts}})), 40)
        lost = [merge for merge in run.merges if not len(merge)]
        assert 0 < len(lost) < 40
        for merge in lost:
            rows = [row for row in run.intervals if row.round == merge.round]
            assert {row.outcome for row in rows if row.device is not None} >= {"cancelled"}
            assert all(row.end_s <= merge.end_s for row in rows)
        waits = [row for row in run.intervals if row.phase == "wait"]
        assert all(row.end_s - row.start_s <= 0.5 + 1e-9 for row in waits)
        assert len(waits) == len(lost)

    def test_an_asynchronous_server_that_fails_counts_a_merge_of_nothing(self, tiny: Tiny) -> None:
        """However often it fails, rounds go by; nobody is out or merged beyond the failure."""
        restarts = {"mean_s": 0.5 * float(lone_times(tiny).min()), "down_s": 0.1}
        choice = {"schedule": {"name": "fedbuff", "buffer": 2, "concurrency": 4}}
        run = Simulated(tiny(speeds({**choice, "failures": {"restarts": restarts}})), 40)
        assert len(run.merges) == 40
        lost = [merge for merge in run.merges if not len(merge)]
        assert len(lost) > 10
        for merge in lost:
            later = [row for row in run.intervals if row.start_s < merge.end_s < row.end_s]
            assert all(row.device is None for row in later)

    def test_nobody_who_ever_arrives_is_told(
        self, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asynchronous, "_MISSED", 20)
        choice = {"schedule": {"name": "fedasync", "concurrency": 2}}
        crashes = {"failures": {"crashes": {"mean_s": 1e-9}}}
        with pytest.raises(RunError, match=r"none of the last 2[1-9] devices"):
            Simulated(tiny(speeds({**choice, **crashes})), 5)

    def test_departing_devices_are_dropped_when_they_leave(self, tiny: Tiny) -> None:
        mean_s = 2 * float(lone_times(tiny).max())
        changes = {
            "fleet.availability": {"name": "markov", "mean_on_s": mean_s, "mean_off_s": mean_s},
            "failures": {"departures": True},
        }
        run = Simulated(tiny(speeds(changes)), 80)
        present = run.system.world.availability
        gone = [row for row in run.intervals if row.outcome == "dropped"]
        assert gone
        for row in run.intervals:
            if row.device is None or row.phase == "downlink":
                continue
            sent_s = run.merges[row.round - 1].start_s
            leaves_s = float(present.next_unavailable([row.device], sent_s)[0])
            if row.outcome == "done":
                assert row.end_s <= leaves_s or leaves_s == sent_s
        for row in gone:
            assert not present.available([row.device], np.nextafter(row.end_s, np.inf))[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "fedbuff", "radio.downlink": "broadcast"}, "radio.downlink = unicast"),
        ({"schedule": "fedasync", "radio.allocation": "equal-finish"}, "divides the band"),
        ({"schedule": "fedbuff", "policy": "oort"}, "chooses whole cohorts"),
        ({"schedule": {"name": "fedbuff", "concurrency": 6}}, "at most fleet.devices = 5"),
        ({"schedule": {"name": "deadline"}}, "deadline_s"),
        (
            {
                "schedule": {"name": "deadline", "deadline_s": 1.0, "late": "discard"},
                "radio.allocation": "equal-finish",
            },
            "late devices still send in",
        ),
        ({"schedule": {"name": "fedbuff", "delay": 3}}, "belongs to staleness hinge"),
        ({"schedule": {"name": "over-selection", "share": 1.5}}, "less than 1"),
        (
            {"schedule": {"name": "deadline", "deadline_s": 1.0}, "policy.replan": {"drift": 0.1}},
            "policy.replan.drift",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, Any], words: str, tiny: Tiny
) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(speeds(changes))


def test_plans_may_change_on_the_way(tiny: Tiny) -> None:
    """A merge carries the ranks of the plan that its devices were sent out under."""
    base = tiny(speeds({"schedule": {"name": "fedbuff", "buffer": 2, "concurrency": 2}}))
    run = Simulated(base, 3)
    halved = replace(run.plan, rank=np.maximum(run.plan.rank // 2, 1))
    again = Simulated(base, 3, halved)
    assert all((merge.rank == halved.rank[merge.device]).all() for merge in again.merges)
