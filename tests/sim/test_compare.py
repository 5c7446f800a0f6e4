"""Comparisons against run directories whose crossing times are known."""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from sim.compare import compare, cost_to, parse_target, write_csv
from sim.errors import InputError
from sim.rundir import RunFiles, open_run
from sim.scenario import Scenario, dump_scenario
from sim.sections.course import Target
from sim.target import interpolate
from sim.timeline import CsvTable, Round

LOSS = Target(metric="eval_loss", value=2.0)
MakeRun = Callable[..., RunFiles]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run directory with given (time, loss) evaluations; None is a round without one."""

    def make(
        curve: Sequence[tuple[float, float | None]],
        name: str = "a",
        seed: int = 1,
        metric: Sequence[float] = (),
        estimated: Mapping[str, float] | None = None,
        **sections: Any,
    ) -> RunFiles:
        folder = tmp_path / f"{name}-{seed}"
        folder.mkdir()
        scenario = Scenario.model_validate({"name": name, "seed": seed, **sections})
        (folder / "scenario.yaml").write_text(dump_scenario(scenario), encoding="utf-8")
        (folder / "summary.json").write_text(
            json.dumps({"name": name, "estimated": estimated}), encoding="utf-8"
        )
        with CsvTable(folder, "rounds.csv") as table:
            before = 0.0
            for number, (end_s, loss) in enumerate(curve):
                table.write(
                    Round(
                        number,
                        before,
                        end_s,
                        end_s - before,
                        bytes_up=100 * number,
                        energy_j=0.5 * number,
                        eval_loss=loss,
                        eval_metric=metric[number] if metric else None,
                    )
                )
                before = end_s
        return open_run(folder)

    return make


def crossing_at(time_s: float) -> list[tuple[float, float]]:
    """A straight fall from 3 to 1 that passes 2 at the given time."""
    return [(0.0, 3.0), (2 * time_s, 1.0)]


def test_cost_is_taken_at_the_first_evaluation_that_meets_the_target(make_run: MakeRun) -> None:
    run = make_run([(0, 4.0), (10, 3.0), (20, None), (30, 1.0), (40, 0.5)])
    cost = cost_to(run, LOSS)
    assert cost is not None
    assert (cost.round, cost.time_s) == (3, 30.0)
    # From 3 at 10 s to 1 at 30 s, 2 is passed half-way; the round between was not evaluated.
    assert cost.interpolated_s == 20.0
    assert (cost.bytes_up, cost.energy_j) == (100 + 200 + 300, 0.5 + 1.0 + 1.5)


def test_value_that_is_exactly_the_target_meets_it(make_run: MakeRun) -> None:
    cost = cost_to(make_run([(0, 3.0), (10, 2.0), (20, 1.0)]), LOSS)
    assert cost is not None
    assert (cost.round, cost.interpolated_s) == (1, 10.0)


def test_target_met_before_training_costs_nothing(make_run: MakeRun) -> None:
    cost = cost_to(make_run([(0, 1.5), (10, 1.0)]), LOSS)
    assert cost is not None
    assert (cost.round, cost.time_s, cost.interpolated_s, cost.bytes_up) == (0, 0.0, 0.0, 0)


def test_unreached_target_has_no_cost(make_run: MakeRun) -> None:
    assert cost_to(make_run([(0, 4.0), (10, 2.1)]), LOSS) is None


def test_bits_per_byte_fall_and_accuracy_rises(make_run: MakeRun) -> None:
    values = [0.2, 0.4, 0.8]
    curve = [(0, 3.0), (10, 2.5), (20, 2.2)]
    text = make_run(curve, "text", metric=values[::-1])
    cost = cost_to(text, Target(metric="bits_per_byte", value=0.6))
    assert cost is not None
    assert cost.interpolated_s == pytest.approx(5.0, rel=1e-12)
    classes = make_run(curve, "classes", metric=values, data={"task": "classification"})
    cost = cost_to(classes, Target(metric="accuracy", value=0.6))
    assert cost is not None
    assert cost.interpolated_s == pytest.approx(15.0, rel=1e-12)
    # The loss of a classifier still falls.
    assert cost_to(classes, Target(metric="eval_loss", value=2.5)).round == 1  # type: ignore[union-attr]


@settings(max_examples=100)
@given(
    st.floats(0, 1e6),
    st.floats(1e-3, 1e6),
    st.floats(-50, 50),
    st.floats(1e-3, 50),
    st.floats(0, 1),
    st.booleans(),
)
def test_interpolation_lies_on_the_line(
    start_s: float, length_s: float, low: float, height: float, share: float, rises: bool
) -> None:
    values = (low, low + height) if rises else (low + height, low)
    level = values[0] + share * (values[1] - values[0])
    found = interpolate((start_s, values[0]), (start_s + length_s, values[1]), level)
    # Times and values are rounded where they are large beside their differences.
    slack = 1e-12 * (start_s + length_s) + 1e-12 * length_s * (abs(low) + height) / height
    assert abs(found - (start_s + share * length_s)) <= slack


def test_interval_over_seeds_is_students(make_run: MakeRun) -> None:
    """Mean, and t(0.975, n - 1) s / sqrt(n)."""
    times = [10.0, 14.0, 21.0]
    runs = [make_run(crossing_at(time), seed=seed) for seed, time in enumerate(times)]
    (row,) = compare(runs, LOSS).rows
    assert (row.name, row.runs, row.reached, row.speedup) == ("a", 3, 3, None)
    assert row.time_s is not None
    assert row.time_s.mean == pytest.approx(15.0, rel=1e-12)
    # 4.302652729911275 is the tabulated quantile; the sample variance is (25 + 1 + 36) / 2.
    half_width = 4.302652729911275 * math.sqrt(31.0 / 3)
    assert row.time_s.half_width == pytest.approx(half_width, rel=1e-9)
    assert row.bytes_up is not None
    assert (row.bytes_up.mean, row.bytes_up.half_width) == (100.0, 0.0)


def test_single_run_has_no_interval(make_run: MakeRun) -> None:
    (row,) = compare([make_run(crossing_at(7.0))], LOSS).rows
    assert row.time_s is not None
    assert row.time_s.mean == 7.0
    assert math.isnan(row.time_s.half_width)


def test_speedup_is_paired_by_seed(make_run: MakeRun) -> None:
    """Geometric mean of 2, 4 and 4, and the interval of its logarithm; seed 9 has no partner."""
    slow = {1: 10.0, 2: 20.0, 3: 40.0}
    fast = {3: 10.0, 9: 500.0, 2: 5.0, 1: 5.0}
    runs = [make_run(crossing_at(t), "slow", s) for s, t in slow.items()]
    runs += [make_run(crossing_at(t), "fast", s) for s, t in fast.items()]
    first, second = compare(runs, LOSS).rows
    assert (first.name, first.speedup) == ("slow", None)
    assert (second.name, second.runs, second.reached) == ("fast", 4, 4)
    logs = np.log([2.0, 4.0, 4.0])
    reach = student.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    wanted = np.exp([logs.mean(), logs.mean() - reach, logs.mean() + reach])
    assert second.speedup == pytest.approx(tuple(wanted), rel=1e-12)
    assert second.speedup is not None
    assert second.speedup[0] == pytest.approx(32 ** (1 / 3), rel=1e-12)


def test_groups_that_only_share_a_name_stay_apart(make_run: MakeRun, tmp_path: Path) -> None:
    one = make_run(crossing_at(10.0), "a", 1)
    (tmp_path / "a-1").rename(tmp_path / "kept")
    other = make_run(crossing_at(5.0), "a", 1, policy="full")
    rows = compare([open_run(tmp_path / "kept"), other], LOSS).rows
    assert one.group != other.group
    assert [row.runs for row in rows] == [1, 1]
    assert rows[1].speedup is not None
    assert rows[1].speedup[0] == pytest.approx(2.0, rel=1e-12)


def test_group_that_misses_the_target_has_no_speedup(make_run: MakeRun) -> None:
    runs = [make_run(crossing_at(10.0), "a", seed) for seed in (1, 2)]
    runs += [make_run(crossing_at(5.0), "b", 1), make_run([(0, 3.0), (9, 2.5)], "b", 2)]
    runs += [make_run([(0, 3.0), (9, 2.5)], "c", seed) for seed in (1, 2)]
    first, some, none = compare(runs, LOSS).rows
    assert (first.reached, some.reached, none.reached) == (2, 1, 0)
    assert some.speedup is None
    assert some.time_s is not None
    assert some.time_s.mean == 5.0
    assert (none.time_s, none.bytes_up, none.energy_j, none.speedup) == (None,) * 4


def test_target_comes_from_the_scenarios(make_run: MakeRun) -> None:
    stop = {"target": {"metric": "eval_loss", "value": 2.0}}
    runs = [make_run(crossing_at(10.0), name, stop=stop) for name in ("a", "b")]
    assert compare(runs, None).target == LOSS
    other = {"target": {"metric": "eval_loss", "value": 1.5}}
    for odd in (make_run(crossing_at(10.0), "c", stop=other), make_run(crossing_at(1.0), "d")):
        with pytest.raises(InputError, match=r"no common stop\.target; give --target metric=value"):
            compare([*runs, odd], None)


def test_run_given_twice_is_refused(make_run: MakeRun) -> None:
    run = make_run(crossing_at(10.0))
    with pytest.raises(InputError, match="given twice"):
        compare([run, run], LOSS)


def test_metric_of_another_task_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match=r"--target accuracy=0\.5: .* measures eval_loss and bits"):
        cost_to(make_run(crossing_at(1.0)), Target(metric="accuracy", value=0.5))


def test_target_is_read() -> None:
    assert parse_target("eval_loss=2") == LOSS
    assert parse_target("accuracy=.5") == Target(metric="accuracy", value=0.5)


@pytest.mark.parametrize("text", ["", "eval_loss", "eval_loss=", "eval_loss=low", "a=inf", "a=1=2"])
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected metric=value"):
        parse_target(text)


def test_csv(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(crossing_at(t), "a", s) for s, t in ((1, 10.0), (2, 20.0))]
    runs += [make_run(crossing_at(5.0), "b", 1), make_run([(0, 3.0), (9, 2.5)], "c", 1)]
    result = compare(runs, LOSS)
    write_csv(result, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        a, b, c = csv.DictReader(stream)
    names = ["time_s", "bytes_up", "energy_j", "last"]
    head = ["scenario", "runs", "reached"]
    head += [f"{name}{end}" for name in names for end in ("", "_half_width")]
    assert list(a) == [*head, "speedup", "speedup_low", "speedup_high", "estimated"]
    assert a["estimated"] == "false"
    assert (a["scenario"], a["runs"], a["reached"], a["speedup"]) == ("a", "2", "2", "")
    assert float(a["time_s"]) == 15.0
    assert result.rows[0].time_s is not None
    assert float(a["time_s_half_width"]) == result.rows[0].time_s.half_width
    assert (float(b["time_s"]), b["time_s_half_width"], b["speedup_low"]) == (5.0, "", "")
    assert float(b["speedup"]) == pytest.approx(2.0, rel=1e-12)
    assert [c[name] for name in names] == ["", "", "", "2.5"]
    assert c["speedup"] == ""


def test_command(make_run: MakeRun, command: Callable[..., Any], tmp_path: Path) -> None:
    folders = [make_run(crossing_at(10.0), "slow-by-a-lot", s).folder for s in (1, 2)]
    folders += [make_run(crossing_at(4.0), "fast", s).folder for s in (1, 2)]
    answer = command("compare", *folders, "--target", "eval_loss=2", "--csv", tmp_path / "t.csv")
    assert (answer.code, answer.err) == (0, "")
    for words in ("slow-by-a-lot", "2 of 2", "10.0 ± 0.0", "4.0 ± 0.0", "2.50 [2.50, 2.50]"):
        assert words in answer.out
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").count("\n") == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [("summary.json", "{"), ("summary.json", "[]"), ("scenario.yaml", "name: [")],
)
def test_damaged_run_is_refused(
    name: str, text: str, make_run: MakeRun, command: Callable[..., Any]
) -> None:
    folder = make_run(crossing_at(1.0)).folder
    (folder / name).write_text(text, encoding="utf-8")
    answer = command("compare", folder, "--target", "eval_loss=2")
    assert answer.code == 2
    assert answer.err.startswith(f"sim: {folder}: not the directory of a finished run")
    assert answer.err.count("\n") == 1


def test_table_with_other_columns_is_refused(make_run: MakeRun) -> None:
    run = make_run(crossing_at(1.0))
    (run.folder / "rounds.csv").write_text("round,loss\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="its header must be round,start_s,end_s"):
        run.table("rounds.csv")


def test_groups_of_one_name_are_told_apart_by_what_differs(make_run: MakeRun) -> None:
    runs = [
        make_run(crossing_at(10), seed=1, policy="uniform"),
        make_run(crossing_at(10), seed=2, policy={"name": "uniform", "probability": 0.5}),
        make_run(crossing_at(10), name="other", seed=1),
    ]
    assert [row.name for row in compare(runs, LOSS).rows] == [
        "a policy.probability=None",
        "a policy.probability=0.5",
        "other",
    ]


#: A run without training that is taken to be there in the middle of its second round.
ALONE: dict[str, Any] = {
    "curve": [(0, None), (10, None), (20, None), (30, None)],
    "training": {"timing_only": True},
    "estimated": {"round": 2, "time_s": 20.0, "interpolated_s": 15.0},
}


def test_estimate_stands_for_the_time_without_training(make_run: MakeRun) -> None:
    cost = cost_to(make_run(**ALONE), LOSS)
    assert cost is not None
    assert (cost.round, cost.time_s, cost.interpolated_s) == (2, 20.0, 15.0)
    assert (cost.bytes_up, cost.energy_j) == (100 + 200, 0.5 + 1.0)
    assert cost_to(make_run(**{**ALONE, "estimated": None}, name="never"), LOSS) is None


def test_estimates_are_marked(
    make_run: MakeRun, command: Callable[..., Any], tmp_path: Path
) -> None:
    runs = [make_run(crossing_at(30.0), "trained"), make_run(**ALONE)]
    table = tmp_path / "t.csv"
    answer = command(
        "compare", *(run.folder for run in runs), "--target", "eval_loss=2", "--csv", table
    )
    assert (answer.code, answer.err) == (0, "")
    for words in ("15.0 *", "* estimated by the round model", "2.00"):
        assert words in answer.out
    assert "30.0 *" not in answer.out
    with table.open(newline="", encoding="utf-8") as stream:
        assert [row["estimated"] for row in csv.DictReader(stream)] == ["false", "true"]


def test_estimate_of_another_target_is_refused(make_run: MakeRun) -> None:
    target = {"metric": "eval_loss", "value": 2.0}
    run = make_run(**ALONE, stop={"target": target})
    assert compare([run], None).rows[0].estimated
    other = Target(metric="eval_loss", value=1.5)
    with pytest.raises(
        InputError, match=r"eval_loss=1\.5: .* its estimate is of eval_loss=2; name"
    ):
        compare([run], other)


def test_loss_curve_without_training_is_refused(
    make_run: MakeRun, command: Callable[..., Any], tmp_path: Path
) -> None:
    answer = command("plot", make_run(**ALONE).folder, "-o", tmp_path / "curve.png")
    assert answer.code == 2
    assert "--kind convergence: " in answer.err
    assert "has no losses, as it was run without training" in answer.err
