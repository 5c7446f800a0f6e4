"""Whatever a scenario chooses, its run ends, and nothing in its files contradicts anything."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sim import workload
from sim.errors import InputError, RunError
from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.verify import verify

#: A key of a scenario, which every refusal names.
KEY = re.compile(r"\b(fleet|radio|policy|schedule|failures|stop|data|training|method)\.[a-z_]+")

#: Policies that plan in well under a second.
POLICIES = ("uniform", "full", "data-proportional", "statistical", "luo", "rank-by-capability")
COHORTS = ("fedcs", "shi", "tsfa")
PRESETS = ("phone-snapdragon-778g", "raspberry-pi-5", "jetson-orin-nano")


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    """Times, and other sizes, of any order of magnitude within bounds."""
    return st.floats(0, 1).map(lambda share: round(low * (high / low) ** share, 6))


def some(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A section in which each key may be given or not."""
    return st.fixed_dictionaries({}, optional=keys)


def maybe(section: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A section or null; mostly null."""
    return st.one_of(st.none(), st.none(), section)


@st.composite
def trace(draw: st.DrawFn) -> str:
    """Text of a bandwidth trace; the band may be gone for a while."""
    times = draw(st.lists(seconds(0.05, 50.0), min_size=0, max_size=4, unique=True))
    levels = st.sampled_from([0.0, 2e5, 1e6, 2e7])
    first = draw(st.sampled_from([1e6, 2e7]))
    lines = [f"0,{first}", *(f"{time},{draw(levels)}" for time in sorted(times))]
    return "\n".join(["time_s,bandwidth_hz", *lines, ""])


FADING = st.one_of(
    st.sampled_from(["ergodic", "none"]),
    st.fixed_dictionaries(
        {"name": st.just("per-round"), "outage_snr_db": st.sampled_from([-30.0, 0.0, 10.0])}
    ),
    st.fixed_dictionaries({"name": st.just("block"), "block_s": seconds(0.02, 5.0)}),
)

RADIO = some(
    environment=st.sampled_from(["uma", "umi", "rma", "inh-open", "inf-sl", "free-space"]),
    bandwidth_hz=st.sampled_from([2e5, 1e6, 2e7]),
    cell_radius_m=st.sampled_from([60.0, 150.0]),
    modulation=st.sampled_from(["shannon", "fitted-nr", "link-adaptation"]),
    fading=FADING,
    power_control=maybe(some(p0_dbm=st.sampled_from([-100.0, -80.0]))),
    cells=maybe(some(inter_site_m=st.just(300.0), load=st.sampled_from([0.0, 1.0]))),
    uplink_share=st.sampled_from([1.0, 0.5]),
    allocation=st.sampled_from(
        ["equal-finish", "work-conserving", "equal-split", "proportional", "time-division"]
    ),
    block_hz=maybe(st.sampled_from([1e4, 1e5])),
    reallocation_s=st.one_of(st.just(0.0), seconds(0.001, 5.0)),
    downlink=st.sampled_from(["broadcast", "unicast"]),
    indoor_share=st.sampled_from([0.0, 0.8]),
)

PLACES = st.one_of(
    st.just("static"),
    st.fixed_dictionaries({"name": st.just("linear"), "speed_m_s": st.sampled_from([1.0, 30.0])}),
    st.fixed_dictionaries({"name": st.just("random-waypoint")}),
)

PRESENCE = st.one_of(
    st.just("always"),
    st.fixed_dictionaries(
        {"name": st.just("markov"), "mean_on_s": seconds(1, 500), "mean_off_s": seconds(1, 500)}
    ),
    st.just("diurnal"),
)

FLEET = some(
    preset=st.one_of(
        st.sampled_from(PRESETS),
        st.just([{"preset": PRESETS[0]}, {"preset": PRESETS[1], "share": 2.0}]),
    ),
    compute_sigma=st.sampled_from([0.0, 1.5]),
    jitter_sigma=st.sampled_from([0.0, 0.5]),
    throttle=maybe(st.fixed_dictionaries({"after_s": seconds(0.1, 10), "share": st.just(0.4)})),
    availability=PRESENCE,
    mobility=PLACES,
)


def device(battery_wh: float) -> dict[str, Any]:
    """A device with a small battery."""
    return {
        "name": "small",
        "flops": 2e10,
        "memory_bytes": 4e9,
        "compute_power_w": 3.0,
        "battery_wh": battery_wh,
    }


STALENESS = st.one_of(
    st.just({}),
    st.just({"staleness": "constant"}),
    st.just({"staleness": "hinge", "delay": 1}),
)

ROUNDS = st.one_of(
    st.just({"name": "synchronous"}),
    st.fixed_dictionaries(
        {
            "name": st.just("deadline"),
            "deadline_s": seconds(0.05, 60.0),
            "late": st.sampled_from(["cancel", "discard"]),
        }
    ),
    st.fixed_dictionaries({"name": st.just("over-selection"), "share": st.floats(0.1, 0.9)}),
)

WITHOUT_ROUNDS = st.builds(
    lambda *parts: {key: value for part in parts for key, value in part.items()},
    st.one_of(
        st.fixed_dictionaries({"name": st.just("fedbuff"), "buffer": st.integers(1, 5)}),
        st.fixed_dictionaries({"name": st.just("fedasync")}),
    ),
    some(concurrency=st.integers(1, 2)),
    STALENESS,
)

FAILURES = some(
    departures=st.booleans(),
    crashes=maybe(st.fixed_dictionaries({"mean_s": seconds(0.5, 100)})),
    losses=maybe(
        st.fixed_dictionaries(
            {
                "probability": st.sampled_from([0.1, 0.6]),
                "retries": st.integers(0, 3),
                "backoff_s": st.sampled_from([0.0, 0.1, 3.0]),
            }
        )
    ),
    restarts=maybe(st.fixed_dictionaries({"mean_s": seconds(2, 200), "down_s": seconds(0.1, 20)})),
)


#: Methods that differ in what is sent, by whom it is known, and in what computing takes.
METHODS = ("fslora", "rolora", "flora", "fedex-lora", "soft", "hafl")

#: What models that are cut, and sums over the air, go with.
SPLIT = {"downlink": "unicast", "allocation": "equal-finish", "fading": "per-round"}
AIR = {"uplink": "analog", "fading": "per-round"}
_OF_ONE_BAND = ("power_control", "cells", "block_hz", "reallocation_s", "allocation")


@st.composite
def special(draw: st.DrawFn, tree: dict[str, Any]) -> dict[str, Any]:
    """The scenario with a method, and perhaps an uplink, that much else does not go with."""
    name = draw(st.sampled_from(["ce-lora", "hierfedlora", "splitlora", "fslora", "fedsa-lora"]))
    radio = {key: value for key, value in tree["radio"].items() if key not in _OF_ONE_BAND}
    fleet = {key: value for key, value in tree["fleet"].items() if key != "mobility"}
    if name in ("fslora", "fedsa-lora"):
        radio |= AIR
        fleet = {key: value for key, value in fleet.items() if key != "battery"}
        tree = tree | {"failures": {}, "schedule": {"name": "synchronous"}}
    else:
        radio |= SPLIT
        tree = tree | {"failures": {**tree["failures"], "losses": None}}
    return tree | {"method": name, "radio": radio, "fleet": fleet}


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, Any], str | None]:
    """A scenario without training, as YAML would give it, and its bandwidth trace, if any."""
    one_by_one = draw(st.booleans())
    radio, fleet = draw(RADIO), draw(FLEET)
    if one_by_one:
        radio["downlink"] = "unicast"
        if radio.get("allocation", "equal-finish") == "equal-finish":
            radio["allocation"] = "work-conserving"
    fleet["devices"] = draw(st.integers(2, 12))
    if draw(st.integers(0, 3)) == 0:
        fleet |= {"battery": True, "preset": device(draw(seconds(1e-4, 0.1)))}
    policy: dict[str, Any] = {"name": draw(st.sampled_from(POLICIES))}
    if not one_by_one:
        policy["name"] = draw(st.sampled_from((*POLICIES, *COHORTS)))
    if policy["name"] == "uniform":
        policy["probability"] = draw(st.sampled_from([0.5, 1.0]))
    if policy["name"] != "tsfa" and draw(st.booleans()):
        policy["replan"] = {"every": 2, "cost_s": draw(st.sampled_from([0.0, 0.7]))}
    tree = {
        "name": "any",
        "seed": draw(st.integers(0, 1000)),
        "data": {"source": "builtin:synthetic", "samples": draw(st.integers(1, 40)), "length": 32},
        "training": {"timing_only": True, "steps": draw(st.integers(1, 5))},
        "fleet": fleet,
        "radio": radio,
        "policy": policy,
        "schedule": {
            **draw(WITHOUT_ROUNDS if one_by_one else ROUNDS),
            "overhead_s": draw(st.sampled_from([1e-6, 0.1])),
        },
        "failures": draw(FAILURES),
        "stop": {"rounds": draw(st.integers(2, 6))},
        "output": {"timeline": draw(st.sampled_from(["devices", "full"]))},
    }
    tree["method"] = draw(st.sampled_from(METHODS)) if not one_by_one else "fslora"
    if not one_by_one and draw(st.integers(0, 2)) == 0:
        return draw(special(tree)), None
    return tree, draw(st.one_of(st.none(), st.none(), trace()))


@pytest.fixture(scope="module", autouse=True)
def cards_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the model's costs counted once, by another process, as where torch is not imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(workload, "_apart", lambda scenario: scenario.training.timing_only)
        yield


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(trees())
def test_any_run_ends_and_is_sound(drawn: tuple[dict[str, Any], str | None]) -> None:
    play(*drawn)


def test_server_sees_who_came_back_while_it_planned() -> None:
    tree = {
        "name": "planning",
        "data": {"source": "builtin:synthetic", "samples": 8, "length": 32},
        "training": {"timing_only": True},
        "fleet": {"devices": 4},
        "radio": {"downlink": "unicast", "allocation": "work-conserving"},
        "policy": {"name": "full", "replan": {"every": 1, "cost_s": 1e4}},
        "schedule": {"name": "fedbuff", "buffer": 1, "concurrency": 4},
        "stop": {"rounds": 4},
    }
    assert play(tree, None) == "sound"


def play(tree: dict[str, Any], bands: str | None) -> str:
    """Run a scenario and verify it, unless it is refused or stops with a reason; tell which."""
    with tempfile.TemporaryDirectory() as folder:
        if bands is not None:
            file = Path(folder) / "bands.csv"
            file.write_text(bands, encoding="utf-8")
            tree = {**tree, "radio": {**tree["radio"], "bandwidth_trace": str(file)}}
        try:
            scenario = Scenario.model_validate(tree)
        except ValidationError:
            return "no scenario"
        out = Path(folder) / "out"
        try:
            summary = run(scenario, out)
        except (InputError, RunError) as error:
            message = str(error)
        else:
            found = verify(open_run(out)).findings
            assert not found, [str(each) for each in found[:5]]
            assert summary["rounds"] >= 1
            return "sound"
        assert message.count("\n") == 0
        reasons = ("no device is ever there", "that were sent out has arrived")
        assert KEY.search(message) or any(reason in message for reason in reasons), message
        return message.split(":")[0]
