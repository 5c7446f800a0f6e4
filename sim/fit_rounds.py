"""A round model for a scenario, from pilots on its own data, model and fleet."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from optimizer.rounds.fit import Fit, NotToldError, Pilot, Score, cross_validate, fit, without_model
from sim.errors import InputError, RunError
from sim.pilots import Took, Trial, design, run_pilot
from sim.scenario import Scenario
from sim.show import blank_table, print_table
from sim.system import System, build_system

#: Bootstrap samples of the constants' intervals.
_RESAMPLES = 200


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """One pilot that was run.

    Parameters
    ----------
    trial, seed
        Its plan and root seed.
    took
        How long it took.
    noise
        ``sum A (r/k) / q`` of the plan at equal gradient norms.
    """

    trial: Trial
    seed: int
    took: Took
    noise: float

    @property
    def reached(self) -> bool:
        """Whether it met the target."""
        return math.isfinite(self.took.rounds)


@dataclass(frozen=True, slots=True, eq=False)
class RoundFit:
    """What the pilots say.

    Parameters
    ----------
    ran
        All pilots; those that did not meet the target are fitted by no model.
    scores
        Held-out errors of each model, the best first.
    fit
        The best model, fitted to all pilots that met the target.
    none
        Errors if every plan is said to take what the others took.
    """

    ran: tuple[Ran, ...]
    scores: tuple[Score, ...]
    fit: Fit
    none: Score

    @property
    def missed(self) -> tuple[Ran, ...]:
        """Pilots that did not meet the target."""
        return tuple(each for each in self.ran if not each.reached)

    @property
    def max_noise(self) -> float:
        """Noise up to which plans were tried and no pilot was lost; nan if there is none."""
        lost = min((each.noise for each in self.ran if each.took.lost), default=math.inf)
        return max((each.noise for each in self.ran if each.noise < lost), default=math.nan)


def fit_rounds(
    scenario: Scenario,
    seeds: Sequence[int],
    quick: bool = False,
    tell: Callable[[float], None] = lambda _: None,
) -> RoundFit:
    """Run pilots of a scenario and fit the round models to them.

    Parameters
    ----------
    scenario
        With a `stop.target` to count rounds to; pilots give up after `stop.rounds`.
    seeds
        Root seeds; every plan is tried on each.
    quick
        Whether to try no more plans than a fit needs.
    tell
        Called as it goes on with the share that is done.

    Raises
    ------
    InputError
        If the scenario has no target, or cannot be built.
    RunError
        If too few pilots met the target to fit a model.
    """
    if scenario.stop.target is None:
        raise InputError("stop.target: missing; give what the rounds are to be counted to")
    trials = design(build_system(scenario), quick)
    ran: list[Ran] = []
    pilots: list[Pilot] = []
    for seed in seeds:
        system = build_system(scenario.model_copy(update={"seed": seed}))
        for trial in trials:
            problem = system.problem
            # In a pilot everybody who is sampled completes.
            noise = problem.noise(trial.rank, trial.probability / problem.completion)
            ran.append(Ran(trial, seed, run_pilot(system, trial), noise))
            if ran[-1].reached:
                pilots.append(_pilot(system, ran[-1]))
            tell(len(ran) / (len(trials) * len(seeds)))
    try:
        scores = cross_validate(pilots)
        best = fit(scores[0].model, pilots, _RESAMPLES, scenario.seed)
    except NotToldError as error:
        raise RunError(
            f"{len(pilots)} of {len(ran)} pilots met the target: {error}; raise stop.rounds or "
            "choose an easier stop.target.value"
        ) from None
    return RoundFit(tuple(ran), scores, best, without_model(pilots))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a list such as `1,2,3`.

    Raises
    ------
    InputError
        If it is not a list of unlike whole numbers from 0 up.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) < 2**63 for word in words):
        raise InputError(
            f"--seeds {text}: expected whole numbers with commas between, such as 1,2,3"
        )
    found = tuple(map(int, words))
    if len(set(found)) < len(found):
        raise InputError(f"--seeds {text}: a number is given twice; keep one")
    return found


def snippet(scenario: Scenario, result: RoundFit) -> str:
    """The fitted model as YAML that a scenario can take over."""
    target, best, found = scenario.stop.target, result.scores[0], result.fit
    assert target is not None
    plans, seeds = len(best.error), len({each.seed for each in result.ran})
    lines = [
        f"# Rounds of {scenario.name} to {target.metric} {target.value:g}: {plans} plans, {seeds} "
        f"seeds, {len(result.missed)} of {len(result.ran)} pilots short of it.",
        f"# Error on plans left out of the fit: {best.median:.1%} median, {best.worst:.1%} at "
        f"worst; {result.none.median:.1%} and {result.none.worst:.1%} without a model.",
        *(
            f"# {name}: {low:.3g} to {high:.3g} in nine of ten fits to plans and seeds drawn again."
            for name, (low, high) in found.interval.items()
        ),
    ]
    constants = {name: float(f"{value:.4g}") for name, value in found.constants.items()}
    policy: dict[str, Any] = {"rounds": {"model": best.model, **constants}}
    if math.isfinite(result.max_noise):
        lost = sum(each.took.lost for each in result.ran)
        lines.append(
            f"# Training was lost in {lost} pilots, in none of noise up to {result.max_noise:.3g}; "
            "plans noisier than this were not tried or are not safe."
        )
        policy["max_noise"] = math.floor(result.max_noise * 100) / 100
    tree = {"policy": policy}
    return "\n".join(lines) + "\n" + yaml.safe_dump(tree, sort_keys=False)


def write_csv(result: RoundFit, file: Path) -> None:
    """Write every pilot, with what each model says of it when fitted to all other plans.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    models = [score.model for score in result.scores]
    said = zip(*(score.predicted for score in result.scores), strict=True)
    head = ["plan", "seed", "cohort", "mean_rank", "noise", "lost", "counted_rounds", "rounds"]
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow([*head, *(f"{model}_rounds" for model in models)])
            for each in result.ran:
                trial, took = each.trial, each.took
                row = [trial.label, each.seed, trial.probability.sum(), trial.rank.mean()]
                row += [each.noise, int(took.lost)]
                if each.reached:
                    row += [took.counted, took.rounds, *map(float, next(said))]
                else:
                    row += [""] * (2 + len(models))
                writer.writerow(row)
    except OSError as error:
        raise InputError(f"--csv {file}: cannot be written ({error.strerror})") from None


def write_snippet(text: str, file: Path) -> None:
    """Write what `snippet` made.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"-o {file}: cannot be written ({error.strerror})") from None


def check_places(out: Path | None, table: Path | None) -> None:
    """Refuse files that cannot be written before minutes are spent on pilots.

    Raises
    ------
    InputError
        If a file is a folder, in none, or given twice.
    """
    if out is not None and out == table:
        raise InputError(f"--csv {table}: is the model's file; name another")
    for option, file in (("-o", out), ("--csv", table)):
        if file is not None and (file.is_dir() or not file.parent.is_dir()):
            raise InputError(
                f"{option} {file}: cannot be written; name a file in a folder that exists"
            )


def show(scenario: Scenario, result: RoundFit) -> None:
    """Print how each model predicts, and which pilots missed the target."""
    table = blank_table(
        f"{scenario.name}: error on plans left out of the fit, over {len(result.scores[0].error)} "
        "plans",
        "model",
        "median (%)",
        "rms (%)",
        "worst (%)",
    )
    for score in (*result.scores, result.none):
        table.add_row(
            score.model,
            f"{score.median * 100:.1f}",
            f"{score.rms * 100:.1f}",
            f"{score.worst * 100:.1f}",
        )
    print_table(table)
    if result.missed:
        table = blank_table(
            f"not at the target after {scenario.stop.rounds} rounds", "plan", "seed", "noise", ""
        )
        for each in result.missed:
            lost = "lost" if each.took.lost else ""
            table.add_row(each.trial.label, f"{each.seed}", f"{each.noise:.2f}", lost)
        print_table(table)


def _pilot(system: System, ran: Ran) -> Pilot:
    """What a fit needs to know of a pilot."""
    problem = system.problem
    return Pilot(
        ran.trial.label,
        ran.seed,
        problem.weight,
        # In a pilot everybody who is sampled completes.
        problem.variance * problem.completion,
        ran.trial.rank / problem.rank,
        ran.trial.probability,
        ran.took.rounds,
    )
