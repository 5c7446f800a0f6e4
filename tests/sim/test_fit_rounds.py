"""Pilots and the round model fitted to them."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sim.fit_rounds
from optimizer.rounds import Progress
from optimizer.rounds.fit import FITTED
from sim.fit_rounds import fit_rounds, parse_seeds, snippet, write_csv
from sim.load import load_scenario
from sim.pilots import Took, Trial, design, run_pilot
from sim.scenario import Scenario
from sim.system import System, build_system

Make = Callable[..., Scenario]


@pytest.mark.parametrize(("policy", "q"), [({"name": "full"}, 1.0), ({"name": "uniform"}, 0.6)])
def test_a_pilot_trains_what_a_run_trains(policy, q, tiny: Make, simulate: Any) -> None:
    if q < 1:
        policy = {**policy, "probability": q}
    scenario = tiny({"policy": policy, "stop.target.value": 0.1})
    trial = Trial("as the run", np.full(4, scenario.lora.rank), np.full(4, q))
    took = run_pilot(build_system(scenario), trial)
    rounds = simulate(scenario).files.table("rounds.csv")
    assert took.curve[:, 0].tolist() == rounds["round"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(took.curve[:, 2], rounds["eval_loss"], rtol=1e-12)
    assert np.isnan([took.counted, took.rounds]).all()


def test_both_clocks_agree_where_everybody_takes_part(tiny: Make) -> None:
    trial = Trial("all", np.full(4, 16), np.ones(4))
    took = run_pilot(build_system(tiny({"stop.target.value": 2.1})), trial)
    assert took.counted == pytest.approx(took.rounds, rel=1e-12)
    # The line between the two evaluations that enclose the target.
    before, after = took.curve[-2:]
    assert before[2] > 2.1 >= after[2]
    share = (before[2] - 2.1) / (before[2] - after[2])
    assert took.counted == pytest.approx(before[0] + share * (after[0] - before[0]))


def test_the_clock_of_weights_counts_each_round_by_its_weights(tiny: Make) -> None:
    system = build_system(tiny({"stop.target.value": 0.1, "stop.rounds": 2}))
    q = np.array([1.0, 0.5, 0.5, 0.5])
    took = run_pilot(system, Trial("some", np.full(4, 4), q))
    sums = {
        float(np.dot(system.problem.weight / q, [1, *present])) for present in np.ndindex(2, 2, 2)
    }
    for step in np.diff(took.curve[:, 1]):
        assert min(abs(step - each) for each in sums) < 1e-12


def test_a_lost_pilot_ends(tiny: Make) -> None:
    scenario = tiny({"training.learning_rate": 50.0, "training.clip_norm": None})
    took = run_pilot(build_system(scenario), Trial("wild", np.full(4, 16), np.ones(4)))
    assert np.isnan(took.rounds)
    assert len(took.curve) <= 2


def test_design_varies_ranks_and_probabilities(tiny: Make) -> None:
    system = build_system(tiny({"fleet.devices": 30}))
    trials = design(system)
    assert len(trials) == len({trial.label for trial in trials}) == 18
    for trial in trials:
        assert np.all((trial.rank >= 2) & (trial.rank <= 16))
        assert np.all((trial.probability > 0) & (trial.probability <= 1))
        cohort = float(trial.label.split()[1].rstrip(","))
        assert trial.probability.sum() == pytest.approx(cohort, rel=0.05)
    assert any(len(set(trial.rank)) > 1 and np.ptp(trial.probability) > 0.2 for trial in trials)
    assert {trial.label for trial in design(system, quick=True)} < {each.label for each in trials}


def test_design_keeps_to_caps_and_to_what_the_method_trains(tiny: Make) -> None:
    capped = build_system(tiny({"fleet.rank_caps": [2, 6]}))
    for trial in design(capped):
        assert np.all(trial.rank <= capped.problem.rank_cap)
    # A method of one rank leaves the probabilities to vary, each of them once.
    whole = design(build_system(tiny({"method": "fedit", "fleet.devices": 12})))
    assert all(np.all(trial.rank == 16) for trial in whole)
    assert len({trial.probability.tobytes() for trial in whole}) == len(whole) == 7


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """A world whose pilots take exactly the rounds of a model, and a factor per seed."""
    truth = Progress(20.0, 4.0, 0.4)

    def rounds_of(system: System, trial: Trial) -> Took:
        a = system.problem.weight
        rounds = float(
            truth.rounds(a, a**2, trial.rank / system.problem.rank, trial.probability)
        ) * (1 + 0.1 * system.scenario.seed)
        lost = trial.label == "cohort 2.5, k/r 0.125"
        if lost or trial.label == "cohort 2.5, k/r 0.5":
            rounds = float("nan")
        return Took(rounds + 1, rounds, np.empty((0, 3)), lost)

    monkeypatch.setattr(sim.fit_rounds, "run_pilot", rounds_of)
    return truth


def test_the_model_behind_the_pilots_is_found(tiny: Make, known: Progress, tmp_path: Path) -> None:
    scenario, told = tiny({"fleet.devices": 30}), []
    result = fit_rounds(scenario, (1, 2, 3), tell=told.append)
    assert told[-1] == 1.0
    assert len(result.ran) == len(told) == 54
    labels = ["cohort 2.5, k/r 0.5", "cohort 2.5, k/r 0.125"]
    assert [each.trial.label for each in result.missed] == labels * 3
    # The noisiest plan was lost; the next, which kept its loss, may be used.
    noise = {each.trial.label: each.noise for each in result.ran if each.seed == 1}
    order = sorted(noise, key=lambda label: noise[label])
    assert order[-1] == "cohort 2.5, k/r 0.125"
    assert result.max_noise == max(
        each.noise for each in result.ran if each.trial.label == order[-2]
    )
    assert result.scores[0].model == "progress"
    assert result.scores[0].worst < 1e-4
    middling = (1.1 * 1.2 * 1.3) ** (1 / 3)  # the factors have geometric mean one
    found = result.fit.constants
    assert found["base"] == pytest.approx(middling * known.base, rel=1e-3)
    assert found["rank_exponent"] == pytest.approx(known.rank_exponent, rel=1e-3)

    write_csv(result, tmp_path / "pilots.csv")
    with (tmp_path / "pilots.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 54
    for row, each in zip(rows, result.ran, strict=True):
        assert (row["plan"], int(row["seed"])) == (each.trial.label, each.seed)
        if each.reached:
            assert float(row["progress_rounds"]) == pytest.approx(float(row["rounds"]), rel=1e-3)
            assert float(row["counted_rounds"]) == pytest.approx(float(row["rounds"]) + 1)
            assert all(float(row[f"{model}_rounds"]) > 0 for model in FITTED)
        else:
            assert row["rounds"] == row["progress_rounds"] == ""
            assert row["lost"] == str(int(each.trial.label == "cohort 2.5, k/r 0.125"))


@pytest.mark.usefixtures("known")
def test_the_snippet_is_a_scenario_s_own_words(tiny_tree: Any, tiny: Make, tmp_path: Path) -> None:
    scenario = tiny({"fleet.devices": 30})
    result = fit_rounds(scenario, (1, 2))
    text = snippet(scenario, result)
    assert "4 of 36 pilots short of it" in text
    tree = {**tiny_tree, "policy": {**tiny_tree["policy"], **yaml.safe_load(text)["policy"]}}
    file = tmp_path / "with.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    given = load_scenario(file).policy
    assert given.rounds.model == "progress"
    assert given.rounds.rank_exponent == pytest.approx(0.4, rel=1e-3)
    assert given.max_noise is not None
    assert 0 <= result.max_noise - given.max_noise < 0.01


def test_too_few_at_the_target_fail_the_run(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Took(float("nan"), float("nan"), np.empty((0, 3)), True)
    monkeypatch.setattr(sim.fit_rounds, "run_pilot", lambda *_: nothing)
    with pytest.raises(sim.fit_rounds.RunError, match=r"^0 of 8 pilots met the target"):
        fit_rounds(tiny({"fleet.devices": 30}), (1,), quick=True)


def test_the_command_trains_fits_and_writes(
    command: Any, scenario_file: Any, tmp_path: Path
) -> None:
    # Twelve devices, so that the plans differ, and few steps of training.
    scenario = scenario_file(
        {"fleet.devices": 12, "stop.rounds": 8, "stop.target.value": 2.1, "training.steps": 1}
    )
    out, table = tmp_path / "rounds.yaml", tmp_path / "pilots.csv"
    answer = command("fit-rounds", scenario, "--quick", "-o", out, "--csv", table)
    assert (answer.code, answer.err) == (0, "")
    best = yaml.safe_load(out.read_text(encoding="utf-8"))["policy"]["rounds"]
    assert best["model"] in FITTED
    assert best["base"] > 0
    assert best["model"] in answer.out
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert all(0 < float(row["rounds"]) < 8 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "stop.target=null"), "stop.target: missing"),
        (("--set", "stop.target.value=9"), "stop.target.value = 9: met before training"),
        (("--seeds", "1,x"), "--seeds 1,x: expected whole numbers"),
        (("--seeds", "1,1"), "--seeds 1,1: a number is given twice"),
        (("-o", "nowhere/rounds.yaml"), "-o nowhere/rounds.yaml: cannot be written"),
        (("-o", "same", "--csv", "same"), "--csv same: is the model's file"),
    ],
)
def test_refusals(
    arguments: tuple[str, ...], message: str, command: Any, scenario_file: Any
) -> None:
    answer = command("fit-rounds", scenario_file(), "--quick", *arguments)
    assert answer.code == 2
    assert answer.err.startswith(f"sim: {message}")


def test_seeds_are_read_in_order() -> None:
    assert parse_seeds("3, 1,0") == (3, 1, 0)
