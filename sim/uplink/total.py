"""A sum of numbers that come and go."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Part of its peak down to which a sum keeps all digits, though its terms were far larger.
_KEPT = 1e-14


class Total:
    """A running sum that does not drift.

    Each addition carries its rounding along (Knuth's two-sum), so the sum has twice the digits of
    its largest value since it was set.
    """

    __slots__ = ("_high", "_low", "_peak", "value")

    def __init__(self) -> None:
        self._high = self._low = self._peak = self.value = 0.0

    def add(self, term: float) -> None:
        """Add a term; what goes is added with the other sign."""
        high = self._high + term
        part = high - self._high
        self._low += (self._high - (high - part)) + (term - part)
        self._high = high
        self.value = value = high + self._low
        if value > self._peak:
            self._peak = value

    @property
    def worn(self) -> bool:
        """Whether so much has gone that the sum of the rest should be set afresh."""
        return self.value < _KEPT * self._peak

    def set(self, terms: Iterable[float]) -> None:
        """Sum up these, and nothing else."""
        self._high = self._peak = self.value = math.fsum(terms)
        self._low = 0.0
