"""The simulated clock: SimPy's environment, with events at absolute times."""

from __future__ import annotations

from heapq import heappush

import simpy
from simpy.events import NORMAL, Event, EventPriority

#: After everything else that happens at a moment: SimPy's own priorities are 0 and 1.
_LAST = EventPriority(NORMAL + 1)


class Clock(simpy.Environment):
    """A clock that starts at zero seconds.

    A delay added to the present time is rounded, so two that should meet at one moment may miss
    each other by a bit; what is known as a moment is waited for as a moment.
    """

    def __init__(self) -> None:
        super().__init__(0.0)

    def at(self, time_s: float) -> Event:
        """An event at exactly `time_s`, in seconds from the start of the run; not in the past."""
        if not time_s >= self._now:
            raise ValueError(f"time_s = {time_s} is before the present, {self._now}")
        return self._put(time_s, NORMAL)

    def moment_over(self) -> Event:
        """An event now, once everything else has happened that happens at this moment."""
        return self._put(self._now, _LAST)

    def _put(self, time_s: float, priority: EventPriority) -> Event:
        event = Event(self)
        event._ok, event._value = True, None
        heappush(self._queue, (time_s, priority, next(self._eid), event))
        return event
