"""Propagation environments: path loss, line of sight, shadowing, K factor, penetration.

Those of 3GPP TR 38.901 (versions 17 and 18), 0.5 to 100 GHz, and two of a single slope:

=================================== ==========================================================
name                                environment
=================================== ==========================================================
uma, umi, rma                       urban macrocell, street canyon, rural macrocell
inh-open, inh-mixed                 open and mixed office
inf-sl, inf-dl, inf-sh, inf-dh      factory, sparse or dense clutter, low or high base station
log-distance                        fitted logarithm of distance
free-space                          Friis' formula
=================================== ==========================================================
"""

from collections.abc import Mapping
from types import MappingProxyType

from wireless.propagation.base import Environment
from wireless.propagation.factory import InFDH, InFDL, InFSH, InFSL
from wireless.propagation.indoor import InHMixed, InHOpen
from wireless.propagation.penetration import building_loss_db
from wireless.propagation.rural import RMa
from wireless.propagation.single_slope import FreeSpace, LogDistance
from wireless.propagation.urban import UMa, UMi

_TYPES: tuple[type[Environment], ...] = (
    UMa,
    UMi,
    RMa,
    InHOpen,
    InHMixed,
    InFSL,
    InFDL,
    InFSH,
    InFDH,
    LogDistance,
    FreeSpace,
)

ENVIRONMENTS: Mapping[str, type[Environment]] = MappingProxyType(
    {each.name: each for each in _TYPES}
)
"""The environments by name."""

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "FreeSpace",
    "InFDH",
    "InFDL",
    "InFSH",
    "InFSL",
    "InHMixed",
    "InHOpen",
    "LogDistance",
    "RMa",
    "UMa",
    "UMi",
    "building_loss_db",
]
