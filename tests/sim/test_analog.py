"""Analog uplinks: one slot for the sum of all, whoever sends, in times, files and plans."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from sim.checkpoint import FILE, FOLDER
from sim.errors import Interrupted
from sim.progress import Step
from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.system import build_system
from sim.verify import verify

Make = Callable[..., Scenario]
Simulate = Callable[[Scenario], Any]

ANALOG = {"radio.uplink": "analog", "radio.fading": "per-round"}
UNIFORM = {"policy": {"name": "uniform", "probability": 0.5}}
TIMED = {
    **ANALOG,
    **UNIFORM,
    "training.timing_only": True,
    "data": {"source": "builtin:synthetic", "length": 32},
    "stop": {"rounds": 12},
}


def ran(scenario: Scenario, out: Path) -> Any:
    run(scenario, out)
    return open_run(out)


def uploads(timeline: pd.DataFrame) -> pd.DataFrame:
    """Rows of those who sent."""
    return timeline[(timeline["phase"] == "uplink") & (timeline["outcome"] == "done")]


def airtime_s(scenario: Scenario) -> float:
    """m / (B (1 - overhead)), m = ceil(d / 2), by hand."""
    layout = build_system(scenario).workload.layout
    numbers = (
        sum(scenario.lora.rank * (d_in + d_out) for d_in, d_out in layout.layers.values())
        + layout.head_numbers
    )
    return -(-numbers // 2) / (scenario.radio.bandwidth_hz * 0.92)


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_all_send_in_one_slot_whatever_their_number_and_ranks(
    tiny: Make, tmp_path: Path, rank: int
) -> None:
    scenario = tiny(
        {**TIMED, "policy": {"name": "uniform", "probability": 0.5, "rank": rank}, "lora.rank": 16}
    )
    files = ran(scenario, tmp_path / "out")
    timeline = files.table("timeline.csv")
    sent, lasts_s = uploads(timeline), airtime_s(scenario)
    counts = set()
    for number, rows in sent.groupby("round"):
        assert rows["start_s"].nunique() == rows["end_s"].nunique() == 1
        begin_s = rows["start_s"].iloc[0]
        assert rows["end_s"].iloc[0] - begin_s == pytest.approx(lasts_s, rel=1e-9)
        of_round = (timeline["round"] == number) & (timeline["phase"] == "compute")
        assert begin_s == timeline[of_round]["end_s"].max()
        assert (rows["bandwidth_hz"] - 1e6).abs().max() < 1
        counts.add(len(rows))
    assert len(counts) > 1
    assert verify(files).findings == ()


def test_an_empty_round_takes_the_slot_as_well(tiny: Make, tmp_path: Path) -> None:
    """And lasts as long as foretold."""
    scenario = tiny({**TIMED, "policy": {"name": "uniform", "probability": 0.25}})
    files = ran(scenario, tmp_path / "out")
    rounds, timeline = files.table("rounds.csv"), files.table("timeline.csv")
    empty = rounds[(rounds["completed"] == 0) & (rounds["round"] > 0)]
    assert len(empty)
    slot = timeline[timeline["phase"] == "wait"]
    assert slot["round"].tolist() == empty["round"].tolist()
    assert (slot["end_s"] - slot["start_s"]).to_numpy() == pytest.approx(airtime_s(scenario))
    later = rounds.iloc[1:]
    assert later["duration_s"].to_numpy() == pytest.approx(later["cohort_s"].to_numpy())
    assert verify(files).findings == ()


def test_plans_foretell_the_mean_round(tiny: Make, tmp_path: Path) -> None:
    """Exact but for the draws: 400 rounds of equal devices."""
    scenario = tiny({**TIMED, "stop": {"rounds": 400}, "output.timeline": "rounds"})
    files = ran(scenario, tmp_path / "out")
    rounds = files.table("rounds.csv").iloc[1:]
    duration_s = rounds["duration_s"].to_numpy()
    error_s = duration_s.std() / np.sqrt(len(duration_s))
    assert rounds["expected_s"].iloc[0] == pytest.approx(duration_s.mean(), abs=4 * error_s)


def test_silent_devices_have_no_energy_and_a_mean_power_as_it_may_be(
    tiny: Make, tmp_path: Path
) -> None:
    scenario = tiny(TIMED)
    system = build_system(scenario)
    files = ran(scenario, tmp_path / "out")
    timeline = files.table("timeline.csv")
    silent = timeline[timeline["outcome"] == "dropped"]
    assert len(silent)
    assert (silent["energy_j"] == 0).all()
    sent = uploads(timeline)
    watts = sent["energy_j"] / (sent["end_s"] - sent["start_s"])
    most_w = 10 ** ((system.fleet.channel.max_power_dbm - 30) / 10)
    sends = system.fleet.channel.start.sends_probability
    device = sent["device"].to_numpy(dtype=np.int64)
    assert (watts * sends[device]).to_numpy() == pytest.approx(most_w[device], rel=1e-6)


@pytest.mark.parametrize("policy", ["joint", "full", "data-proportional", "luo", "shi", "fedcs"])
def test_policies_plan_for_it(tiny: Make, tmp_path: Path, policy: str) -> None:
    scenario = tiny({**TIMED, "policy": {"name": policy}, "stop": {"rounds": 3}})
    assert verify(ran(scenario, tmp_path / "out")).findings == ()


def test_training_is_noisy_and_sound_and_takes_the_time_told_without_it(
    tiny: Make, simulate: Simulate, tmp_path: Path
) -> None:
    changes = {**ANALOG, **UNIFORM, "stop": {"rounds": 4}, "output.timeline": "full"}
    trained = simulate(tiny(changes))
    assert verify(trained.files).findings == ()
    timed = ran(tiny({**changes, "training.timing_only": True}), tmp_path / "timed")
    for name in ("timeline.csv", "spectrum.csv", "pieces.csv", "plan.csv"):
        assert (trained.files.folder / name).read_bytes() == (timed.folder / name).read_bytes()
    other = simulate(tiny({**changes, "radio.bs_noise_figure_db": 60.0}))
    pd.testing.assert_frame_equal(
        trained.files.table("timeline.csv")[["start_s", "device", "phase"]].iloc[:3],
        other.files.table("timeline.csv")[["start_s", "device", "phase"]].iloc[:3],
    )
    quiet, loud = (each.files.table("rounds.csv")["eval_loss"] for each in (trained, other))
    assert quiet[0] == loud[0]
    assert quiet.iloc[-1] < loud.iloc[-1]


def test_resumed_it_ends_as_if_it_had_never_stopped(tiny: Make, tmp_path: Path) -> None:
    """Noise is that of the round, not of how it came about."""
    changes = {**ANALOG, **UNIFORM, "stop": {"rounds": 4}, "output.checkpoint_every": 1}
    scenario, whole, broken = tiny(changes), tmp_path / "whole", tmp_path / "broken"
    run(scenario, whole)

    def interrupt(step: Step) -> None:
        if step.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(scenario, broken, interrupt)
    assert (broken / FOLDER / FILE).exists()
    run(scenario, broken, resume=True)
    names = [*(f"{name}.csv" for name in ("timeline", "rounds", "updates", "devices"))]
    for name in (*names, "adapter/adapter_model.safetensors"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_what_was_changed_in_the_files_is_found(tiny: Make, tmp_path: Path) -> None:
    files = ran(tiny(TIMED), tmp_path / "out")
    timeline = files.table("timeline.csv")
    row = uploads(timeline).index[0]
    text = (files.folder / "timeline.csv").read_text().splitlines()
    for column, factor in (("end_s", 1.01), ("energy_j", 1.1), ("bandwidth_hz", 0.5)):
        cells = text[row + 1].split(",")
        place = timeline.columns.get_loc(column)
        cells[place] = repr(float(cells[place]) * factor)
        lines = [*text[: row + 1], ",".join(cells), *text[row + 2 :]]
        (files.folder / "timeline.csv").write_text("\n".join(lines) + "\n")
        assert verify(open_run(files.folder)).findings, column


#: Changes to a sound scenario with an analog uplink, and what the message names.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "schedule": (
        {"schedule": {"name": "deadline", "deadline_s": 3.0}},
        "schedule.name = 'deadline'",
    ),
    "products": ({"method": "flexlora"}, "method.name = 'flexlora'"),
    "norms": ({"method": "hetlora"}, "choose fslora or fedit"),
    "sparse": ({"method.keep": 0.5}, "method.keep = 0.5"),
    "few bits": ({"method.value_bits": 4}, "method.value_bits = 4"),
    "ergodic": ({"radio.fading": "ergodic"}, "choose per-round or none"),
    "outage": (
        {"radio.fading": {"name": "per-round", "outage_snr_db": 0.0}},
        "radio.fading.outage_snr_db = 0",
    ),
    "cells": ({"radio.cells": {"rings": 1}}, "radio.cells = {'rings': 1"),
    "power control": ({"radio.power_control": {"alpha": 0.5}}, "radio.power_control"),
    "allocation": ({"radio.allocation": "equal-split"}, "radio.allocation = 'equal-split'"),
    "blocks": ({"radio.block_hz": 180e3}, "radio.block_hz = 180000.0"),
    "energy": ({"policy.energy_limit_j": 5.0}, "policy.energy_limit_j = 5.0"),
    "battery": ({"fleet.battery": True}, "fleet.battery = True"),
    "crashes": ({"failures.crashes": {"mean_s": 5.0}}, "failures.crashes"),
    "restarts": ({"failures.restarts": {"mean_s": 5.0, "down_s": 1.0}}, "failures.restarts"),
    "threshold": ({"radio.uplink": {"name": "analog", "threshold": 0.0}}, "threshold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_it_is_refused(tiny: Make, case: str) -> None:
    changes, told = REFUSED[case]
    with pytest.raises(ValidationError) as error:
        tiny({**ANALOG, **changes})
    assert told in str(error.value)
    if case != "threshold":
        assert "choose" in str(error.value) or "leave it out" in str(error.value)


@pytest.mark.parametrize("method", ["fslora", "fedit", "ffa-lora", "rolora", "fedsa-lora"])
def test_every_sum_is_sent(tiny: Make, tmp_path: Path, method: str) -> None:
    scenario = tiny({**TIMED, "method": method, "stop": {"rounds": 3}})
    assert verify(ran(scenario, tmp_path / "out")).findings == ()


def test_a_channel_that_does_not_fade_silences_nobody(tiny: Make, tmp_path: Path) -> None:
    files = ran(tiny({**TIMED, "radio.fading": "none"}), tmp_path / "out")
    rounds = files.table("rounds.csv")
    assert (rounds["completed"] == rounds["sampled"]).all()
    assert verify(files).findings == ()
