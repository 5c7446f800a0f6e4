"""Who takes part, at which rank: one policy per file.

A policy maps a problem and a seed, with parameters of its own, to ranks and probabilities of shape
(N,).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from optimizer.policies.full import full
from optimizer.policies.joint import joint
from optimizer.policies.uniform import uniform
from optimizer.problem import IntArray
from optimizer.rounds import FloatArray

Policy = Callable[..., tuple[IntArray, FloatArray]]

POLICIES: Mapping[str, Policy] = MappingProxyType(
    {"full": full, "uniform": uniform, "joint": joint}
)
"""Policies by the name that scenarios use."""
