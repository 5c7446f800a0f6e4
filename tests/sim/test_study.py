"""Variants of one scenario on common seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from fslora.methods import METHODS
from sim.errors import InputError
from sim.study import load_study, run_study

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def study_file(tmp_path: Path, tiny_tree: dict[str, Any]) -> Callable[..., Path]:
    """Write a study of the tiny scenario with some keys changed."""

    def write(**changes: Any) -> Path:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_tree))
        study = {
            "base": "base.yaml",
            "seeds": [4, 7],
            "variants": {
                "all": {"policy": {"name": "full"}, "stop.rounds": 2},
                "few": {"policy": "uniform", "method": "fedit", "stop.rounds": 2},
            },
            **changes,
        }
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(study))
        return file

    return write


def test_every_variant_runs_on_every_seed_and_once(
    study_file: Callable[..., Path], tmp_path: Path
) -> None:
    parts = load_study(study_file(), tmp_path / "out")
    assert [part.folder.name for part in parts] == ["all-4", "all-7", "few-4", "few-7"]
    assert [part.scenario.seed for part in parts] == [4, 7, 4, 7]
    assert parts[2].scenario.method.name == "fedit"
    told: list[tuple[int, str]] = []
    result, failed = run_study(parts, 2, lambda count, text: told.append((count, text)))
    assert failed == {}
    assert [count for count, _ in told] == [1, 2, 3, 4]
    assert [(row.name, row.runs) for row in result.rows] == [("all", 2), ("few", 2)]
    for row, name in zip(result.rows, ("all", "few"), strict=True):
        ends = [
            pd.read_csv(tmp_path / "out" / f"{name}-{seed}" / "rounds.csv")["eval_loss"].iloc[-1]
            for seed in (4, 7)
        ]
        assert row.last is not None
        assert row.last.mean == pytest.approx(sum(ends) / 2, rel=1e-12)
    # What has finished is left as it is.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.csv")}
    again, _ = run_study(parts, 1, lambda *_: None)
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.csv")} == before


def test_a_run_that_fails_does_not_keep_others_from_ending(
    study_file: Callable[..., Path], tmp_path: Path
) -> None:
    parts = load_study(
        study_file(
            seeds=[4],
            variants={
                "good": {"policy": "full", "stop.rounds": 1},
                "bad": {"policy": "full", "stop.rounds": 2, "training.learning_rate": 1e30},
            },
        ),
        tmp_path / "out",
    )
    result, failed = run_study(parts, 2, lambda *_: None)
    assert [row.name for row in result.rows] == ["good"]
    assert list(failed) == [tmp_path / "out" / "bad-4"]
    assert "lower training.learning_rate" in failed[tmp_path / "out" / "bad-4"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"variants": {}}, "variants"),
        ({"variants": {"a b": {}}}, "variants"),
        ({"variants": {"x": {"method": "nobody"}}}, r"variants\.x: .*method\.name = 'nobody'"),
        ({"variants": {"x": {"polcy": 1}}}, r"variants\.x: .*did you mean 'policy'"),
        ({"base": "none.yaml"}, "none.yaml: no such file"),
        ({"speed": 3}, "unknown key"),
    ],
)
def test_bad_studies_are_refused(
    changes: dict[str, Any], message: str, study_file: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_study(study_file(**changes), tmp_path / "out")


def test_study_of_methods_has_them_all(tmp_path: Path) -> None:
    parts = load_study(CONFIGS / "studies" / "methods" / "study.yaml", tmp_path)
    assert {part.scenario.method.name for part in parts} == set(METHODS)
