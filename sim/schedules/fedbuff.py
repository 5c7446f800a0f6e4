"""FedBuff: the server merges whenever a buffer of K updates is full (arXiv 2106.06639).

x <- x + sum over the buffer of (1/K) s(t) w_n delta_n, with t the merges since device n was sent
out and s(t) = (1 + t)^-1/2 by default. The paper draws devices uniformly and has w_n = 1; here they
are drawn by the plan, and w_n = a_n / pi_n makes the mean of the fresh updates that of all devices
(`optimizer.one_by_one`). Two biases stay, as in the paper: who is busy cannot be drawn, and s(t)
shrinks the updates of the slow. Stale updates are changes of an older state; the paper bounds what
that costs.
"""

from __future__ import annotations

from sim.network import Network, Process
from sim.schedules.asynchronous import Merging, run_asynchronously
from sim.schedules.base import FloatArray, OnMerge
from sim.sections.schedule import FedBuff
from sim.steering import Steering
from sim.system import System


def fedbuff(network: Network, system: System, steering: Steering, on_merge: OnMerge) -> Process:
    """Merge buffers of updates: see `run_asynchronously`."""
    choice = system.scenario.schedule
    assert isinstance(choice, FedBuff)

    def weigh(unbiased: FloatArray, factor: FloatArray) -> tuple[FloatArray, None]:
        return unbiased * factor / choice.buffer, None

    yield from run_asynchronously(
        network, system, steering, on_merge, Merging(choice.buffer, weigh)
    )
