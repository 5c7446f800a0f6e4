"""Physical options, alone and together: every finished run verifies; what cannot be is refused."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sim import system
from sim.dispatch import Dispatcher
from sim.planning import make_plan
from sim.scenario import Scenario
from sim.schedules import rounds
from sim.steering import Steering
from sim.system import build_system
from sim.verify import verify
from wireless.propagation import ENVIRONMENTS
from wireless.spectrum import RULES

Changes = dict[str, Any]
Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

#: Trace files, sound ones and others, by name.
TRACES = {
    "band.csv": "time_s,bandwidth_hz\n0,0\n1.5,2e6\n6,0\n9,5e5\n30,1e6\n",
    "speed.csv": "time_s,device,speed\n0,a,1\n0,b,0\n2,b,0.5\n5,a,0.25\n7,a,0\n8,a,2\n",
    "presence.csv": "time_s,device,available\n0,a,1\n0,b,0\n20,b,1\n10,a,0\n",
    "places.csv": "time_s,device,x_m,y_m\n0,a,100,0\n50,a,0,0\n100,a,-400,100\n0,b,50,50\n",
    "narrow.csv": "time_s,bandwidth_hz\n0,1e5\n",
    "no-band.csv": "time_s,bandwidth_hz\n0,1e6\n5,0\n",
    "stops.csv": "time_s,speed\n0,1\n5,0\n",
    "never.csv": "time_s,device,available\n0,a,1\n0,b,0\n",
    "negative.csv": "time_s,bandwidth_hz\n0,1e6\n5,-3\n",
    "text.csv": "time_s,device,speed\n0,a,1\n9,a,fast\n",
    "two.csv": "time_s,available\n0,1\n5,2\n",
    "starts-late.csv": "time_s,device,x_m,y_m\n3,a,1,1\n",
    "header.csv": "time,band\n0,1\n",
}

#: Everybody three times out of four, so that cohorts differ and some are empty.
OFTEN = {"name": "uniform", "probability": 0.75, "min_cohort": 0.5}

CELLS = {"rings": 1, "inter_site_m": 500.0}
MARKOV = {"name": "markov", "mean_on_s": 5.0, "mean_off_s": 10.0}
#: Away until seven hours into the run, from when on times have lost digits.
NIGHT = {"name": "diurnal", "on_hours": 1.0, "middle_hour": 8.0, "middle_std_hours": 0.1}
WANDER = {"name": "random-waypoint", "low_m_s": 10.0, "high_m_s": 30.0, "pause_s": 2.0}
OUTAGE = {"name": "per-round", "outage_snr_db": 5.0}
MEASURED = {
    "name": "measured",
    "tokens_per_s": 300.0,
    "step_overhead_s": 0.05,
    "memory_bytes": 4e9,
    "compute_power_w": 3.0,
}
MIXTURE = [
    {"preset": "phone-iphone-16", "share": 2.0},
    {"preset": "raspberry-pi-5"},
    {"preset": MEASURED},
]
#: Lasts for two rounds or so.
SMALL_BATTERY = {**MEASURED, "battery_wh": 0.002}

MODULATIONS: dict[str, Any] = {
    "shannon": "shannon",
    "fitted-nr": "fitted-nr",
    "mcs": "link-adaptation",
    "cqi": {"name": "link-adaptation", "table": "cqi-64qam", "block_error": 0.01},
}
FADINGS: dict[str, Any] = {
    "ergodic": "ergodic",
    "rayleigh": {"name": "ergodic", "rician": False},
    "none": "none",
    "per-round": {"name": "per-round", "speed_m_s": 30.0},
    "outage": OUTAGE,
}
MOBILITIES: dict[str, Any] = {
    "linear": {"name": "linear", "speed_m_s": 30.0},
    "waypoint": WANDER,
    "places": {"name": "trace", "file": "places.csv"},
}
AVAILABILITIES: dict[str, Any] = {
    "markov": MARKOV,
    "diurnal": "diurnal",
    "night": NIGHT,
    "presence": {"name": "trace", "file": "presence.csv", "period_s": 30.0},
}


def environment(name: str) -> Changes:
    """An environment in a cell of a size that it knows."""
    if name.startswith("in"):
        return {
            "radio.environment": name,
            "radio.min_distance_m": 1.0,
            "radio.cell_radius_m": 100.0,
        }
    return {"radio.environment": name}


def options() -> Iterator[tuple[str, Changes]]:
    """Every option alone, and pairs that meet in the same place of the program."""
    for name in ENVIRONMENTS:
        yield f"environment-{name}", environment(name)
    for modulation, fading in itertools.product(MODULATIONS, FADINGS):
        yield (
            f"{modulation}-{fading}",
            {
                "radio.modulation": MODULATIONS[modulation],
                "radio.fading": FADINGS[fading],
            },
        )
    for rule in RULES:
        yield f"{rule}-blocks", {"radio.allocation": rule, "radio.block_hz": 180e3}
        yield (
            f"{rule}-cells",
            {
                "radio.allocation": rule,
                "radio.cells": CELLS,
                "radio.downlink": "unicast",
                "fleet.devices": 7,
                "policy": "full",
            },
        )
        yield (
            f"{rule}-night",
            {
                "radio.allocation": rule,
                "fleet.availability": NIGHT,
                "fleet.mobility": WANDER,
                "radio.fading": "per-round",
            },
        )
    yield "power-control", {"radio.power_control": {}}
    yield "power-control-fading", {"radio.power_control": {"alpha": 1.0}, "radio.fading": OUTAGE}
    yield "uplink-share", {"radio.uplink_share": 0.3}
    yield "indoor", {"radio.indoor_share": 0.5, "radio.building": "high-loss"}
    yield "unicast", {"radio.downlink": "unicast"}
    yield "unicast-fading", {"radio.downlink": "unicast", "radio.fading": OUTAGE}
    yield (
        "cells-edge",
        {"radio.cells": {**CELLS, "rings": 2, "wrap": False, "load": 0.5, "senders": 3.0}},
    )
    yield "cells-moving", {"radio.cells": CELLS, "fleet.mobility": WANDER, "fleet.devices": 7}
    for period in (None, 40.0):
        yield (
            f"band-trace-{period}",
            {"radio.bandwidth_trace": {"file": "band.csv", "period_s": period}},
        )
        yield (
            f"compute-trace-{period}",
            {"fleet.compute_trace": {"file": "speed.csv", "period_s": period}},
        )
    for name, availability in AVAILABILITIES.items():
        yield f"availability-{name}", {"fleet.availability": availability}
    for name, mobility in MOBILITIES.items():
        for downlink in ("broadcast", "unicast"):
            yield (
                f"mobility-{name}-{downlink}",
                {"fleet.mobility": mobility, "radio.downlink": downlink, "stop.rounds": 6},
            )
    yield "mixture", {"fleet.preset": MIXTURE, "fleet.devices": 7}
    yield "measured", {"fleet.preset": MEASURED}
    yield "jitter", {"fleet.jitter_sigma": 0.5}
    yield "throttle", {"fleet.throttle": {"after_s": 0.1, "share": 0.5}}
    yield "battery", {"fleet.preset": SMALL_BATTERY, "fleet.battery": True, "policy": "full"}
    yield (
        "battery-and-band",
        {"fleet.preset": SMALL_BATTERY, "fleet.battery": True, "radio.bandwidth_trace": "band.csv"},
    )


OPTIONS = dict(options())

#: Nearly everything at once.
EVERYTHING: Changes = {
    "radio.cells": CELLS,
    "radio.modulation": "link-adaptation",
    "radio.fading": {**OUTAGE, "outage_snr_db": -15.0, "speed_m_s": 30.0},
    "radio.power_control": {},
    "radio.block_hz": 1e3,
    "radio.uplink_share": 0.5,
    "radio.indoor_share": 0.3,
    "radio.allocation": "work-conserving",
    "radio.downlink": "unicast",
    "radio.bandwidth_trace": {"file": "band.csv", "period_s": 40.0},
    "fleet.devices": 7,
    "fleet.compute_trace": {"file": "speed.csv", "period_s": 10.0},
    "fleet.availability": MARKOV,
    "fleet.mobility": WANDER,
    "fleet.preset": MIXTURE,
    "fleet.jitter_sigma": 0.5,
    "fleet.throttle": {"after_s": 0.1, "share": 0.5},
    "fleet.battery": True,
    "stop.rounds": 6,
}


def write_traces(folder: Path) -> None:
    for name, text in TRACES.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Traces in the working directory, and each workload counted once: no radio bears on it."""
    folder, known = tmp_path_factory.mktemp("world"), {}
    write_traces(folder)
    build_workload = system.build_workload

    def workload(scenario: Scenario) -> Any:
        bearing = scenario.model_dump(mode="json", include={"seed", "data", "lora", "training"})
        bearing["devices"] = scenario.fleet.devices
        bearing["rounds"] = scenario.stop.rounds
        key = json.dumps(bearing, sort_keys=True)
        if key not in known:
            known[key] = build_workload(scenario)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(system, "build_workload", workload)
        yield


@pytest.fixture(scope="module")
def world(tiny: Tiny) -> Callable[[Changes], Scenario]:
    """The tiny scenario with changes, planned by one probability and rarely evaluated."""
    return lambda changes: tiny({"policy": OFTEN, "output.evaluate_every": 99, **changes})


@pytest.mark.parametrize("name", OPTIONS)
def test_option_verifies(
    name: str, world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    result = simulate(world(OPTIONS[name]))
    assert verify(result.files).findings == ()
    assert np.isfinite(result.files.table("rounds.csv")["duration_s"]).all()


def draw(seed: int) -> Changes:
    """A random combination of options."""
    rng = np.random.default_rng(seed)

    def one(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    changes = environment(one(*ENVIRONMENTS))
    indoors = changes["radio.environment"] in ("uma", "umi", "rma")
    small = changes["radio.environment"].startswith("in")
    battery = one(None, 0.002)
    always: Changes = {
        "radio.modulation": one(*MODULATIONS.values()),
        "radio.fading": one(*(each for each in FADINGS.values() if each is not OUTAGE)),
        "radio.allocation": one(*RULES),
        "radio.downlink": one("broadcast", "unicast"),
        "fleet.availability": one("always", *AVAILABILITIES.values()),
        "fleet.mobility": one("static", *MOBILITIES.values()),
        "fleet.devices": one(1, 4, 7),
        "policy": one("full", OFTEN, {**OFTEN, "rank": 4}),
        "stop.rounds": one(3, 6),
        "seed": one(1, 2),
    }
    cells = {"rings": one(1, 2), "wrap": one(True, False), "load": one(0.0, 0.5, 1.0)}
    sometimes: Changes = {
        "radio.cells": {**cells, "inter_site_m": 50.0 if small else 500.0},
        "radio.indoor_share": 0.5 if indoors else 0.0,
        "radio.power_control": one({}, {"p0_dbm": -90.0, "alpha": 1.0}),
        "radio.block_hz": one(12345.6, 1e3, 7.7),
        "radio.uplink_share": one(0.2, 0.999),
        "radio.bandwidth_trace": {"file": "band.csv", "period_s": one(40.0, 31.7, None)},
        "fleet.compute_trace": {"file": "speed.csv", "period_s": one(10.0, 8.3, None)},
        "fleet.preset": [*MIXTURE, {"preset": {**MEASURED, "battery_wh": battery}}],
        "fleet.battery": True,
        "fleet.jitter_sigma": one(0.3, 1.0),
        "fleet.throttle": {"after_s": one(0.0, 0.5), "share": one(0.1, 1.0)},
        "fleet.rank_caps": one([1], [2, 16]),
    }
    chosen = {key: value for key, value in sometimes.items() if rng.random() < 0.4}
    return changes | always | chosen


@pytest.mark.parametrize("seed", range(20))
def test_combination_verifies(
    seed: int, world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    changes = draw(seed)
    result = simulate(world(changes))
    assert verify(result.files).findings == (), changes


def test_equal_runs_in_a_full_world_write_equal_files(
    world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    one, other = (simulate(world(EVERYTHING)).files for _ in range(2))
    names = sorted(path.name for path in one.folder.glob("*.csv") if path.name != "host.csv")
    assert len(names) == 6
    for name in (*names, "run.log", "scenario.yaml", "adapter/adapter_model.safetensors"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    assert verify(one).findings == ()
    rounds = one.table("rounds.csv")
    assert rounds["completed"].sum() > 0
    assert (one.table("timeline.csv")["phase"] == "wait").any()


#: Decisions, which no physical draw may depend on.
DECISIONS: dict[str, Changes] = {
    "policy": {"policy": "full"},
    "rank": {"policy": {**OFTEN, "rank": 2}},
    "allocation": {"radio.allocation": "time-division"},
    "downlink": {"radio.downlink": "broadcast"},
    "caps": {"fleet.rank_caps": [1]},
    "cohorts": {"policy": {"name": "oort", "cohort": 5}},
}


def nature(scenario: Scenario) -> tuple[dict[str, list[Any]], dict[tuple[int, int], Any]]:
    """What is drawn whatever is decided, and each device's jobs by number of dispatch."""
    made = build_system(scenario)
    fleet, everybody = made.fleet, np.arange(len(made.fleet))
    drawn: dict[str, list[Any]] = {
        "compute_flops": fleet.compute_flops.tolist(),
        "memory_bytes": fleet.memory_bytes.tolist(),
        "kind": fleet.kind.tolist(),
        "data": [shard.tolist() for shard in made.workload.shards],
    }
    for time_s in (0.0, 7.0, 123.4, 86400.0):
        state = fleet.channel.at(everybody, time_s)
        for name in ("x_m", "y_m", "cell", "los", "path_loss_db", "shadowing_db", "outage"):
            drawn[f"{name} at {time_s}"] = getattr(state, name).tolist()
        for name in ("uplink", "downlink"):
            drawn[f"{name} at {time_s}"] = getattr(state, name).rate(1e5).tolist()
        present = made.world.availability.available(everybody, time_s)
        drawn[f"available at {time_s}"] = present.tolist()
    dispatcher, steering = Dispatcher(made), Steering(made, make_plan(made))
    jobs, count = {}, np.zeros(len(fleet), int)
    for number in range(1, 20):
        heard_s = 11.0 * number + made.broadcast_s
        _, batch = rounds.draw(made, steering, dispatcher, number, 11.0 * number, heard_s)
        for device, key in zip(batch.device.tolist(), batch.key.tolist(), strict=True):
            jobs[device, int(count[device])] = key
            count[device] += 1
        dispatcher.came_back(batch.device, np.zeros(len(batch)))
    return drawn, jobs


@pytest.mark.parametrize("name", DECISIONS)
def test_decisions_leave_nature_as_it_is(name: str, world: Callable[[Changes], Scenario]) -> None:
    """Common random numbers: who is where, how fast, in whose sight, there or not; which data."""
    full = {**EVERYTHING, "fleet.battery": False}
    drawn, jobs = nature(world(full))
    other_drawn, other_jobs = nature(world({**full, **DECISIONS[name]}))
    assert other_drawn == drawn
    common = jobs.keys() & other_jobs.keys()
    assert len(common) > 20
    assert {key: jobs[key] for key in common} == {key: other_jobs[key] for key in common}


def test_links_are_the_same_in_any_company(world: Callable[[Changes], Scenario]) -> None:
    channel = build_system(world(EVERYTHING)).fleet.channel
    for time_s in (0.0, 5.0, 5000.0):
        together = channel.at(np.arange(7), time_s)
        for n in (3, 0, 6):
            alone = channel.at(np.array([n]), time_s)
            assert alone.snr_db[0] == together.snr_db[n]
            assert alone.uplink.rate(3e5)[0] == together.uplink.rate(3e5)[n]
            assert alone.downlink.rate(3e5)[0] == together.downlink.rate(3e5)[n]


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("fading", FADINGS)
def test_nobody_has_links_too(
    modulation: str, fading: str, world: Callable[[Changes], Scenario]
) -> None:
    """An empty cohort in a world that moves is no special case."""
    changes = {
        "radio.modulation": MODULATIONS[modulation],
        "radio.fading": FADINGS[fading],
        "radio.power_control": {},
        "fleet.mobility": WANDER,
    }
    state = build_system(world(changes)).fleet.channel.at(np.zeros(0, dtype=np.int64), 3.0)
    assert len(state) == 0
    for link in (state.uplink, state.downlink):
        assert link.rate(np.zeros(0)).shape == (0,)
        assert link.rate(1e5).shape == (0,)


def test_battery_ends_the_run(world: Callable[[Changes], Scenario], simulate: Simulate) -> None:
    changes = {**OPTIONS["battery"], "stop.rounds": 50}
    result = simulate(world(changes))
    assert result.summary["rounds"] < 50
    log = (result.files.folder / "run.log").read_text(encoding="utf-8")
    assert "nobody will take part again" in log
    assert verify(result.files).findings == ()


def test_band_that_ends_ends_the_run(
    world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    """The last band of a trace without a period is what plans take, so it starts with a pause."""
    trace = {"file": "band.csv", "period_s": 40.0}
    result = simulate(world({"radio.bandwidth_trace": trace, "stop.rounds": 12}))
    timeline = result.files.table("timeline.csv")
    waits = timeline[timeline["phase"] == "wait"]
    assert waits.iloc[0][["start_s", "end_s"]].tolist() == [0.0, 1.5]
    starts = timeline[timeline["phase"] == "downlink"].groupby("round")["start_s"].min() % 40
    assert not ((starts < 1.5) | ((starts >= 6) & (starts < 9))).any()
    assert verify(result.files).findings == ()


@pytest.mark.parametrize("speed_m_s", [3 / 3.6, 30.0])
def test_many_rounds_of_fading_verify(
    speed_m_s: float, world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    """Fading tells nanoseconds apart, so a rounding of one round must not grow in the next."""
    fading = {"name": "per-round", "speed_m_s": speed_m_s}
    changes = {"radio.fading": fading, "policy": "full", "stop.rounds": 12}
    assert verify(simulate(world(changes)).files).findings == ()


def test_short_uploads_late_in_a_run_verify(
    world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    """A quarter of a millisecond, seven hours into the run: times are known to 4e-12 s."""
    changes = {
        "radio.bandwidth_hz": 1e8,
        "radio.cell_radius_m": 100.0,
        "fleet.availability": NIGHT,
        "fleet.rank_caps": [1],
        "policy": "full",
    }
    assert verify(simulate(world(changes)).files).findings == ()


#: Changes that are refused before anything is written, and what is said: key and remedy.
REFUSED: dict[str, tuple[Changes, tuple[str, ...]]] = {
    "cell beyond the environment's range": (
        {"radio.cell_radius_m": 1e5},
        ("radio.cell_radius_m must give a distance from 10 to 5000 m", "'uma'", "got 100000"),
    ),
    "office of 500 m": (
        {"radio.environment": "inh-open"},
        ("radio.cell_radius_m must give a 3-D distance from 1 to 150 m", "'inh-open'"),
    ),
    "rural cell at 40 GHz": (
        {"radio.environment": "rma", "radio.carrier_hz": 40e9},
        ("radio.carrier_hz must", "'rma'", "got 4"),
    ),
    "indoors within doors": (
        {**environment("inh-open"), "radio.indoor_share": 0.5},
        ("radio.indoor_share must be 0 in environment inh-open",),
    ),
    "walls that rural cells do not have": (
        {
            "radio.environment": "rma",
            "radio.indoor_share": 0.5,
            "radio.building": "high-loss",
        },
        ("radio.building", "'low-loss'", "'rma'"),
    ),
    "clutter beyond the environment's range": (
        {**environment("inf-sl"), "radio.environment": {"name": "inf-sl", "clutter_density": 0.9}},
        ("radio.environment.clutter_density must", "below 0.4", "'inf-sl'"),
    ),
    "block error beyond the tables": (
        {"radio.modulation": {"name": "link-adaptation", "block_error": 0.9}},
        ("radio.modulation.block_error", "0.5"),
    ),
    "cells beyond the environment's range": (
        {"radio.environment": "umi", "radio.cells": {"inter_site_m": 6000.0}},
        ("radio.cells.inter_site_m must give a distance from 10 to 5000 m",),
    ),
    "cells without room": (
        {"radio.cells": {"inter_site_m": 30.0}},
        ("radio.min_distance_m must be below", "half of cells.inter_site_m = 15"),
    ),
    "three rings": ({"radio.cells": {"rings": 3}}, ("radio.cells.rings = 3", "equal to 2")),
    "no band file": (
        {"radio.bandwidth_trace": "none.csv"},
        ("radio.bandwidth_trace = 'none.csv'", "no such file"),
    ),
    "no speed file": (
        {"fleet.compute_trace": "none.csv"},
        ("fleet.compute_trace = 'none.csv'", "no such file"),
    ),
    "no presence file": (
        {"fleet.availability": {"name": "trace", "file": "none.csv", "period_s": 9.0}},
        ("fleet.availability.file = 'none.csv'", "no such file"),
    ),
    "no file of places": (
        {"fleet.mobility": {"name": "trace", "file": "none.csv"}},
        ("fleet.mobility.file = 'none.csv'", "no such file"),
    ),
    "negative band": (
        {"radio.bandwidth_trace": "negative.csv"},
        ("radio.bandwidth_trace = 'negative.csv'", "line 3", "not negative", "correct it"),
    ),
    "speed in words": (
        {"fleet.compute_trace": "text.csv"},
        ("fleet.compute_trace = 'text.csv'", "line 3", "got 'fast'", "correct it"),
    ),
    "there twice over": (
        {"fleet.availability": {"name": "trace", "file": "two.csv", "period_s": 9.0}},
        ("fleet.availability.file = 'two.csv'", "line 3", "0 or 1"),
    ),
    "no first place": (
        {"fleet.mobility": {"name": "trace", "file": "starts-late.csv"}},
        ("fleet.mobility.file = 'starts-late.csv'", "line 2", "add a row at time 0"),
    ),
    "other columns": (
        {"radio.bandwidth_trace": "header.csv"},
        ("radio.bandwidth_trace = 'header.csv'", "line 1", "time_s,bandwidth_hz"),
    ),
    "row after the period": (
        {"fleet.availability": {"name": "trace", "file": "presence.csv", "period_s": 9.0}},
        ("fleet.availability.file = 'presence.csv'", "below period_s = 9", "lengthen the period"),
    ),
    "device that is never there": (
        {"fleet.availability": {"name": "trace", "file": "never.csv", "period_s": 9.0}},
        ("fleet.availability: device 1 is never there", "leave it out of the trace"),
    ),
    "device that stops for ever": (
        {"fleet.compute_trace": "stops.csv"},
        ("fleet.compute_trace: device 0 ends at speed zero", "give another last speed"),
    ),
    "band that ends for ever": (
        {"radio.bandwidth_trace": "no-band.csv"},
        ("radio.bandwidth_trace: its mean band is zero", "give a band or a period"),
    ),
    "nights longer than days": (
        {"fleet.availability": {"name": "diurnal", "on_hours": 23.5}},
        ("fleet.availability.on_hours = 23.5", "jitter_hours"),
    ),
    "outage for ever": (
        {"radio.fading": {"name": "per-round", "outage_snr_db": 100.0}},
        ("radio.fading.outage_snr_db = 100", "0 of the rounds", "lower it"),
    ),
    "block wider than the band": (
        {"radio.block_hz": 2e6},
        ("radio.block_hz must be", "at most bandwidth_hz = 1e+06"),
    ),
    "fewer blocks than devices": (
        {"radio.block_hz": 4e5, "policy": "full"},
        ("radio.block_hz = 400000: 1e+06 Hz are 2 blocks", "4 are needed", "narrower block"),
    ),
    "block wider than the band of a trace": (
        {"radio.block_hz": 2e5, "radio.bandwidth_trace": "narrow.csv", "policy": "full"},
        ("radio.block_hz", "narrower block"),
    ),
    "speeds the wrong way round": (
        {"fleet.mobility": {"name": "random-waypoint", "low_m_s": 3.0}},
        ("fleet.mobility.high_m_s = 1.5", "at least low_m_s = 3"),
    ),
    "device of two speeds": (
        {"fleet.preset": {**MEASURED, "flops": 1e9}},
        ("fleet.preset.flops", "only one of them"),
    ),
    "unknown kind in a mixture": (
        {"fleet.preset": [{"preset": "phone-iphone"}]},
        ("fleet.preset.0.preset = 'phone-iphone'", "did you mean 'phone-iphone-16'"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_world_is_refused(
    case: str,
    scenario_file: Callable[..., Path],
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_traces(tmp_path)
    changes, parts = REFUSED[case]
    file = scenario_file(changes)
    before = sorted(tmp_path.rglob("*"))
    answer = command("run", file, "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("sim: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
    assert sorted(tmp_path.rglob("*")) == before
    for part in parts:
        assert part in answer.err


def test_static_columns_do_not_depend_on_the_policy(
    world: Callable[[Changes], Scenario], simulate: Simulate
) -> None:
    """What `devices.csv` says of who a device is, is the same in runs that are compared."""
    runs = [
        simulate(world({**EVERYTHING, "stop.rounds": 2, **changes})).files.table("devices.csv")
        for changes in ({}, {"policy": "full", "radio.allocation": "proportional"})
    ]
    done = ["rounds_sampled", "rounds_completed", "bytes_up", "bytes_down", "busy_s", "energy_j"]
    one, other = (run.drop(columns=done) for run in runs)
    pd.testing.assert_frame_equal(other, one, check_exact=True)
