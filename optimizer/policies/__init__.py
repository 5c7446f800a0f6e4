"""Who takes part, at which rank: one policy per file.

A policy maps a problem and a seed, with parameters of its own, to ranks and probabilities of shape
(N,). Samplers of those that do not draw devices independently are in `optimizer.sampler`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from optimizer.policies.data_proportional import data_proportional
from optimizer.policies.fedcs import fedcs
from optimizer.policies.full import full
from optimizer.policies.joint import joint
from optimizer.policies.luo import luo
from optimizer.policies.mean_field import mean_field
from optimizer.policies.oort import oort
from optimizer.policies.rank_by_capability import rank_by_capability
from optimizer.policies.shi import shi
from optimizer.policies.statistical import statistical
from optimizer.policies.tsfa import tsfa
from optimizer.policies.uniform import uniform
from optimizer.problem import IntArray
from optimizer.rounds import FloatArray

Policy = Callable[..., tuple[IntArray, FloatArray]]

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "joint": joint,
        "full": full,
        "uniform": uniform,
        "data-proportional": data_proportional,
        "statistical": statistical,
        "luo": luo,
        "mean-field": mean_field,
        "rank-by-capability": rank_by_capability,
        "tsfa": tsfa,
        "fedcs": fedcs,
        "shi": shi,
        "oort": oort,
    }
)
"""Policies by the name that scenarios use."""

BIASED: frozenset[str] = frozenset({"fedcs", "oort", "shi"})
"""Policies that average their cohorts by data, so that the mean leans to whom they choose. Their
probabilities say how often a device is in the cohort, zero included; a round model, which divides
by them, does not apply."""
