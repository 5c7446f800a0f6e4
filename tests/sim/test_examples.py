"""Example scenarios without training, run as they come along."""

from pathlib import Path

from sim.load import load_scenario
from sim.run import run
from sim.rundir import open_run
from sim.verify import verify

CONFIGS = Path(__file__).parents[2] / "configs"


def test_everything_that_can_fail_does_and_the_run_is_sound(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(load_scenario(CONFIGS / "failures.yaml"), out)
    files = open_run(out)
    timeline = files.table("timeline.csv")
    ends = set(zip(timeline["phase"], timeline["outcome"], strict=True))
    assert {("compute", "dropped"), ("uplink", "lost"), ("uplink", "cancelled")} <= ends
    assert "wait" in set(timeline["phase"])  # for the server to be back
    capacity_j = 0.08 * 3600
    spent = files.table("devices.csv")["energy_j"]
    assert (spent <= capacity_j * (1 + 1e-9)).all()
    assert (spent >= capacity_j * (1 - 1e-9)).any()
    assert verify(files).findings == ()


def test_a_thousand_devices_are_simulated_until_the_target_is_expected(tmp_path: Path) -> None:
    summary = run(load_scenario(CONFIGS / "timing.yaml", ["stop.rounds=40"]), tmp_path / "out")
    assert summary["devices"] == 1000
    assert summary["eval_loss_last"] is None
    plan, estimated = summary["plan"], summary["estimated"]
    # Weights sum to one in the mean over cohorts: the rounds of the round model are needed.
    assert 0.5 < estimated["round"] / plan["rounds"] < 2
