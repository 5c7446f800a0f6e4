"""Runs without training: the same times, no torch, and a target that is estimated."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sim.run import run
from sim.rundir import open_run
from sim.scenario import Scenario
from tests.sim.conftest import merged

REPOSITORY = Path(__file__).parents[2]

Tiny = Callable[..., Scenario]

SIZES = {
    "training.timing_only": True,
    "data": {"source": "builtin:synthetic", "samples": 8, "length": 32},
}
UNIFORM = {"policy": {"name": "uniform", "probability": 0.7}}
ONE_BY_ONE = {"radio.downlink": "unicast", "radio.allocation": "work-conserving"}

SCHEDULES: dict[str, dict[str, Any]] = {
    "synchronous": {},
    "deadline": {"schedule": {"name": "deadline", "deadline_s": 3.0}},
    "over-selection": {"schedule": {"name": "over-selection", "share": 0.5}},
    "fedbuff": {"schedule": {"name": "fedbuff", "buffer": 2, "concurrency": 3}, **ONE_BY_ONE},
    "fedasync": {"schedule": {"name": "fedasync", "concurrency": 2}, **ONE_BY_ONE},
}


def test_torch_is_never_imported(tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(yaml.safe_dump(merged(tiny_tree, UNIFORM)), encoding="utf-8")
    code = (
        "import atexit, sys\n"
        "from sim.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        f"sys.argv = ['sim', 'run', {str(file)!r}, '--timing-only', '--quiet', "
        f"'--out', {str(tmp_path / 'out')!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rounds"] == 3


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_passes_as_with_training(name: str, tiny: Tiny, tmp_path: Path) -> None:
    changes = {**UNIFORM, **SCHEDULES[name]}
    for out, timing_only in (("trained", False), ("alone", True)):
        run(tiny({**changes, "training.timing_only": timing_only}), tmp_path / out)
    for table in ("timeline.csv", "spectrum.csv", "plan.csv"):
        one, other = (tmp_path / out / table for out in ("trained", "alone"))
        assert one.read_bytes() == other.read_bytes()
    trained, alone = (open_run(tmp_path / out) for out in ("trained", "alone"))
    assert trained.table("rounds.csv")["progress"].isna().all()
    assert alone.table("rounds.csv")["eval_loss"].isna().all()
    assert not (alone.folder / "adapter").exists()


def everybody(rounds: float, **changes: Any) -> dict[str, Any]:
    """Everybody at full rank, with so many rounds to the target: every merge is of weight one."""
    policy = {"name": "full", "rounds": {"model": "sampling", "base": rounds, "sampling": 0.0}}
    target = {"metric": "eval_loss", "value": 2.0}
    return {**SIZES, "policy": policy, "stop": {"rounds": 5, "target": target, **changes}}


def test_everybody_is_there_after_the_rounds_of_the_model(tiny: Tiny, tmp_path: Path) -> None:
    summary = run(tiny(everybody(2.5)), tmp_path / "out")
    rounds = open_run(tmp_path / "out").table("rounds.csv")
    assert summary["plan"]["rounds"] == pytest.approx(2.5, rel=1e-12)
    assert rounds["progress"].tolist() == pytest.approx([n / 2.5 for n in range(6)], rel=1e-12)
    third = rounds.iloc[3]
    middle_s = (third["start_s"] + third["end_s"]) / 2
    estimated = summary["estimated"]
    assert (estimated["round"], estimated["time_s"]) == (3, third["end_s"])
    assert estimated["interpolated_s"] == pytest.approx(middle_s, rel=1e-12)
    assert summary["reached"] is None


def test_stops_where_the_target_is_expected(tiny: Tiny, tmp_path: Path) -> None:
    summary = run(tiny(everybody(2.5, at_target=True)), tmp_path / "out")
    assert (summary["rounds"], summary["estimated"]["round"]) == (3, 3)
    assert summary["simulated_s"] == summary["estimated"]["time_s"]


def test_biased_policies_estimate_nothing(tiny: Tiny, tmp_path: Path) -> None:
    summary = run(tiny({**SIZES, "policy": {"name": "fedcs"}}), tmp_path / "out")
    assert summary["estimated"] is None
    assert open_run(tmp_path / "out").table("rounds.csv")["progress"].isna().all()


def test_the_target_is_expected_after_the_plans_rounds_on_average(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Weights have mean one, so rounds less the weight merged in them have mean zero (Wald).

    Whenever progress has grown by one, another run to the target begins.
    """
    changes = {
        **SIZES,
        "policy": {"name": "uniform", "probability": 0.5, "rounds": {"base": 6.0}},
        "stop": {"rounds": 1500},
        "output": {"timeline": "rounds", "checkpoint_every": None},
    }
    expected = run(tiny(changes), tmp_path / "out")["plan"]["rounds"]
    progress = open_run(tmp_path / "out").table("rounds.csv")["progress"].to_numpy()
    first, needed, merged = 0, [], []
    for number in range(len(progress)):
        if progress[number] - progress[first] >= 1:
            needed.append(number - first)
            merged.append(expected * (progress[number] - progress[first]))
            first = number
    assert len(needed) > 100
    difference = np.array(needed) - np.array(merged)
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / math.sqrt(len(needed))
    # The last merge goes past the target by a part of its weight.
    assert 1 < np.mean(needed) / expected < 1.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"name": "oort"}}, r"timing_only = true: policy oort goes by the losses"),
        ({"policy": {"knowledge": "oracle"}}, r"policy.knowledge = 'oracle' goes by the norms"),
        (
            {"policy": {"knowledge": "estimated", "replan": {"every": 2}}},
            r"policy.knowledge = 'estimated' goes by the norms",
        ),
        ({"training.timing_only": False}, r"data.source = 'builtin:synthetic': has no text"),
    ],
)
def test_what_goes_by_training_is_refused(
    changes: dict[str, Any], message: str, tiny: Tiny
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny({**SIZES, **changes})
