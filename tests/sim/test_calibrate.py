"""`sim calibrate`, device presets from files, and the overhead per step in a run."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fslora.calibrate import Grid, Measurement
from sim import calibrate
from sim.load import load_device, load_scenario
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.verify import verify

Command = Callable[..., Any]
Tiny = Callable[..., Scenario]
Simulate = Callable[[Scenario], Any]

#: Two points on a model that is in the package.
QUICK = ("--ranks=2", "--batches=1,4", "--lengths=32", "--repeats=1", "--threads=1", "--device=cpu")
#: Two steps so unlike, and so often timed, that a busy machine does not mix them up.
MEASURED = (*QUICK, "--batches=1,32", "--repeats=5")

BOARD = {
    "name": "board",
    "flops": 5e9,
    "step_overhead_s": 0.5,
    "memory_bytes": 4e9,
    "compute_power_w": 7.0,
    "tx_power_dbm": 20.0,
    "source": "made up",
}


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """Write the board, changed, as `board.yaml` and return its path."""

    def write(**changes: object) -> Path:
        file = tmp_path / "board.yaml"
        file.write_text(yaml.safe_dump(BOARD | changes), encoding="utf-8")
        return file

    return write


def test_a_calibrated_device_is_run_and_verified_without_its_file(
    command: Command,
    scenario_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    preset, table, out = tmp_path / "here.yaml", tmp_path / "here.csv", tmp_path / "out"
    answer = command("calibrate", *MEASURED, "-o", preset, "--csv", table)
    assert (answer.code, answer.err) == (0, "")
    for words in ("measured (ms)", "fitted (ms)", "GFLOP/s", "overhead per step", "rms", "worst"):
        assert words in answer.out
    device = load_device(preset)
    assert device.name == "here"
    for words in ("measured on", "threads 1", "builtin:tiny-llama", "rms", "estimate", "ranks 2"):
        assert words in device.source
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    assert {(r["rank"], r["batch"], r["length"]) for r in rows} == {
        ("2", "1", "32"),
        ("2", "32", "32"),
    }
    assert len(rows) == 2 * 5
    assert all(float(row["step_s"]) > 0 for row in rows)

    monkeypatch.chdir(tmp_path.parent)  # a preset's path is taken from the scenario's folder
    scenario = scenario_file({"fleet.preset": preset.name, "stop.rounds": 1})
    answer = command("run", scenario, "--out", out, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    preset.unlink()
    assert open_run(out).scenario.fleet.preset == device
    answer = command("verify", out)
    assert answer.code == 0
    assert "all invariants hold" in answer.out


def test_fit_and_preset_follow_from_the_measured_times(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of 4 GFLOP/s and 20 ms per step, by its times, gives a device of just these."""
    grid = Grid((2,), (1, 4), (32,))
    flops = np.array([1e8, 4e8])

    def timed(*_: object) -> Measurement:
        noisy = np.array([[1.0], [9.0], [1.0]])  # one slow repeat moves no median
        return Measurement(grid, flops, (0.02 + flops / 4e9) * noisy)

    monkeypatch.setattr(calibrate, "measure", timed)
    out = tmp_path / "fast.yml"
    answer = command("calibrate", *QUICK, "-o", out, "--power-w", "30", "--tx-power-dbm", "26")
    assert answer.code == 0
    assert "4 GFLOP/s" in answer.out
    assert "20 ms" in answer.out
    device = load_device(out)
    assert device.flops == 4e9
    assert device.step_overhead_s == 0.02
    assert (device.compute_power_w, device.tx_power_dbm) == (30.0, 26.0)
    assert "estimate" not in device.source
    assert device.memory_bytes > 2**28


def test_times_that_tell_no_speed_fail_and_write_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrinking = Measurement(
        Grid((2,), (1, 4), (32,)), np.array([1e8, 4e8]), np.array([[0.2, 0.01]])
    )
    monkeypatch.setattr(calibrate, "measure", lambda *_: shrinking)
    answer = command("calibrate", *QUICK, "-o", tmp_path / "out.yaml")
    assert answer.code == 1
    assert "do not grow" in answer.err
    assert list(tmp_path.iterdir()) == []


#: Arguments of `sim calibrate`, and what the message says.
OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rank that is no number": (("--ranks", "1,x"), ("--ranks 1,x: ", "such as 1,4,16")),
    "rank of zero": (("--ranks", "0,4"), ("--ranks 0,4: ", "whole numbers from 1")),
    "empty list": (("--batches", ""), ("--batches : ", "whole numbers")),
    "number given twice": (("--batches", "4,4"), ("--batches 4,4: ", "given twice")),
    "length of one": (("--lengths", "1,8"), ("--lengths 1: ", "2 tokens or more")),
    "length beyond the model": (("--lengths", "513"), ("--lengths 513: ", "at most 512 tokens")),
    "one point": (("--batches", "4"), ("--ranks, --batches, --lengths: ", "two values")),
    "no repeats": (("--repeats", "0"), ("--repeats 0: ", "from 1 to")),
    "no threads": (("--threads", "0"), ("--threads 0: ", "from 1 to 1024")),
    "negative power": (("--power-w", "-1"), ("--power-w -1.0: ", "from 0 to")),
    "power that is no number": (("--power-w", "nan"), ("--power-w nan: ", "from 0 to")),
    "unknown task": (("--task", "dancing"), ("--task dancing: ", "causal-lm, classification")),
    "unknown format": (("--dtype", "int4"), ("--dtype int4: ", "float32, bfloat16")),
    "unknown device": (("--device", "tpu"), ("--device tpu: ", "auto, cpu, cuda")),
    "unknown model": (("--model", "./nowhere"), ("--model ./nowhere: ", "cannot be loaded")),
    "unknown layer": (("--targets", "q_prj"), ("--targets q_prj: ", "this model has")),
    "preset of unknown ending": (("-o", "out.json"), ("-o out.json: ", ".yaml or .yml")),
    "preset in no folder": (("-o", "none/out.yaml"), ("-o none/out.yaml: cannot be written",)),
    "table in no folder": (("--csv", "none/out.csv"), ("--csv none/out.csv: cannot be written",)),
    "table over the preset": (("--csv", "out.yaml"), ("--csv out.yaml: ", "name another")),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_option_is_refused(
    case: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, parts = OPTIONS[case]
    answer = command("calibrate", *QUICK, "-o", "out.yaml", *options)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("sim: ")
    assert answer.err.count("\n") == 1
    for part in parts:
        assert part in answer.err
    assert list(tmp_path.iterdir()) == []


#: Changes to a sound device file, and what the message says: file, key, value, remedy.
DEVICES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown key": ({"flop": 1e9}, ("flop = 1000000000.0: unknown key", "did you mean 'flops'?")),
    "no speed": ({"flops": 0.0}, ("flops = 0.0: ", "greater than or equal to 1")),
    "text for a number": ({"memory_bytes": "4 GB"}, ("memory_bytes = '4 GB': ", "valid number")),
    "bool for a number": ({"flops": True}, ("flops = True: ", "valid number")),
    "infinity": ({"flops": float("inf")}, ("flops = inf: ", "finite number")),
    "negative overhead": (
        {"step_overhead_s": -0.1},
        ("step_overhead_s = -0.1: ", "greater than or equal to 0"),
    ),
    "power beyond physics": ({"tx_power_dbm": 1e3}, ("tx_power_dbm = 1000.0: ", "equal to 100")),
    "no name": ({"name": ""}, ("name = '': ", "at least 1 character")),
}


@pytest.mark.parametrize("case", DEVICES)
@pytest.mark.parametrize("inline", [False, True], ids=["file", "mapping"])
def test_device_is_refused(
    case: str,
    inline: bool,
    board: Callable[..., Path],
    scenario_file: Callable[..., Path],
    command: Command,
    tmp_path: Path,
) -> None:
    changes, parts = DEVICES[case]
    file = board(**changes)
    scenario = scenario_file({"fleet.preset": BOARD | changes if inline else file.name})
    answer = command("run", scenario, "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    place = "fleet.preset." if inline else f"fleet.preset = 'board.yaml': {file}: "
    for part in (place + parts[0], *parts[1:]):
        assert part in answer.err
    assert not (tmp_path / "out").exists()


def test_missing_keys_of_a_device_are_named(
    command: Command, scenario_file: Callable[..., Path]
) -> None:
    answer = command("validate", scenario_file({"fleet.preset": {"name": "board"}}))
    assert answer.code == 2
    for key in ("memory_bytes", "compute_power_w"):
        assert f"fleet.preset.{key}: missing; give it a value" in answer.err


@pytest.mark.parametrize("speeds", [{}, {"flops": 1e9, "tokens_per_s": 3.0}])
def test_a_device_has_one_speed(
    speeds: dict[str, float], command: Command, scenario_file: Callable[..., Path]
) -> None:
    board = {"name": "board", "memory_bytes": 4e9, "compute_power_w": 5.0, **speeds}
    answer = command("validate", scenario_file({"fleet.preset": board}))
    assert answer.code == 2
    assert "fleet.preset.flops: give flops or tokens_per_s, and only one of them" in answer.err


@pytest.mark.parametrize(
    ("preset", "parts"),
    [
        ("none.yaml", ("'none.yaml': ", "no such file", "`sim calibrate` writes a preset")),
        (7, ("fleet.preset = 7: should be a name of `sim list devices`, a .yaml file",)),
        ([1], ("fleet.preset.0 = 1: should be a valid dictionary",)),
        ([], ("fleet.preset = []: ", "at least 1 item")),
        ([{"preset": "moon"}], ("fleet.preset.0.preset = 'moon': ", "known: ")),
        ([{"preset": "laptop", "share": 0}], ("fleet.preset.0.share = 0: ", "greater than 0")),
        ([{"preset": "none.yaml"}], ("fleet.preset.0.preset = 'none.yaml': ", "no such file")),
        ([{"preset": {"name": "a"}}], ("fleet.preset.0.preset.memory_bytes: missing",)),
        ("scenario.yaml", ("'scenario.yaml': ", "memory_bytes: missing", "seed = 1: unknown key")),
    ],
)
def test_what_is_no_device_is_refused(
    preset: object, parts: tuple[str, ...], command: Command, scenario_file: Callable[..., Path]
) -> None:
    answer = command("validate", scenario_file({"fleet.preset": preset}))
    assert answer.code == 2
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.err


def test_a_path_is_taken_from_the_scenarios_folder(
    board: Callable[..., Path],
    scenario_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = board()
    monkeypatch.chdir(tmp_path.parent)
    for preset in (file.name, f"./{file.name}", str(file)):
        scenario = load_scenario(scenario_file({"fleet.preset": preset}))
        assert scenario.fleet.preset == load_device(file)
    # The command line names files in the same way.
    assert load_scenario(scenario_file(), ["fleet.preset=board.yaml"]) == scenario


def test_the_resolved_scenario_holds_the_device(
    board: Callable[..., Path],
    scenario_file: Callable[..., Path],
    command: Command,
    tmp_path: Path,
) -> None:
    file = board(flops=1.25e-2 * 1e12, step_overhead_s=1e-5)
    answer = command("validate", scenario_file({"fleet.preset": file.name}))
    assert answer.code == 0
    held = yaml.safe_load(answer.out)["fleet"]["preset"]
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert held == {**given, "tokens_per_s": None, "battery_wh": None}
    file.unlink()
    again = tmp_path / "again.yaml"
    again.write_text(answer.out, encoding="utf-8")
    assert command("validate", again).out == answer.out
    slower = load_scenario(again, ["fleet.preset.flops=1e9"]).fleet.preset
    assert not isinstance(slower, str)
    assert (slower.name, slower.flops) == ("board", 1e9)


def test_overhead_adds_to_every_computation(tiny: Tiny, simulate: Simulate) -> None:
    """Per local step the device's overhead, which grows as its speed falls, and nothing else."""
    timeline, devices = {}, {}
    for overhead_s in (0.0, 0.5):
        done = simulate(
            tiny(
                {
                    "fleet.preset": BOARD | {"step_overhead_s": overhead_s},
                    "policy": {"name": "full"},
                    "stop": {"rounds": 2},
                }
            )
        )
        assert verify(done.files).findings == ()
        rows = done.files.table("timeline.csv").query("phase == 'compute'")
        timeline[overhead_s] = rows.set_index(["round", "device"])
        devices[overhead_s] = done.files.table("devices.csv")
    assert devices[0.0]["compute_flops"].equals(devices[0.5]["compute_flops"])
    slowness = BOARD["flops"] / devices[0.0]["compute_flops"].to_numpy()
    bare, laden = timeline[0.0], timeline[0.5].loc[timeline[0.0].index]
    added = (laden["end_s"] - laden["start_s"]) - (bare["end_s"] - bare["start_s"])
    device = bare.index.get_level_values("device").astype(int)
    steps = 2
    np.testing.assert_allclose(added, steps * 0.5 * slowness[device], rtol=1e-9)
    np.testing.assert_allclose(laden["energy_j"], 7.0 * (laden["end_s"] - laden["start_s"]))


def test_verify_sees_another_overhead(tiny: Tiny, simulate: Simulate) -> None:
    done = simulate(tiny({"fleet.preset": BOARD, "stop": {"rounds": 1}}))
    file = done.files.folder / "scenario.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("step_overhead_s: 0.5") == 1
    file.write_text(text.replace("overhead_s: 0.5", "overhead_s: 0.6"), encoding="utf-8")
    findings = verify(open_run(done.files.folder)).findings
    assert any(finding.file == "timeline.csv" for finding in findings)
