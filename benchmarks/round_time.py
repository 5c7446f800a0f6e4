"""Is the expected round time, predicted before any cohort is drawn, that of the simulated rounds?

The quickstart's fleet runs under its joint plan, without training, until the standard error of the
mean round time is 0.7 % of it: for every rule that shares the band, and for every kind of link.
Printed are rounds, predicted and simulated mean, and their difference in percent and in standard
errors; a prediction holds when it is within 3 standard errors plus 1 %.

    python -m benchmarks.round_time [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sim.dispatch import Dispatcher
from sim.load import load_scenario
from sim.planning import make_plan
from sim.predict import foretell
from sim.schedules.rounds import draw
from sim.steering import Steering
from sim.system import System, build_system
from wireless.spectrum import RULES

SCENARIO = Path(__file__).parent.parent / "configs" / "quickstart.yaml"

#: Kinds of link by the scenario's words.
LINKS = {
    "nr, ergodic fading": (),
    "nr, constant": ("radio.fading=none",),
    "shannon, ergodic fading": ("radio.modulation=shannon",),
    "link adaptation, ergodic fading": ("radio.modulation=link-adaptation",),
    "nr, power control": ("radio.power_control={}",),
}
ERROR, FEWEST, MOST = 0.007, 200, 60_000


class Row(NamedTuple):
    """One rule on one kind of link."""

    rule: str
    link: str
    rounds: int
    predicted_s: float
    simulated_s: float
    error_s: float

    @property
    def holds(self) -> bool:
        """Whether the prediction is within 3 standard errors plus 1 %."""
        away_s = abs(self.predicted_s - self.simulated_s)
        return away_s <= 3 * self.error_s + 0.01 * self.simulated_s


def simulate(system: System) -> tuple[float, float, float, int]:
    """Predicted and simulated mean round time, its standard error (s), and rounds."""
    plan = make_plan(system)
    dispatcher, steering = Dispatcher(system), Steering(system, plan)
    fixed_s = system.broadcast_s + system.scenario.schedule.overhead_s
    now_s, total, square, error_s = 0.0, 0.0, 0.0, math.inf
    for round_index in itertools.count(1):
        start_s = dispatcher.first_chance(now_s)
        assert start_s is not None
        heard_s = start_s + system.broadcast_s
        _, batch = draw(system, steering, dispatcher, round_index, start_s, heard_s)
        lasted_s = fixed_s + foretell(system, batch, system.band_hz(start_s)).closed_after_s
        dispatcher.came_back(batch.device, np.zeros(len(batch)))
        now_s = start_s + lasted_s
        total, square = total + lasted_s, square + lasted_s**2
        mean_s = total / round_index
        if round_index >= FEWEST:
            variance = max(square / round_index - mean_s**2, 0.0)
            error_s = math.hypot(
                math.sqrt(variance / round_index), plan.certificate.half_width_s / 1.96
            )
            own_s = math.sqrt(variance / round_index)
            if own_s <= ERROR * mean_s or round_index == MOST:
                break
    return plan.expected_round_s, mean_s, error_s, round_index


def main() -> None:
    """Run every rule on every link and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows = []
    for (link, overrides), rule in itertools.product(LINKS.items(), RULES):
        scenario = load_scenario(SCENARIO, (*overrides, f"radio.allocation={rule}"))
        predicted_s, simulated_s, error_s, rounds = simulate(build_system(scenario))
        row = Row(rule, link, rounds, predicted_s, simulated_s, error_s)
        rows.append(row)
        away = predicted_s / simulated_s - 1
        print(
            f"{link:<32} {rule:<16} {rounds:>6} rounds  predicted {predicted_s:7.3f} s  simulated "
            f"{simulated_s:7.3f} s  {away:+.2%} = {away * simulated_s / error_s:+.1f} errors"
            f"{'' if row.holds else '  OUTSIDE'}",
            flush=True,
        )
    print(f"{np.mean([row.holds for row in rows]):.0%} of {len(rows)} hold")
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(Row._fields)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
