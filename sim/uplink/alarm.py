"""One alarm that is set again and again."""

from __future__ import annotations

import math
from collections.abc import Callable

from simpy.events import Event

from sim.clock import Clock


class Alarm:
    """Rings at the moment that it was last set to.

    To set it later costs nothing: the event that waits already finds out and waits on. So most
    settings of an alarm that is set at every start and end never become events.

    Parameters
    ----------
    clock
        Simulated time.
    ring
        Called at the moment.
    """

    __slots__ = ("_armed_s", "_clock", "_due_s", "_ring")

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock, self._ring = clock, ring
        self._armed_s = self._due_s = math.inf

    def set(self, time_s: float) -> None:
        """Ring at this moment, which is not past, and at no other; never if infinite."""
        self._due_s = time_s
        if time_s < self._armed_s:
            self._arm(time_s)

    def _arm(self, time_s: float) -> None:
        self._armed_s = time_s
        callbacks = self._clock.at(time_s).callbacks
        assert callbacks is not None
        callbacks.append(self._fire)

    def _fire(self, _: Event) -> None:
        now = self._clock.now
        if now != self._armed_s:
            return  # an earlier event has taken the place of this one
        self._armed_s = math.inf
        due_s = self._due_s
        if now == due_s:
            self._due_s = math.inf
            self._ring()
        elif due_s < math.inf:
            self._arm(due_s)
