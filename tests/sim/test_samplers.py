"""Runs under every policy, and what a sampler is told of the rounds it draws."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sim.steering
from optimizer import Cohort, Plan, Problem
from optimizer.outcome import Outcome
from optimizer.policies import BIASED, POLICIES
from sim.planning import make_plan
from sim.scenario import Scenario
from sim.sections.policy import PolicyChoice, own_parameters
from sim.steering import Steering
from sim.system import build_system
from sim.verify import verify

Simulate = Callable[[Scenario], Any]
Tiny = Callable[..., Scenario]

NAMES = tuple(Scenario.model_json_schema()["properties"]["policy"]["discriminator"]["mapping"])


def test_scenarios_know_every_policy() -> None:
    assert set(NAMES) == set(POLICIES)


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_the_parameters_of_the_policy(name: str) -> None:
    """Every parameter of a policy can be set in a scenario, and nothing else is passed to it."""
    choice = Scenario.model_validate({"name": "a", "policy": name}).policy
    wanted = list(inspect.signature(POLICIES[name]).parameters.values())[2:]
    given = own_parameters(choice)
    assert set(given) == {each.name for each in wanted}
    for each in wanted:
        assert given[each.name] == each.default
    common = set(PolicyChoice.model_fields) - {"deadline_s"}
    assert not common & set(given)


@pytest.mark.parametrize("name", NAMES)
def test_run_under_every_policy_is_sound(name: str, tiny: Tiny, simulate: Simulate) -> None:
    result = simulate(tiny({"policy": {"name": name}, "stop.rounds": 3}))
    assert verify(result.files).findings == ()
    assert result.summary["plan"]["policy"] == name
    assert (result.summary["plan"]["objective_s"] is None) == (name in BIASED)


class Rotating:
    """One device after the other, at rank 1; remembers what it was told."""

    told: list[Outcome]

    def __init__(self, problem: Problem, plan: Plan, seed: int, **parameters: object) -> None:
        del plan, seed, parameters
        self._devices = problem.devices
        type(self).told = []

    @property
    def queue_s(self) -> float:
        """As many seconds as outcomes."""
        return float(len(self.told))

    def draw(self, round_index: int) -> Cohort:
        one = np.ones(1, dtype=np.int64)
        return Cohort(one * (round_index % self._devices), one, np.ones(1))

    def learn(self, outcome: Outcome) -> None:
        self.told.append(outcome)


def test_sampler_is_told_what_the_files_hold(
    tiny: Tiny, simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim.steering, "make_sampler", Rotating)
    result = simulate(tiny({"policy": "full"}))
    told, files = Rotating.told, result.files
    updates, rounds = files.table("updates.csv"), files.table("rounds.csv")
    assert [outcome.round for outcome in told] == [1, 2, 3]
    assert updates["device"].tolist() == [1, 2, 3]
    assert updates["rank"].tolist() == [1, 1, 1]
    for number, outcome in enumerate(told):
        assert outcome.device.tolist() == [updates["device"][number]]
        assert outcome.loss.tolist() == [updates["loss"][number]]
        assert outcome.update_norm.tolist() == [updates["update_norm"][number]]
        assert outcome.duration_s == pytest.approx(rounds["duration_s"][number + 1], rel=1e-9)
        server_s = build_system(files.scenario).server_s(outcome.rank)
        overhead_s = files.scenario.schedule.overhead_s + server_s
        assert outcome.busy_s == pytest.approx(outcome.duration_s - overhead_s, rel=1e-9)
    # Uploads are of the rank that the sampler chose, not of the plan's.
    assert files.table("plan.csv")["rank"].min() > 1
    assert rounds["queue_s"].isna().tolist() == [True, False, False, False]
    assert rounds["queue_s"].tolist()[1:] == [1.0, 2.0, 3.0]
    assert verify(files).findings == ()
    # Verification tells its sampler the same.
    for mine, theirs in zip(told, Rotating.told, strict=True):
        assert mine.loss.tolist() == theirs.loss.tolist()
        assert mine.busy_s == pytest.approx(theirs.busy_s, rel=1e-9)


def test_only_weights_with_a_probability_are_corrected(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that sends half as often as planned counts twice; in a biased mean it does not."""
    system = build_system(tiny({"policy": "full"}))
    steering = Steering(system, make_plan(system))
    device, weight = np.array([1, 3]), np.array([0.2, 0.8])
    sends = np.array([0.5, 1.0])
    assert steering.corrected(device, weight, sends).tolist() == [0.4, 0.8]
    monkeypatch.setattr(sim.steering, "BIASED", frozenset({"full"}))
    assert steering.corrected(device, weight, sends).tolist() == [0.2, 0.8]
