"""How many rounds a plan needs to reach the target."""

from optimizer.rounds.base import Along, FloatArray, Minorant, RoundModel
from optimizer.rounds.progress import Progress

__all__ = ["Along", "FloatArray", "Minorant", "Progress", "RoundModel"]
