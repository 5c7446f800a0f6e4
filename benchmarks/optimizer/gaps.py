"""How far plans are from the lower bound: ``python -m benchmarks.optimizer.gaps [N] [COUNT]``.

Prints one line per fleet and, by link and allocation rule, the median and the 90th percentile of
the gap, of seconds to plan and of seconds to bound. A gap that is negative is within the confidence
interval of the plan's own objective, which is printed beside it. At three and four devices the
bound is also held against brute force.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

import numpy as np

from benchmarks.optimizer.brute import brute_force
from benchmarks.optimizer.instances import fleet, regime
from optimizer import solve
from optimizer.bound import lower_bound


def main(devices: int = 100, count: int = 20) -> None:
    """Print the gaps of the first fleets of a size."""
    rows = defaultdict(list)
    for number in range(count):
        problem = fleet(devices, number)
        start = time.process_time()
        plan = solve(problem)
        planned = time.process_time()
        bound = lower_bound(problem, plan.rank, plan.probability)
        bounded = time.process_time()
        gap = plan.objective_s / bound.value_s - 1
        width = plan.certificate.half_width_s / plan.expected_round_s
        kind = f"{type(problem.link).__name__}, {problem.allocation}"
        rows[kind].append((gap, planned - start, bounded - planned))
        line = (
            f"{number:4d} {regime(number):20s} {problem.rounds.name:18s} {kind:36s} "
            f"gap {gap:8.4f} +- {width:.4f}  kkt {plan.certificate.kkt_residual:.4f}  "
            f"plan {planned - start:6.2f} s  bound {bounded - planned:6.2f} s  {bound.note}"
        )
        if devices <= 4:
            line += f"  brute force {brute_force(problem).objective_s / bound.value_s - 1:8.4f}"
        print(line, flush=True)
    for kind, values in sorted(rows.items()):
        gap, planned_s, bounded_s = np.array(values).T
        print(
            f"{kind:36s} {len(gap):3d} fleets  gap median {np.median(gap):.4f} "
            f"p90 {np.quantile(gap, 0.9):.4f} max {gap.max():.4f}  "
            f"plan {np.median(planned_s):.2f} s  bound {np.median(bounded_s):.2f} s"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
