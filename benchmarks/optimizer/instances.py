"""Random fleets on which plans are measured: a frozen set, so that figures stay comparable.

A fleet is named by its number of devices and a number. The number chooses among five regimes, two
kinds of link, two allocation rules and five round models: the first 20 numbers hold every regime
with every link and rule, the first 100 all combinations. Nothing here may change, since every
published figure was measured on these fleets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from optimizer import Problem, RoundModel
from optimizer.rounds import Progress, RankCost, SamplingTerm, SmoothnessScaled
from wireless.link import LinearLink, Link, PowerLimitedLink

RULES = ("equal-finish", "work-conserving")

#: Rounds at full participation and full rank, of every model.
BASE = 20.0

MODELS: tuple[Callable[[float], RoundModel], ...] = (
    lambda sampling: Progress(BASE, sampling, 0.03),
    lambda sampling: Progress(BASE, sampling, 0.8),
    lambda sampling: RankCost(BASE, sampling, 5.0),
    lambda sampling: SmoothnessScaled(BASE, sampling),
    lambda sampling: SamplingTerm(BASE, sampling),
)


@dataclass(frozen=True, slots=True)
class Regime:
    """What decides a fleet's best plan; ranges are of decimal logarithms.

    Parameters
    ----------
    load : tuple of float
        Time to upload everything at the caps over the whole band, in median compute times.
    sampling : tuple of float
        Rounds per unit of sampling variance, at ten devices.
    overhead : tuple of float
        Fixed part of a round, in median compute times.
    """

    load: tuple[float, float]
    sampling: tuple[float, float]
    overhead: tuple[float, float]


REGIMES: Mapping[str, Regime] = MappingProxyType(
    {
        "balanced": Regime((-0.5, 1.0), (0.5, 2.5), (-1.0, 0.3)),
        "quiet": Regime((-0.5, 1.5), (-1.0, 0.5), (-1.0, 0.3)),
        "sparse": Regime((1.0, 2.5), (1.5, 3.0), (-2.5, -1.0)),
        "compute-bound": Regime((-2.5, -1.0), (0.5, 2.5), (-1.0, 0.3)),
        "communication-bound": Regime((1.0, 2.0), (0.5, 2.5), (-1.0, 0.3)),
    }
)


def regime(number: int) -> str:
    """Name of the regime of a number."""
    return tuple(REGIMES)[number % len(REGIMES)]


def fleet(devices: int, number: int) -> Problem:
    """Draw a fleet: compute times, links, weights and gradients unlike over a decade or two.

    Parameters
    ----------
    devices : int
        Number of devices N. Fleets of up to 12 have a global rank of 6, so that brute force is
        possible, and larger ones a rank of 16.
    number : int
        Number of the fleet, >= 0.

    Returns
    -------
    Problem
    """
    rng = np.random.Generator(np.random.PCG64([devices, number]))
    kind, small = REGIMES[regime(number)], devices <= 12
    rank = 6 if small else 16
    cap = rng.integers(2, rank + 1, devices)
    base_s = np.exp(rng.normal(1.5, rng.uniform(0.1, 1.2), devices))
    efficiency = rng.uniform(0.5, 6.0, devices)
    snr = np.exp(rng.normal(1.0, 1.5, devices))
    load, sampling, overhead = (
        10 ** rng.uniform(*bounds) for bounds in (kind.load, kind.sampling, kind.overhead)
    )
    bandwidth_hz, median_s = 1e6, float(np.median(base_s))
    link: Link = LinearLink(efficiency)
    if (number // 5) % 2:
        link = PowerLimitedLink(bandwidth_hz * snr)
    rate = link.rate(np.full(devices, bandwidth_hz))
    # A twentieth of a full upload does not depend on the rank.
    bits_per_rank = load * median_s / float(np.sum((cap + rank / 20) / rate))
    model = MODELS[(number // 20 + number // 5 + number) % len(MODELS)]
    return Problem(
        weight=rng.dirichlet(np.full(devices, 3.0)),
        gradient_norm=np.exp(rng.normal(0.0, 0.4, devices)),
        compute_base_s=base_s,
        compute_per_rank_s=0.02 * base_s / rank,
        fixed_bits=bits_per_rank * rank / 20,
        bits_per_rank=bits_per_rank,
        link=link,
        bandwidth_hz=bandwidth_hz,
        overhead_s=overhead * median_s,
        rank=rank,
        rank_cap=cap,
        min_probability=np.full(1, 0.01 if small else min(1e-2, 1 / devices)),
        min_cohort=0.5 * (number % 2) if small else 1.0,
        rounds=model(sampling * max(1.0, np.sqrt(devices / 10))),
        allocation=RULES[(number // 10) % 2],
    )
