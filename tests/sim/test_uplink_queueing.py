"""Uplinks as the queues of the textbook: Poisson starts and exponential payloads, M/M/1."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import t as student

from sim.clock import Clock
from sim.uplink import Transfer, Uplink
from sim.uplink.serial import SerialUplink
from sim.uplink.shared import SharedUplink
from wireless import streams
from wireless.link import LinearLink
from wireless.spectrum import RULES

#: Starts and ends a second; a work of one hertz second over a band of one hertz.
ARRIVALS, SERVICES = 0.7, 1.0
COUNT, BATCHES, WARM = 60_000, 30, 2_000


def played(make: partial[Uplink]) -> tuple[np.ndarray, np.ndarray]:
    """Waiting times until the band is held, and until the end, of all but the first few."""
    device = np.arange(COUNT)
    ready_s = np.cumsum(streams.exponential(11, "arrivals", device) / ARRIVALS)
    bits = streams.exponential(11, "payloads", device) / SERVICES
    clock, ends = Clock(), np.full(COUNT, np.nan)
    place: dict[int, int] = {}

    def on_end(transfer: Transfer) -> None:
        ends[place[id(transfer)]] = clock.now

    uplink = make(clock, 1.0, on_end, lambda _hz, _senders: None)
    transfers = uplink.prepare(LinearLink(np.ones(COUNT)), bits, ready_s)
    place.update((id(transfer), n) for n, transfer in enumerate(transfers))
    for transfer, time_s in zip(transfers, ready_s.tolist(), strict=True):
        clock.at(time_s).callbacks.append(
            lambda _, transfer=transfer: uplink.start(transfer, transfer.bits)
        )
    clock.run()
    begins = np.array([transfer.begin_s for transfer in transfers], float)
    return (begins - ready_s)[WARM:], (ends - ready_s)[WARM:]


def assert_mean(values: np.ndarray, wanted: float) -> None:
    """The mean is the wanted one, within the 99 % interval of the means of batches."""
    means = np.array([part.mean() for part in np.array_split(values, BATCHES)])
    half = student.ppf(0.995, BATCHES - 1) * means.std(ddof=1) / np.sqrt(BATCHES)
    assert half < 0.1 * wanted
    assert values.mean() == pytest.approx(wanted, abs=half)


def test_time_division_is_the_first_come_first_served_queue() -> None:
    """Mean time before service rho / (mu - lambda), in the system 1 / (mu - lambda)."""
    waits_s, stays_s = played(partial(SerialUplink, None))
    assert_mean(waits_s, ARRIVALS / SERVICES / (SERVICES - ARRIVALS))
    assert_mean(stays_s, 1 / (SERVICES - ARRIVALS))


def test_equal_split_is_processor_sharing() -> None:
    """Nobody waits, and the mean time in the system is 1 / (mu - lambda).

    It is fair, too: the mean stay of a payload x is x / (1 - rho).
    """
    waits_s, stays_s = played(partial(SharedUplink, RULES["equal-split"]))
    assert not waits_s.any()
    assert_mean(stays_s, 1 / (SERVICES - ARRIVALS))
    bits = streams.exponential(11, "payloads", np.arange(COUNT))[WARM:]
    long = stays_s[bits > 1.0] / bits[bits > 1.0]
    assert_mean(long, 1 / (1 - ARRIVALS / SERVICES))
