"""Which policy reaches the target first when the training is real?

`configs/studies/policies.yaml`, thirty unlike phones, trains under every policy until the held-out
loss is 1.256 (the base model has 1.300), on three uplink bands: wide, so that rounds consist of
computing; balanced; and narrow, so that they consist of sending. The round model was fitted to
pilots on other seeds. A run that is not there after five times what the joint policy plans for, or
more, is stopped, and its time is then a lower bound.

    python -m benchmarks.time_to_target OUT [--seeds 1 2 3 4 5] [--jobs 2] [--csv FILE]

Runs that OUT has are not made again, so an interrupted study goes on. Printed is, for each band and
policy, the time to the target over that of the joint policy (geometric mean over seeds, paired, and
its 95 % Student interval), and where it comes from: measured = planned x rounds x round time, with
the ratio of the objectives that were planned, and how much further the rounds and the mean round
time were off their predictions than they were for joint. Policies with biased cohorts have no
predictions of rounds.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from optimizer.policies import POLICIES
from sim.compare import cost_to
from sim.load import load_scenario
from sim.run import run
from sim.rundir import open_run

SCENARIO = Path(__file__).parent.parent / "configs" / "studies" / "policies.yaml"

#: Uplink bands (Hz), and when a run is given up (s).
VARIANTS: Mapping[str, tuple[float, float]] = {
    "compute-bound": (5e6, 350.0),
    "balanced": (4e5, 600.0),
    "communication-bound": (8e4, 1300.0),
}

#: While the devices' norms are taken for equal, data-proportional is the same as statistical.
STUDIED = tuple(name for name in POLICIES if name != "data-proportional")


class Seen(NamedTuple):
    """One run.

    Parameters
    ----------
    variant, policy : str
        What was run.
    seed : int
        Root seed.
    reached : bool
        Whether it met the target.
    time_s : float
        Simulated time to the target, else until it was given up.
    rounds : float
        Rounds in that time.
    planned_s, planned_rounds, planned_round_s : float
        Objective, rounds and round time of its plan; nan where unknown.
    noise : float
        ``sum_n A_n (r/k_n) / q_n`` of the plan; nan where cohorts are not drawn independently.
    """

    variant: str
    policy: str
    seed: int
    reached: bool
    time_s: float
    rounds: float
    planned_s: float
    planned_rounds: float
    planned_round_s: float
    noise: float


def overrides(variant: str, policy: str, seed: int) -> tuple[str, ...]:
    """Changes to the scenario that make one run."""
    band_hz, last_s = VARIANTS[variant]
    return (
        f"name={variant}-{policy}",
        f"seed={seed}",
        f"radio.bandwidth_hz={band_hz}",
        f"policy.name={policy}",
        f"stop.simulated_s={last_s}",
        "stop.at_target=true",
    )


def make(out: Path, variant: str, policy: str, seed: int) -> str:
    """Make one run; says how it went."""
    folder = _folder(out, variant, policy, seed)
    if folder.exists():
        shutil.rmtree(folder)  # of a run that was cut off
    summary = run(load_scenario(SCENARIO, overrides(variant, policy, seed)), folder)
    reached = summary["reached"]
    told = "not reached" if reached is None else f"{reached['interpolated_s']:.1f} s"
    return f"{variant}, {policy}, seed {seed}: {told}, {summary['rounds']} rounds"


def read(out: Path, variant: str, policy: str, seed: int) -> Seen:
    """What a finished run shows."""
    files = open_run(_folder(out, variant, policy, seed))
    target, plan = files.scenario.stop.target, files.summary["plan"]
    assert target is not None
    cost, rounds = cost_to(files, target), files.table("rounds.csv")
    last = rounds.iloc[-1]
    if cost is None:
        time_s, counted = float(last["end_s"]), float(last["round"])
    else:
        # Rounds in proportion to the time: the target is met between two evaluations.
        time_s = cost.interpolated_s
        counted = cost.round * time_s / cost.time_s
    nan = math.nan
    return Seen(
        variant,
        policy,
        seed,
        cost is not None,
        time_s,
        counted,
        plan["objective_s"] or nan,
        plan["rounds"] or nan,
        plan["expected_round_s"] or nan,
        plan["noise"] or nan,
    )


def _folder(out: Path, variant: str, policy: str, seed: int) -> Path:
    return out / variant / f"{policy}-{seed}"


def ratio(logs: Iterable[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios from their logarithms, with its 95 % Student interval."""
    values = np.array(list(logs))
    mean = values.mean()
    if len(values) < 2:
        return math.exp(mean), math.nan, math.nan
    reach = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def report(seen: Iterable[Seen]) -> None:
    """Print every policy against joint, band by band."""
    known = {(one.variant, one.policy, one.seed): one for one in seen}
    for variant in VARIANTS:
        ours = {s: one for (v, p, s), one in known.items() if v == variant and p == "joint"}
        if not ours:
            continue
        print(f"\n{variant}, {VARIANTS[variant][0]:g} Hz")
        print(
            f"{'policy':<20} reached  time (s)   noise   over joint              planned  rounds  "
            "round time"
        )
        for policy in STUDIED:
            theirs = {s: one for (v, p, s), one in known.items() if v == variant and p == policy}
            common = sorted(ours.keys() & theirs.keys())
            if not common:
                continue
            pairs = [(theirs[s], ours[s]) for s in common]
            met = sum(other.reached for other, _ in pairs)
            middle, low, high = ratio(math.log(a.time_s / b.time_s) for a, b in pairs)
            measured = f"{middle:5.2f} [{low:5.2f}, {high:6.2f}]"
            if met < len(pairs) or not all(b.reached for _, b in pairs):
                measured = f"{middle:5.2f} or more" if met < len(pairs) else "joint missed"
            line = (
                f"{policy:<20} {met} of {len(pairs)}  "
                f"{np.exp(np.mean([math.log(a.time_s) for a, _ in pairs])):8.1f}  "
                f"{np.median([a.noise for a, _ in pairs]):6.2f}   {measured:<22}"
            )
            if all(a.reached and b.reached and a.planned_s == a.planned_s for a, b in pairs):
                planned, rounds, lasted = (
                    math.exp(np.mean([math.log(of(a) / of(b)) for a, b in pairs]))
                    for of in (_planned_s, _rounds_missed, _round_s_missed)
                )
                line += f"  {planned:6.2f}  {rounds:6.2f}  {lasted:6.2f}"
            print(line)


def _planned_s(one: Seen) -> float:
    return one.planned_s


def _rounds_missed(one: Seen) -> float:
    return one.rounds / one.planned_rounds


def _round_s_missed(one: Seen) -> float:
    return one.time_s / one.rounds / one.planned_round_s


def main() -> None:
    """Make the runs that are missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--policies", nargs="+", default=STUDIED, choices=STUDIED)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, of a thread each")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    wanted = list(itertools.product(options.seeds, VARIANTS, options.policies))
    missing = [
        (variant, policy, seed)
        for seed, variant, policy in wanted
        if not (_folder(options.out, variant, policy, seed) / "summary.json").exists()
    ]
    # Simulated time does not depend on the host's, so runs may share it.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(options.jobs) as pool:
        made = [pool.submit(make, options.out, *one) for one in missing]
        for number, one in enumerate(as_completed(made), 1):
            print(f"{number} of {len(made)}  {one.result()}", flush=True)
    seen = [read(options.out, variant, policy, seed) for seed, variant, policy in wanted]
    report(seen)
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(Seen._fields)
            writer.writerows(seen)


if __name__ == "__main__":
    main()
