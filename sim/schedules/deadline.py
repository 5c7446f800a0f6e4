"""Rounds with a deadline: whoever has not arrived by then is cancelled, or comes for nothing.

The weights are those of synchronous rounds, so the merged change leans to the quick: a device that
makes it in time with probability p_n counts with p_n a_n in the mean. Nothing is divided by p_n,
which no server knows. A deadline that everybody meets changes nothing.
"""

from __future__ import annotations

from sim.network import Network, Process
from sim.schedules.base import OnMerge
from sim.schedules.rounds import Closing, run_rounds
from sim.sections.schedule import Deadline
from sim.steering import Steering
from sim.system import System


def deadline(network: Network, system: System, steering: Steering, on_merge: OnMerge) -> Process:
    """Run rounds that are closed after `schedule.deadline_s`: see `run_rounds`."""
    choice = system.scenario.schedule
    assert isinstance(choice, Deadline)
    closing = Closing(after_s=choice.deadline_s, late=choice.late == "discard")
    yield from run_rounds(network, system, steering, on_merge, closing)
