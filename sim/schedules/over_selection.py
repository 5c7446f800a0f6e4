"""Over-selection: the first m of the m' devices of a cohort count, the others are cancelled.

Source: the practice of arXiv 1902.01046, which selects 130 % of the devices that it wants. Weights
are multiplied by m'/m, so that the mass merged is that of the whole cohort; the mean leans to the
quick all the same, who are among the first more often than their data tell.
"""

from __future__ import annotations

from sim.network import Network, Process
from sim.schedules.base import OnMerge
from sim.schedules.rounds import Closing, run_rounds
from sim.sections.schedule import OverSelection
from sim.steering import Steering
from sim.system import System


def over_selection(
    network: Network, system: System, steering: Steering, on_merge: OnMerge
) -> Process:
    """Run rounds that are closed after the first devices: see `run_rounds`."""
    choice = system.scenario.schedule
    assert isinstance(choice, OverSelection)
    yield from run_rounds(network, system, steering, on_merge, Closing(share=choice.share))
