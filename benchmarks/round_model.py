"""Do the round models predict rounds of plans that they were not fitted to?

The quickstart's fleet of thirty trains under plans of known ranks and probabilities until the
held-out loss is 1.16, rounds counted as `sim.pilots` does. Half of the plans fit the models, the
others are predicted: among these are mixed ranks, mixed probabilities, and a plan of the joint
policy. A few more show where training is lost, and are fitted by no model. Printed are the errors
per model, each plan's of the geometric mean over seeds; those of leaving out one plan of all; and
those of single runs on a seed that the fit has not seen. Two rows are there to compare with: no
model, the same rounds for every plan, and the default constants.

    python -m benchmarks.round_model PILOTS.csv [--seeds 1 2 3]

Pilots that the file has are not run again, so an interrupted run goes on. The committed file lacks
a few seeds of the costlier plans.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer.rounds import Progress, RoundModel
from optimizer.rounds.fit import Fit, Pilot, cross_validate, fit
from sim.load import load_scenario
from sim.pilots import Took, Trial, run_pilot
from sim.system import System, build_system

SCENARIO = Path(__file__).parent.parent / "configs" / "quickstart.yaml"
OVERRIDES = ("training.threads=1", "stop.rounds=80")
DEVICES = 30
COLUMNS = (
    "plan",
    "use",
    "seed",
    "cohort",
    "mean_rank",
    "noise",
    "counted_rounds",
    "rounds",
)

_I = np.arange(DEVICES)
_EVEN, _THIRD = _I % 2 == 0, _I % 3 == 0
#: Probabilities over a decade, in an order unlike that of the data, and who is where in it.
_DECADE = np.geomspace(0.3, 0.03, DEVICES)[_I * 7 % DEVICES]
_FIFTH = np.argsort(np.argsort(-_DECADE)) * 5 // DEVICES
#: What the joint policy planned for seed 1 by a first fit.
_JOINT_RANK = np.full(DEVICES, 16)
_JOINT_RANK[:15] = 12, 8, 16, 6, 9, 5, 9, 9, 5, 7, 10, 10, 16, 6, 6
_JOINT_RANK[15:] = 6, 8, 6, 3, 5, 1, 10, 16, 6, 8, 5, 9, 7, 4, 11
_JOINT_PROBABILITY = np.full(DEVICES, 0.02)
_JOINT_PROBABILITY[[2, 12, 20, 22]] = 0.05631, 0.04055, 0.3429, 0.04022


def _trial(label: str, rank: object, probability: object) -> Trial:
    ranks = np.broadcast_to(np.asarray(rank, dtype=np.int64), DEVICES)
    return Trial(label, ranks, np.broadcast_to(np.asarray(probability, dtype=np.float64), DEVICES))


FITTED_TO = (
    _trial("q 0.1, k 16", 16, 0.1),
    _trial("q 0.05, k 4", 4, 0.05),
    _trial("q 0.3, k 4", 4, 0.3),
    _trial("q 0.05, k 16", 16, 0.05),
    _trial("q 0.03, k 8", 8, 0.03),
    _trial("q 0.1, k 4", 4, 0.1),
    _trial("q 0.06, k 8", 8, 0.06),
    _trial("q 0.2, k 16 or 2", np.where(_EVEN, 16, 2), 0.2),
    _trial("q 0.3 or 0.05, k 2 or 16", np.where(_EVEN, 2, 16), np.where(_EVEN, 0.3, 0.05)),
)
HELD_OUT = (
    _trial("q 0.2, k 8", 8, 0.2),
    _trial("q 0.07, k 4", 4, 0.07),
    _trial("q 0.05, k 16 or 2", np.where(_EVEN, 16, 2), 0.05),
    _trial("joint", _JOINT_RANK, _JOINT_PROBABILITY),
    _trial("q 0.035, k 16", 16, 0.035),
    _trial("q 0.04, k 6", 6, 0.04),
    _trial("q 0.3 to 0.03, k 16", 16, _DECADE),
    _trial("q 0.3 to 0.03, k 16 to 4", np.array([16, 12, 8, 6, 4])[_FIFTH], _DECADE),
    _trial("q 0.3 to 0.03, k 1 to 16", np.array([1, 2, 4, 8, 16])[_FIFTH], _DECADE),
    _trial("q 0.15, k 2", 2, 0.15),
    _trial("q 0.3 or 0.03, k 8, thirds", 8, np.where(_THIRD, 0.3, 0.03)),
)
EDGE = (
    _trial("q 0.1, k 2", 2, 0.1),
    _trial("q 0.1, k 1", 1, 0.1),
    _trial("q 0.07, k 1", 1, 0.07),
)
USES = {"fit": FITTED_TO, "held out": HELD_OUT, "edge": EDGE}


def noise(weight: NDArray[np.float64], trial: Trial, rank: int) -> float:
    """``sum_n A_n / (x_n q_n)`` of a plan, at equal gradient norms."""
    return float(np.sum(weight**2 * rank / (trial.rank * trial.probability)) / weight.sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then fit and predict."""
    parser = argparse.ArgumentParser(description="round models on plans left out of their fit")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args(arguments)
    known = _read(options.file)
    systems = {
        seed: build_system(load_scenario(SCENARIO, (*OVERRIDES, f"seed={seed}")))
        for seed in options.seeds
    }
    for seed, system in systems.items():
        for use, trials in USES.items():
            for trial in trials:
                if (trial.label, seed) not in known:
                    took = run_pilot(system, trial)
                    known[trial.label, seed] = took.counted, took.rounds
                    _write(options.file, system, trial, use, took)
                    print(f"{trial.label}, seed {seed}: {took.rounds:.1f} rounds", flush=True)
    for count, name in ((1, "rounds"), (0, "counted rounds")):
        print(f"\n{name}")
        fitted_to, held_out = (
            [
                _pilot(system, trial, known[trial.label, seed][count])
                for seed, system in systems.items()
                for trial in trials
                if math.isfinite(known[trial.label, seed][count])
            ]
            for trials in (FITTED_TO, HELD_OUT)
        )
        report(fitted_to, held_out)


def report(fitted_to: Sequence[Pilot], held_out: Sequence[Pilot]) -> None:
    """Print how well each model predicts."""
    everything = [*fitted_to, *held_out]
    print(f"{len(fitted_to)} pilots fitted to, {len(held_out)} held out")
    for label, model in (("none", Progress(1, 0, 0)), ("default", Progress())):
        # Nothing but the factors of the seeds is fitted.
        seen = Fit(model, _factors(model, fitted_to), np.zeros(0), {})
        print(f"{label}: held out {_sizes(seen.errors(held_out))}")
    for score in cross_validate(everything):
        part, whole = fit(score.model, fitted_to), fit(score.model, everything, resamples=200)
        print(
            f"{score.model}: held out {_sizes(part.errors(held_out))}; one plan left out "
            f"{_sizes(score.error)}; unseen seed {_sizes(_unseen_seed(score.model, everything))}"
        )
        print(f"    fitted to half {_digits(part.constants)}, to all {_digits(whole.constants)}")
        for name, (low, high) in whole.interval.items():
            print(f"    {name}: {low:.3g} to {high:.3g} in nine of ten")
        for plan, value in part.errors(held_out).items():
            print(f"    {plan}: {value:+.1%}")


def _factors(model: RoundModel, pilots: Sequence[Pilot]) -> dict[int, float]:
    """Best factor of each seed for a given model."""
    bare = Fit(model, {}, np.zeros(0), {})
    ratio = np.log([pilot.rounds for pilot in pilots]) - np.log(bare.predict(pilots))
    return {
        seed: float(np.exp(ratio[[pilot.group == seed for pilot in pilots]].mean()))
        for seed in {pilot.group for pilot in pilots}
    }


def _unseen_seed(name: str, pilots: Sequence[Pilot]) -> dict[str, float]:
    """Errors of single runs by fits to the other seeds, with a factor by the seed's other runs."""
    errors = {}
    for seed in sorted({pilot.group for pilot in pilots}):
        here = [pilot for pilot in pilots if pilot.group == seed]
        model = fit(name, [pilot for pilot in pilots if pilot.group != seed]).model
        for pilot in here:
            factor = _factors(model, [each for each in here if each is not pilot])
            seen = Fit(model, factor, np.zeros(0), {})
            errors[f"{pilot.plan}, seed {seed}"] = seen.errors([pilot])[pilot.plan]
    return errors


def _sizes(error: Mapping[str, float]) -> str:
    size = np.abs(list(error.values()))
    return f"{np.median(size):.1%} median, {size.max():.1%} at worst"


def _digits(constants: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in constants.items())


def _read(file: Path) -> dict[tuple[str, int], tuple[float, float]]:
    if not file.exists():
        with file.open("x", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerow(COLUMNS)
    with file.open(newline="", encoding="utf-8") as stream:
        return {
            (row["plan"], int(row["seed"])): (
                float(row["counted_rounds"] or math.nan),
                float(row["rounds"] or math.nan),
            )
            for row in csv.DictReader(stream)
        }


def _write(file: Path, system: System, trial: Trial, use: str, took: Took) -> None:
    with file.open("a", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow(
            (
                trial.label,
                use,
                system.scenario.seed,
                f"{trial.probability.sum():.4g}",
                f"{trial.rank.mean():.4g}",
                f"{noise(system.problem.weight, trial, system.problem.rank):.4g}",
                *(
                    "" if math.isnan(each) else f"{each:.4f}"
                    for each in (took.counted, took.rounds)
                ),
            )
        )


def _pilot(system: System, trial: Trial, rounds: float) -> Pilot:
    problem = system.problem
    weight = problem.weight
    return Pilot(
        trial.label,
        system.scenario.seed,
        weight,
        weight**2 / weight.sum(),
        trial.rank / problem.rank,
        trial.probability,
        rounds,
    )


if __name__ == "__main__":
    main()
