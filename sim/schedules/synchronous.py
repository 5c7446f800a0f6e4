"""Synchronous rounds: send out, wait for the whole cohort, aggregate.

Device n is in the cohort with probability q_n, independently (arXiv 2505.23555), if it is there.
The broadcast goes out before the server knows who takes part, so an empty cohort still costs
broadcast and overhead, and the global state stays as it is. While nobody at all is there, the
server waits; inclusion probabilities are then those of the moment somebody comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.dispatch import Dispatcher, Opened, cohort_s
from sim.network import Network, Process
from sim.steering import Steering
from sim.system import System


@dataclass(frozen=True, slots=True)
class Finished:
    """A simulated round, ready to be learnt from.

    Parameters
    ----------
    opened
        Who took part, and what it cost.
    start_s, end_s
        Simulated seconds.
    cohort_s
        Duration that the round-time formula gives for the cohort drawn.
    deserted
        Whether nobody will take part in any later round.
    """

    opened: Opened
    start_s: float
    end_s: float
    cohort_s: float
    deserted: bool


def synchronous(
    network: Network, system: System, steering: Steering, on_round: Callable[[Finished], bool]
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
    dispatcher = Dispatcher(system, steering)
    env, round_index, goes_on = network.env, 0, True
    while goes_on:
        round_index += 1
        start = env.now
        opened = dispatcher.open(round_index, start)
        yield from network.serve(round_index, "plan", opened.plan_s)
        yield from network.serve(round_index, "wait", opened.wait_s)
        if radio.downlink == "broadcast":
            receivers = sorted([*opened.cohort.device.tolist(), *opened.dropped.tolist()])
            yield from network.broadcast(
                round_index, receivers, size, radio.downlink_bandwidth_hz, system.broadcast_bps
            )
        for device in opened.dropped.tolist():
            network.drop(round_index, device)
        yield from network.take_part(opened, radio.downlink_bandwidth_hz)
        yield from network.serve(round_index, "aggregate", overhead_s)
        goes_on = on_round(
            Finished(
                opened,
                start,
                env.now,
                cohort_s(system, opened),
                dispatcher.deserted(env.now),
            )
        )
