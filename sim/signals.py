"""Signals that ask a run to stop, heard where it can."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopRequest:
    """Whether a run was asked to stop.

    Parameters
    ----------
    signal
        Name of the signal that asked first, None if none did.
    """

    signal: str | None = None

    @property
    def asked(self) -> bool:
        """Whether any signal asked."""
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM are noted instead of obeyed.

    A second SIGINT raises KeyboardInterrupt at once. Signals that are ignored stay ignored, and
    outside the main thread, which alone may decide, nothing is noted.
    """
    request = StopRequest()
    interrupts = 0

    def note(number: int, _: FrameType | None) -> None:
        nonlocal interrupts
        if number == signal.SIGINT:
            interrupts += 1
            if interrupts > 1:
                raise KeyboardInterrupt
        request.signal = request.signal or signal.Signals(number).name

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # None is a handler that Python did not set and could not set again.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
