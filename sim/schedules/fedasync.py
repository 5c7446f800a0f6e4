"""FedAsync: the server mixes each device's model in as it arrives (arXiv 1903.03934).

x <- (1 - alpha_t) x + alpha_t (x_tau + delta_n) with alpha_t = alpha s(t), where x_tau is the state
that the device was sent, and t the merges since then. With sketches the device's model is x_tau
but for the ranks that it trained.

The mixture converges to the mean weighted by how often devices arrive, not by their data: alpha
leaves no room for a_n / pi_n, which may exceed one. So the mean is that of all devices only if the
arrivals are in proportion to the data, as with policy data-proportional and a fleet of which few
are out.
"""

from __future__ import annotations

from sim.network import Network, Process
from sim.schedules.asynchronous import Merging, run_asynchronously
from sim.schedules.base import FloatArray, OnMerge
from sim.sections.schedule import FedAsync
from sim.steering import Steering
from sim.system import System


def fedasync(network: Network, system: System, steering: Steering, on_merge: OnMerge) -> Process:
    """Mix in one model after the other: see `run_asynchronously`."""
    choice = system.scenario.schedule
    assert isinstance(choice, FedAsync)

    def weigh(_: FloatArray, factor: FloatArray) -> tuple[FloatArray, float | None]:
        share = choice.mixing * factor
        return share, float(share[0]) if len(share) else None

    yield from run_asynchronously(network, system, steering, on_merge, Merging(1, weigh))
