"""Time and memory of the physical world, from a thousand to a million devices.

Printed are, per size of the fleet: drawing it with all its links; the rates of one round in which
everybody sends, where nobody moved, and where everybody did, so that all links are new; equal
finish over everybody on links of constant efficiency, and of limited power. Each is the median of
several runs, with its growth from the smallest size to the largest as the exponent of a power of N.
Beside it stands the process's peak memory so far.

    python -m benchmarks.wireless [--repeats 5] [--csv FILE]
"""

from __future__ import annotations

import argparse
import csv
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from wireless import (
    Fleet,
    LinearLink,
    PowerLimitedLink,
    RadioParameters,
    draw_fleet,
    equal_finish,
    preset,
)
from wireless.mobility import Linear

SIZES = (1_000, 10_000, 100_000, 1_000_000)
#: Band of a hundred thousand times the default one's devices, so that a million can share it.
BAND_HZ = 1e9


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of some runs."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return median(times)


def measure(devices: int, repeats: int) -> dict[str, float]:
    """Seconds of every task at one size."""
    radio, kind = RadioParameters(), preset("phone-snapdragon-778g")

    def draw() -> object:
        return draw_fleet(1, devices, kind, 0.78, 0.3, radio)

    def walk(x_m: NDArray[np.float64], y_m: NDArray[np.float64]) -> Linear:
        return Linear(1, x_m, y_m, radio.cell_radius_m, 1.0)

    fleet = draw_fleet(1, devices, kind, 0.78, 0.3, radio)
    walkers = draw_fleet(1, devices, kind, 0.78, 0.3, radio, move=walk)
    start = fleet.channel.start
    everybody = np.arange(devices)
    start_s = 1e3 * kind.flops / fleet.compute_flops
    bits = np.full(devices, 1e5)
    efficiency = LinearLink(start.uplink.rate(radio.bandwidth_hz) / radio.bandwidth_hz)
    power = PowerLimitedLink(radio.bandwidth_hz * 10 ** (start.snr_db / 10))

    def rates(some: Fleet) -> object:
        return some.channel.at(everybody, 60.0).uplink.rate(np.full(devices, radio.bandwidth_hz))

    return {
        "fleet": seconds(draw, repeats),
        "rates of a round": seconds(lambda: rates(fleet), repeats),
        "rates of a round, walking": seconds(lambda: rates(walkers), repeats),
        "equal finish, linear": seconds(
            lambda: equal_finish(start_s, bits, efficiency, BAND_HZ), repeats
        ),
        "equal finish, power-limited": seconds(
            lambda: equal_finish(start_s, bits, power, BAND_HZ), repeats
        ),
    }


def main() -> None:
    """Measure all sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows, table = [], {}
    for devices in SIZES:
        measured = measure(devices, options.repeats)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        table[devices] = measured
        for task, value in measured.items():
            rows.append((devices, task, value, peak_mib))
            print(f"{devices:>9}  {task:<28} {value * 1e3:10.2f} ms   peak {peak_mib:6.0f} MiB")
    for task in table[SIZES[0]]:
        ratio = table[SIZES[-1]][task] / table[SIZES[0]][task]
        exponent = math.log(ratio) / math.log(SIZES[-1] / SIZES[0])
        print(f"{task:<28} grows by {ratio:.0f} from {SIZES[0]} to {SIZES[-1]}: N^{exponent:.2f}")
    if options.csv is not None:
        with options.csv.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(("devices", "task", "median_s", "peak_mib"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
