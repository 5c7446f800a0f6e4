"""Tasks and the metric each is judged by beside its loss."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Task = Literal["causal-lm", "classification"]

#: Per task the name of its metric and whether more of it is better.
METRIC: Mapping[Task, tuple[str, bool]] = MappingProxyType(
    {"causal-lm": ("bits_per_byte", False), "classification": ("accuracy", True)}
)
