"""Synchronous rounds: broadcast, wait for the whole cohort, aggregate.

Device n is in the cohort with probability q_n, independently (arXiv 2505.23555). The broadcast goes
out before the server knows who takes part, so an empty cohort still costs broadcast and overhead,
and the global state stays as it is. The uplink band is divided once per round so that the whole
cohort ends together (static FDMA, equal finish).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fslora.methods import Job
from optimizer import Cohort, Plan, draw_cohort
from sim.cell import Cell, Dispatch, Process
from sim.system import System
from wireless import streams
from wireless.compute import compute_time_s
from wireless.spectrum import equal_finish


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
    cohort
        Who took part, at which rank and aggregation weight.
    jobs
        What they trained.
    """

    round: int
    start_s: float
    end_s: float
    cohort_s: float
    cohort: Cohort
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """A cohort's jobs with their compute times, uploads and share of the band.

    Parameters
    ----------
    jobs
        What each member trains.
    dispatches
        The same as the cell simulates it.
    finish_s
        When the last upload ends, in seconds after the broadcast; 0 for an empty cohort.
    """

    jobs: tuple[Job, ...]
    dispatches: tuple[Dispatch, ...]
    finish_s: float


def synchronous(
    cell: Cell, system: System, plan: Plan, on_round: Callable[[Finished], bool]
) -> Process:
    """Run rounds until `on_round` returns False."""
    scenario, radio = system.scenario, system.scenario.radio
    size = system.workload.cost.download_bits // 8
    overhead_s = scenario.schedule.overhead_s
    dispatched = np.zeros(len(system.fleet), dtype=np.int64)
    round_index, goes_on = 0, True
    while goes_on:
        round_index += 1
        start = cell.env.now
        cohort = draw_cohort(plan, system.problem.weight, scenario.seed, round_index)
        granted = grant(system, cohort, round_index, dispatched)
        dispatched[cohort.device] += 1
        receivers = cohort.device.tolist()
        yield cell.env.process(
            cell.broadcast(
                round_index, receivers, size, radio.downlink_bandwidth_hz, system.broadcast_bps
            )
        )
        yield cell.env.all_of([cell.env.process(cell.take_part(d)) for d in granted.dispatches])
        yield cell.env.process(cell.aggregate(round_index, overhead_s))
        goes_on = on_round(
            Finished(
                round_index,
                start,
                cell.env.now,
                system.broadcast_s + granted.finish_s + overhead_s,
                cohort,
                granted.jobs,
            )
        )


def grant(
    system: System, cohort: Cohort, round_index: int, dispatched: NDArray[np.int64]
) -> Granted:
    """Turn a cohort into jobs and divide the uplink band among them.

    Parameters
    ----------
    system
        What is simulated.
    cohort
        Who takes part, at which rank.
    round_index
        Number of the round.
    dispatched
        (N,) how often each device was dispatched before. A job's draws are keyed by it, so a
        device's m-th job trains on the same data whatever the policy.
    """
    seed = system.scenario.seed
    jobs = tuple(
        Job(
            int(device),
            int(rank),
            streams.key(seed, "job", device, dispatched[device]),
            round_index,
        )
        for device, rank in zip(cohort.device, cohort.rank, strict=True)
    )
    if not jobs:
        return Granted((), (), 0.0)
    compute_s = job_compute_s(system, jobs)
    cost, fleet = system.workload.cost, system.fleet
    bits = cost.upload_bits(cohort.rank)
    link = fleet.uplink.take(cohort.device)
    shares = equal_finish(compute_s, bits, link, system.scenario.radio.bandwidth_hz)
    rate = np.asarray(link.rate(shares.bandwidth_hz))
    dispatches = tuple(
        Dispatch(
            round_index,
            job.device,
            float(compute_s[m]),
            float(fleet.compute_power_w[job.device]),
            int(bits[m]) // 8,
            float(shares.bandwidth_hz[m]),
            float(rate[m]),
            float(fleet.tx_power_dbm[job.device]),
        )
        for m, job in enumerate(jobs)
    )
    return Granted(jobs, dispatches, shares.finish_s)


def job_compute_s(system: System, jobs: tuple[Job, ...]) -> NDArray[np.float64]:
    """Compute time of each job from its own steps, tokens and rank, (M,)."""
    device = np.array([job.device for job in jobs])
    workload, fleet = system.workload, system.fleet
    return compute_time_s(
        np.array([workload.flops(job) for job in jobs]),
        workload.steps[device],
        fleet.compute_flops[device],
        fleet.step_overhead_s[device],
    )
