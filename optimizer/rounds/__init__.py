"""How many rounds a plan needs to reach the target."""

from collections.abc import Mapping
from types import MappingProxyType

from optimizer.rounds.base import Along, FloatArray, Minorant, RoundModel
from optimizer.rounds.progress import Progress
from optimizer.rounds.rank_cost import RankCost
from optimizer.rounds.sampling import SamplingTerm
from optimizer.rounds.smoothness import SmoothnessScaled
from optimizer.rounds.tables import Tables

#: Round models by the names that scenarios use.
ROUND_MODELS: Mapping[str, type[RoundModel]] = MappingProxyType(
    {model.name: model for model in (Progress, SamplingTerm, RankCost, SmoothnessScaled, Tables)}
)

__all__ = [
    "ROUND_MODELS",
    "Along",
    "FloatArray",
    "Minorant",
    "Progress",
    "RankCost",
    "RoundModel",
    "SamplingTerm",
    "SmoothnessScaled",
    "Tables",
]
