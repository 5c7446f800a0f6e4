"""Real seconds by part of the program; never read by the simulation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sim.timeline import HostRow


class Stopwatch:
    """Real seconds by part of the program.

    Attributes
    ----------
    total
        Seconds of each part so far.
    """

    def __init__(self) -> None:
        self.total: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the block as part `name`; a part inside another is not counted twice."""
        self._settle()
        self._running.append(name)
        try:
            yield
        finally:
            self._settle()
            self._running.pop()

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what an earlier part of the run took."""
        for name, more in seconds.items():
            self.total[name] = self.total.get(name, 0.0) + more

    def rows(self, round_index: int) -> list[HostRow]:
        """What was timed since the last call."""
        self._settle()
        rows = [HostRow(round_index, name, seconds) for name, seconds in self._pending.items()]
        self._pending = {}
        return rows

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._running:
            name, seconds = self._running[-1], now - self._since
            self.total[name] = self.total.get(name, 0.0) + seconds
            self._pending[name] = self._pending.get(name, 0.0) + seconds
        self._since = now
