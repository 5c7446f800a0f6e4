"""Synchronous rounds: send out, wait for the whole cohort, aggregate.

With weights a_n / (c_n q_n) the mean over draws of the merged changes is that of all devices, at
full participation (arXiv 2505.23555), as long as whoever is drawn and there also arrives.
"""

from __future__ import annotations

from sim.network import Network, Process
from sim.schedules.base import OnMerge
from sim.schedules.rounds import Closing, run_rounds
from sim.steering import Steering
from sim.system import System


def synchronous(network: Network, system: System, steering: Steering, on_merge: OnMerge) -> Process:
    """Run rounds that end with the last device: see `run_rounds`."""
    yield from run_rounds(network, system, steering, on_merge, Closing())
