"""Plans that are made anew on the way, what they know, and that their runs can be verified."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.rounds import ROUND_MODELS, Progress, Tables
from sim.rundir import open_run
from sim.scenario import Scenario
from sim.system import build_system, problem_at
from sim.verify import verify

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

#: Walking devices, and a plan that follows them and what the updates tell.
ADAPTIVE = {
    "policy.replan": {"every": 2, "cost_s": 0.5},
    "policy.knowledge": "estimated",
    "fleet.mobility": {"name": "linear", "speed_m_s": 30.0},
    "stop.rounds": 6,
}


@pytest.fixture(scope="module")
def adaptive(tiny: Tiny, simulate: Simulate) -> Any:
    """A run of six rounds under three plans."""
    return simulate(tiny(ADAPTIVE))


def test_run_under_several_plans_is_sound(adaptive: Any) -> None:
    assert adaptive.summary["plans"] == 3
    assert verify(adaptive.files).findings == ()


def test_equal_runs_under_several_plans_write_equal_files(
    adaptive: Any, tiny: Tiny, simulate: Simulate
) -> None:
    one, other = adaptive.files.folder, simulate(tiny(ADAPTIVE)).files.folder
    for file in one.iterdir():
        if file.is_file() and file.name not in ("host.csv", "summary.json"):
            assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_first_plan_is_whole_and_later_ones_hold_what_changed(adaptive: Any) -> None:
    plan = adaptive.files.table("plan.csv")
    assert plan[plan["round"] == 1]["device"].tolist() == [0, 1, 2, 3]
    assert set(plan["round"]) == {1, 3, 5}
    held = {}
    for _, row in plan.iterrows():
        mine = (row["rank"], row["probability"])
        assert held.get(row["device"]) != mine
        held[row["device"]] = mine


def test_planning_costs_simulated_time_before_its_round(adaptive: Any) -> None:
    timeline = adaptive.files.table("timeline.csv")
    planned = timeline[timeline["phase"] == "plan"]
    assert planned["round"].tolist() == [3, 5]
    assert planned["device"].isna().all()
    assert (planned["end_s"] - planned["start_s"]).tolist() == pytest.approx([0.5, 0.5], rel=1e-9)
    rounds = adaptive.files.table("rounds.csv").set_index("round")
    assert planned["start_s"].tolist() == rounds["start_s"][[3, 5]].tolist()
    np.testing.assert_allclose(rounds["duration_s"][1:], rounds["cohort_s"][1:], rtol=1e-9)


def test_expectation_is_that_of_the_plan_in_force(adaptive: Any) -> None:
    expected = adaptive.files.table("rounds.csv")["expected_s"].tolist()
    assert expected[1] == expected[2] == adaptive.summary["plan"]["expected_round_s"]
    assert expected[3] == expected[4] != expected[2]
    assert expected[5] == expected[6] != expected[4]


def test_log_tells_plans_and_what_they_know(adaptive: Any) -> None:
    log = (adaptive.files.folder / "run.log").read_text(encoding="utf-8")
    assert "round 3: plan 2, by policy.replan.every; rounds of " in log
    assert re.search(r"round 5: norms of [1-4] of 4 devices, .* within a factor of ", log)
    assert re.search(r"rounds \S+ \[\S+, \S+\] of the model's\n", log)


def test_updates_are_the_completed_devices_and_make_the_training_loss(adaptive: Any) -> None:
    updates, rounds = (adaptive.files.table(f"{name}.csv") for name in ("updates", "rounds"))
    for _, row in rounds[1:].iterrows():
        mine = updates[updates["round"] == row["round"]]
        assert len(mine) == row["completed"]
        if len(mine):
            mean = np.average(mine["loss"], weights=mine["weight"])
            assert row["train_loss"] == pytest.approx(mean, rel=1e-12)
    assert (updates["update_norm"] > 0).all()


def rows_of(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def tampered(adaptive: Any, folder: Path, name: str, rows: list[list[str]]) -> set[str]:
    """Files with findings after one of them was replaced."""
    copy = Path(shutil.copytree(adaptive.files.folder, folder / "copy"))
    with (copy / name).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return {finding.file for finding in verify(open_run(copy)).findings}


@pytest.mark.parametrize("change", ["taken out", "doubled", "of another round", "unlikely"])
def test_changed_block_of_the_plan_is_found(change: str, adaptive: Any, tmp_path: Path) -> None:
    rows = rows_of(adaptive.files.folder / "plan.csv")
    last = rows[-1]
    changed = {
        "taken out": rows[:-1],
        "doubled": [*rows, last],
        "of another round": [*rows[:-1], ["6", *last[1:]]],
        "unlikely": [*rows[:-1], [*last[:3], repr(float(last[3]) * 0.9), *last[4:]]],
    }
    assert tampered(adaptive, tmp_path, "plan.csv", changed[change])


@pytest.mark.parametrize("change", ["taken out", "negative"])
def test_changed_update_is_found(change: str, adaptive: Any, tmp_path: Path) -> None:
    rows = rows_of(adaptive.files.folder / "updates.csv")
    changed = {"taken out": rows[:1] + rows[2:], "negative": [*rows[:-1], [*rows[-1][:5], "-1.0"]]}
    assert "updates.csv" in tampered(adaptive, tmp_path, "updates.csv", changed[change])


def test_plan_that_is_due_earlier_or_later_is_found(adaptive: Any) -> None:
    """Another scenario would have made its plans in other rounds."""
    scenario = adaptive.files.scenario
    replan = scenario.policy.replan.model_copy(update={"every": 3})
    other = scenario.model_copy(
        update={"policy": scenario.policy.model_copy(update={"replan": replan})}
    )
    found = verify(type(adaptive.files)(adaptive.files.folder, other, adaptive.files.summary))
    assert {"timeline.csv", "plan.csv"} <= {each.file for each in found.findings}


def test_plan_follows_the_channels(tiny: Tiny) -> None:
    """Devices that walk have other links later, and the first problem again at time zero."""
    system = build_system(tiny(ADAPTIVE))
    start, _ = problem_at(system, 0.0)
    later, state = problem_at(system, 100.0)
    rate = [each.link.rate(1e6) for each in (system.problem, start, later)]
    np.testing.assert_allclose(rate[1], rate[0], rtol=1e-12)
    assert not np.isclose(rate[2], rate[0], rtol=1e-3).any()
    assert not np.isclose(state.distance_m, system.fleet.channel.start.distance_m).any()
    still = build_system(tiny())
    assert problem_at(still, 100.0)[0] is still.problem


def test_drift_makes_a_new_plan(tiny: Tiny, simulate: Simulate, tmp_path: Path) -> None:
    """Plans reckon with the band that lasts; until it comes, rounds take a tenth of the time."""
    steady = {
        "policy": {"name": "full", "replan": {"drift": 0.2}},
        "stop.rounds": 6,
        "radio.bandwidth_hz": 1e4,
    }
    assert simulate(tiny(steady)).summary["plans"] == 1
    band = tmp_path / "band.csv"
    band.write_text("time_s,bandwidth_hz\n0,1e5\n1e9,1e4\n", encoding="utf-8")
    result = simulate(tiny({**steady, "radio.bandwidth_trace": {"file": str(band)}}))
    assert result.summary["plans"] == 2
    log = (result.files.folder / "run.log").read_text(encoding="utf-8")
    assert "round 5: plan 2, by policy.replan.drift; " in log
    # Nothing else can be done: the new plan changes no row.
    assert set(result.files.table("plan.csv")["round"]) == {1}
    assert verify(result.files).findings == ()


def test_oracle_measures_everybody_before_the_clock_starts(tiny: Tiny, simulate: Simulate) -> None:
    result = simulate(tiny({"policy.knowledge": "oracle", "stop.rounds": 1}))
    updates = result.files.table("updates.csv")
    measured = updates[updates["round"] == 0]
    assert measured["device"].tolist() == [0, 1, 2, 3]
    assert measured["weight"].isna().all()
    assert (measured["update_norm"] > 0).all()
    rounds = result.files.table("rounds.csv")
    assert rounds["end_s"].iloc[0] == 0.0
    assert verify(result.files).findings == ()
    # What is measured is not what is trained on.
    blind = simulate(tiny({"stop.rounds": 1}))
    assert blind.summary["eval_loss_first"] == result.summary["eval_loss_first"]
    assert not len(blind.files.table("updates.csv").query("round == 0"))


def test_oracle_without_a_measurement_is_found(
    tiny: Tiny, simulate: Simulate, tmp_path: Path
) -> None:
    result = simulate(tiny({"policy.knowledge": "oracle", "stop.rounds": 1}))
    rows = rows_of(result.files.folder / "updates.csv")
    assert "updates.csv" in tampered(result, tmp_path, "updates.csv", [rows[0], *rows[2:]])


def test_renewal_leaves_nature_and_data_order_as_they_are(
    adaptive: Any, tiny: Tiny, simulate: Simulate
) -> None:
    """Common random numbers: the same devices in the same places, whatever is planned when."""
    fixed = simulate(tiny({**ADAPTIVE, "policy.replan": None, "policy.knowledge": "statistics"}))
    columns = ["weight", "compute_flops", "distance_m", "snr_db", "samples", "x_m", "y_m"]
    mine, theirs = (each.files.table("devices.csv")[columns] for each in (adaptive, fixed))
    assert mine.equals(theirs)
    # Until the first new plan the runs are one and the same.
    for name in ("rounds.csv", "updates.csv"):
        one, other = (each.files.table(name) for each in (adaptive, fixed))
        assert one[one["round"] < 3].equals(other[other["round"] < 3])


@pytest.mark.parametrize("name", ["progress", "sampling", "rank-cost", "smoothness"])
def test_round_models_take_their_constants(name: str, tiny: Tiny) -> None:
    keys = {"base": 31.0, "sampling": 7.0}
    problem = build_system(tiny({"policy.rounds": {"model": name, **keys}})).problem
    assert isinstance(problem.rounds, ROUND_MODELS[name])
    assert (problem.rounds.base, problem.rounds.sampling) == (31.0, 7.0)  # type: ignore[attr-defined]


def test_round_model_is_progress_unless_named(tiny: Tiny) -> None:
    problem = build_system(tiny({"policy.rounds": {"base": 33.0}})).problem
    assert problem.rounds == Progress(base=33.0)
    short = tiny({"policy.rounds": "smoothness"})
    assert short.policy.rounds.model == "smoothness"


def write_tables(file: Path, rows: list[str]) -> Path:
    text = "\n".join(["device,rank,per_probability,fixed", *rows]) + "\n"
    file.write_text(text, encoding="utf-8")
    return file


def test_tables_come_from_a_file(tiny: Tiny, tmp_path: Path) -> None:
    rows = [f"{n},{k},{16 / k},{n}" for n in range(4) for k in range(16, 0, -1)]
    file = write_tables(tmp_path / "tables.csv", rows)
    choice = {"model": "tables", "constant": 5.0, "file": str(file)}
    system = build_system(tiny({"policy.rounds": choice}))
    model = system.problem.rounds
    assert isinstance(model, Tables)
    rounds = system.problem.rounds_of(np.array([16, 8, 4, 2]), np.full(4, 0.5))
    assert rounds == pytest.approx(5.0 + (1 + 2 + 4 + 8) / 0.5 + 6, rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0,1,1.0"], "line 2 is '0,1,1.0': give a device of 0 to 3, a rank of 1 to 16"),
        (["4,1,1.0,1.0"], "line 2 is '4,1,1.0,1.0': give a device of 0 to 3"),
        (["0,1,1.0,1.0"], "has no row of device 1 at rank 1"),
    ],
)
def test_bad_tables_are_refused(
    rows: list[str], words: str, scenario_file: Any, command: Any, tmp_path: Path
) -> None:
    file = write_tables(tmp_path / "tables.csv", rows)
    choice = {"model": "tables", "file": str(file)}
    answer = command("run", scenario_file({"policy.rounds": choice}), "--out", tmp_path / "out")
    assert answer.code == 2
    assert f"policy.rounds.file = '{file}': {words}" in answer.err


def test_summary_tells_nothing_that_is_not_known(adaptive: Any) -> None:
    text = (adaptive.files.folder / "summary.json").read_text(encoding="utf-8")
    plan = json.loads(text)["plan"]
    assert plan["bound_s"] is None
    assert plan["expected_round_s"] > 0
