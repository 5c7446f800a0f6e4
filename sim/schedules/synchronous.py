"""Synchronous rounds: send out, wait for the whole cohort, aggregate.

Device n is in the cohort with probability q_n, independently (arXiv 2505.23555), if it is there.
The broadcast goes out before the server knows who takes part, so an empty cohort still costs
broadcast and overhead, and the global state stays as it is. While nobody at all is there, the
server waits; inclusion probabilities are then those of the moment somebody comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fslora.methods import Job
from optimizer import Cohort, Plan
from sim.dispatch import Dispatcher
from sim.network import Network, Process
from sim.system import System


@dataclass(frozen=True, slots=True)
class Finished:
    """A simulated round, ready to be learnt from.

    Parameters
    ----------
    round
        Its number.
    start_s, end_s
        Simulated seconds.
    cohort_s
        Duration that the round-time formula gives for the cohort drawn.
    sampled
        Number of devices that were drawn and there.
    cohort
        Who completed, at which rank and aggregation weight.
    jobs
        What they trained.
    deserted
        Whether nobody will take part in any later round.
    """

    round: int
    start_s: float
    end_s: float
    cohort_s: float
    sampled: int
    cohort: Cohort
    jobs: tuple[Job, ...]
    deserted: bool


def synchronous(
    network: Network, system: System, plan: Plan, on_round: Callable[[Finished], bool]
) -> Process:
    """Run rounds until `on_round` returns False, as it has to once nobody will take part again.

    Raises
    ------
    RunError
        If nobody ever takes part.
    """
    scenario, radio = system.scenario, system.scenario.radio
    size = int(system.workload.cost.download_bits(scenario.lora.rank)) // 8
    overhead_s = scenario.schedule.overhead_s
    dispatcher = Dispatcher(system, plan)
    env, round_index, goes_on = network.env, 0, True
    while goes_on:
        round_index += 1
        start = env.now
        opened = dispatcher.open(round_index, start)
        yield from network.wait(round_index, opened.wait_s)
        if radio.downlink == "broadcast":
            receivers = sorted([*opened.cohort.device.tolist(), *opened.dropped.tolist()])
            yield from network.broadcast(
                round_index, receivers, size, radio.downlink_bandwidth_hz, system.broadcast_bps
            )
        for device in opened.dropped.tolist():
            network.drop(round_index, device)
        yield from network.take_part(opened, radio.downlink_bandwidth_hz)
        yield from network.aggregate(round_index, overhead_s)
        goes_on = on_round(
            Finished(
                round_index,
                start,
                env.now,
                opened.wait_s + system.broadcast_s + opened.finish_s + overhead_s,
                opened.sampled,
                opened.cohort,
                opened.jobs,
                dispatcher.deserted(env.now),
            )
        )
