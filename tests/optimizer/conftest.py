"""Random fleets for the optimizer's tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optimizer import Problem, Progress
from wireless.link import LinearLink, PowerLimitedLink


def random_problem(devices: int, seed: int, power_limited: bool = False, **changes: Any) -> Problem:
    """Unlike devices: compute times over a decade, links over a decade, caps from 2 up."""
    rng = np.random.default_rng(seed)
    rank = 8
    if power_limited:
        link: Any = PowerLimitedLink(1e6 * np.exp(rng.normal(1.0, 1.5, devices)))
    else:
        link = LinearLink(rng.uniform(0.5, 6.0, devices))
    base_s = np.exp(rng.normal(1.5, rng.uniform(0.1, 1.2), devices))
    fields: dict[str, Any] = {
        "weight": rng.dirichlet(np.full(devices, 3.0)),
        "gradient_norm": np.exp(rng.normal(0.0, 0.4, devices)),
        "compute_base_s": base_s,
        "compute_per_rank_s": 0.02 * base_s / rank,
        "fixed_bits": 1e4,
        "bits_per_rank": 1.5e7 * 10 ** rng.uniform(-1, 1) / rank / max(1.0, devices / 10),
        "link": link,
        "bandwidth_hz": 1e6,
        "overhead_s": rng.uniform(0.2, 3.0),
        "rank": rank,
        "rank_cap": rng.integers(2, rank + 1, devices),
        "min_probability": 0.01,
        "min_cohort": 0.5,
        "rounds": Progress(14.0, 10 ** rng.uniform(0, 2), 0.8),
    }
    return Problem(**(fields | changes))


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    return random_problem
