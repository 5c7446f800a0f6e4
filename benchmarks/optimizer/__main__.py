"""How good the joint plans are, and how long they take, on the fleets of `instances`.

small    ratio of the joint plan to brute force on 100 fleets each of three and four devices
medium   objective of the other policies over that of the joint plan, all on the same draws, on 20
         fleets each of 20, 100 and 1000 devices; the time of each; and of each ratio below one by
         how many standard errors of the difference, draw by draw, the other policy is better
scale    time and peak memory from a thousand to a million devices
rivals   time of the joint search, of mean field by cvxpy's geometric programming and of Luo's
         problem by SLSQP at 100 and 300 devices

    python -m benchmarks.optimizer [small|medium|scale|rivals ...] [--fleets 20] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.optimizer.brute import brute_force
from benchmarks.optimizer.instances import fleet, regime
from optimizer import Plan, Problem, judge, solve
from optimizer.policies import POLICIES
from optimizer.policies.luo import luo_by_slsqp
from optimizer.policies.mean_field import mean_field_by_dgp
from optimizer.rounds import FloatArray
from optimizer.roundtime import drawn_times

BASELINES = ("full", "uniform", "data-proportional", "statistical", "luo", "mean-field")
SMALL, MEDIUM, RIVALS = (3, 4), (20, 100, 1000), (100, 300)
SCALE = (1_000, 10_000, 100_000, 1_000_000)

#: Seed of the draws that `medium` judges on, which no policy has seen.
JUDGED = 1

#: Fleets that `scale` times: both kinds of link, both rules.
SCALED = (0, 5, 14)


class Row(NamedTuple):
    """One figure of one fleet."""

    suite: str
    devices: int
    number: int
    what: str
    value: float


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """Result and processor seconds of some work, which other processes do not lengthen."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def quantiles(name: str, values: list[float]) -> None:
    """Print how some figures are distributed."""
    low, middle, high, most = np.quantile(values, (0.0, 0.5, 0.9, 1.0))
    print(f"  {name:<28} least {low:.5f}  median {middle:.5f}  p90 {high:.5f}  most {most:.5f}")


def small(fleets: int) -> list[Row]:
    """Compare with brute force; five fleets for each one asked for."""
    rows = []
    for devices in SMALL:
        for number in range(5 * fleets):
            problem = fleet(devices, number)
            plan, spent_s = timed(lambda p=problem: solve(p))
            ratio = plan.objective_s / brute_force(problem).objective_s
            rows += [
                Row("small", devices, number, "joint / brute force", ratio),
                Row("small", devices, number, "joint, s", spent_s),
            ]
        print(f"{devices} devices, {5 * fleets} fleets")
        for what in ("joint / brute force", "joint, s"):
            quantiles(what, [r.value for r in rows if r.devices == devices and r.what == what])
    return rows


def medium(fleets: int) -> list[Row]:
    """Compare with the other policies, judged on the same fresh draws."""
    rows = []
    for devices in MEDIUM:
        for number in range(fleets):
            problem = fleet(devices, number)
            (rank, q), spent_s = timed(lambda p=problem: POLICIES["joint"](p, 0))
            plan = judge(problem, "joint", rank, q, JUDGED)
            noise = plan.certificate.half_width_s / plan.expected_round_s
            rows += [
                Row("medium", devices, number, "joint, s", spent_s),
                Row("medium", devices, number, "half-width", noise),
            ]
            line, judging_s = [], 0.0
            for name in BASELINES:
                begin = time.process_time()
                other = judge(problem, name, *POLICIES[name](problem, 0), JUDGED)
                judging_s = max(judging_s, time.process_time() - begin)
                ratio = other.objective_s / plan.objective_s
                rows.append(Row("medium", devices, number, f"{name} / joint", ratio))
                line.append(f"{name} {ratio:.3f}")
                if ratio < 1:
                    errors = better_by(problem, plan, other)
                    rows.append(Row("medium", devices, number, f"{name} better, errors", errors))
                    line.append(f"({ratio - 1:.1e}, {errors:.1f} errors)")
            rows.append(Row("medium", devices, number, "baseline, s", judging_s))
            print(
                f"{devices:>5} {number:>3} {regime(number):<20} {spent_s:6.2f} s "
                f"baselines to {judging_s:6.2f} s ",
                *line,
                flush=True,
            )
        print(f"{devices} devices, {fleets} fleets")
        whats = (
            "joint, s",
            "baseline, s",
            "half-width",
            *(f"{name} / joint" for name in BASELINES),
        )
        for what in whats:
            quantiles(what, [r.value for r in rows if r.devices == devices and r.what == what])
        errors = [r.value for r in rows if r.devices == devices and r.what.endswith("errors")]
        print(f"  below one: {len(errors)}, by {max(errors, default=0.0):.1f} errors at most")
    return rows


def objectives(problem: Problem, plan: Plan, draws: int) -> FloatArray:
    """Objective (s) of each draw that a plan is judged on, (J,), or of all of them (1,)."""
    if plan.certificate.draws == 1:
        return np.array([plan.objective_s])
    takes_part = problem.takes_part(plan.probability)
    time_s = drawn_times(problem, plan.rank, takes_part, JUDGED, "certificate", draws)
    return np.asarray(plan.rounds * (problem.overhead_s + time_s))


def better_by(problem: Problem, plan: Plan, other: Plan) -> float:
    """Standard errors, on common draws, by which another plan is better, by more than rounding."""
    draws = max(plan.certificate.draws, other.certificate.draws)
    gain = objectives(problem, plan, draws) - objectives(problem, other, draws)
    error = float(gain.std(ddof=1)) / math.sqrt(draws) if len(gain) > 1 else 0.0
    if gain.mean() <= 1e-12 * plan.objective_s:
        return 0.0
    return float(gain.mean()) / error if error else math.inf


def scale(fleets: int) -> list[Row]:  # noqa: ARG001
    """Time the joint search alone, without judging its plan."""
    rows = []
    for devices in SCALE:
        for number in SCALED:
            problem = fleet(devices, number)
            begin = time.perf_counter()
            _, spent_s = timed(lambda p=problem: POLICIES["joint"](p, 0))
            wall_s = time.perf_counter() - begin
            peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            rows.append(Row("scale", devices, number, "joint, s", spent_s))
            print(
                f"{devices:>9} {problem.allocation:<16} {type(problem.link).__name__:<17}"
                f"{spent_s:8.2f} s processor {wall_s:8.2f} s wall   peak {peak_gib:.2f} GiB"
            )
    for number in SCALED:
        first, last = (
            r.value for r in rows if r.number == number and r.devices in (SCALE[0], SCALE[-1])
        )
        exponent = math.log(last / first) / math.log(SCALE[-1] / SCALE[0])
        print(f"fleet {number}: N^{exponent:.2f}")
    return rows


def rivals(fleets: int) -> list[Row]:  # noqa: ARG001
    """Time general solvers on the problems of two baselines."""
    rows = []
    works: dict[str, Callable[..., object]] = {
        "joint": lambda p: POLICIES["joint"](p, 0),
        "mean-field, own dual": lambda p: POLICIES["mean-field"](p, 0),
        "mean-field, DGP by cvxpy": mean_field_by_dgp,
        "luo, own dual": lambda p: POLICIES["luo"](p, 0),
        "luo, SLSQP": luo_by_slsqp,
    }
    for devices in RIVALS:
        # The first fleet on linear links whose rounds are a posynomial, as the programming needs.
        problem = fleet(devices, 2)
        for name, work in works.items():
            try:
                _, spent_s = timed(lambda w=work, p=problem: w(p))
            except ValueError as refusal:
                print(f"{devices:>5}  {name:<28} refused: {refusal}")
                continue
            rows.append(Row("rivals", devices, 2, f"{name}, s", spent_s))
            print(f"{devices:>5}  {name:<28} {spent_s:8.2f} s")
    return rows


SUITES = {"small": small, "medium": medium, "scale": scale, "rivals": rivals}


def main() -> None:
    """Run the suites and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--fleets", type=int, default=20, help="fleets per size (small: times 5)")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"suite is {unknown[0]!r}: give some of {', '.join(SUITES)}")
    rows = []
    for name in options.suites or SUITES:
        print(f"-- {name}")
        rows += SUITES[name](options.fleets)
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(Row._fields)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
