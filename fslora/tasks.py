"""Tasks and the metrics each is judged by beside its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Task = Literal["causal-lm", "classification"]

#: Per task its metrics, the usual one first, and whether more of each is better.
METRICS: Mapping[Task, Mapping[str, bool]] = MappingProxyType(
    {
        "causal-lm": MappingProxyType(
            {"bits_per_byte": False, "perplexity": False, "exact_match": True}
        ),
        "classification": MappingProxyType({"accuracy": True, "macro_f1": True, "matthews": True}),
    }
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out quality.

    Parameters
    ----------
    loss
        Nats per predicted token or per example.
    metrics
        Every metric of the task by its name in `METRICS`.
    """

    loss: float
    metrics: Mapping[str, float]
