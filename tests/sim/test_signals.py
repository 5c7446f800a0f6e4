"""Signals are noted, a second interrupt is obeyed, and handlers come back."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sim.signals import stop_requests


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Whatever a test does, the handlers are those of before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """Send this process a signal; its handler has run when this returns."""
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(number: signal.Signals) -> None:
    with stop_requests() as request:
        assert not request.asked
        send(number)
        assert (request.asked, request.signal) == (True, number.name)


def test_a_second_interrupt_interrupts() -> None:
    with stop_requests() as request:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert request.signal == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_an_interrupt_after_a_termination_is_the_first() -> None:
    with stop_requests() as request:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert request.signal == "SIGTERM"


def test_handlers_come_back_whatever_happens() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stop_requests():
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    send(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_one_inside_another_asks_the_inner_one() -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            send(signal.SIGINT)
        assert (inner.asked, outer.asked) == (True, False)
        send(signal.SIGINT)
        assert outer.asked


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as request:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert not request.asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_notes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[bool] = []

    def run() -> None:
        with stop_requests() as request:
            seen.append(
                (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
            )
            seen.append(request.asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [True, False]
