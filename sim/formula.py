"""A run's rows by formula, from the scenario and the plans alone, without the event engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fslora.methods import Job
from sim.dispatch import Dispatcher, Opened, cohort_s
from sim.findings import close
from sim.steering import Steering
from sim.system import System
from sim.timeline import Interval, Round, Spectrum, UpdateRow
from sim.updates import outcome, train_loss
from wireless.energy import uplink_energy_j


@dataclass(frozen=True, slots=True)
class Recorded:
    """What of a run no formula gives.

    Parameters
    ----------
    end_s
        Ends of the rounds, from round 0. A round begins where the one before it is recorded to have
        ended, if that is right but for rounding: fading turns fast enough for a rounding of the
        time to show in a rate.
    loss
        Evaluated losses of the rounds, nan where there is none.
    update
        Loss and norm of each update, by round and device.
    """

    end_s: Sequence[float]
    loss: Sequence[float]
    update: Mapping[tuple[int, int], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What a run's tables should hold.

    Parameters
    ----------
    rounds
        Times and counts of each round, from round 0.
    intervals
        Rows of the timeline.
    spectrum
        Rows of the uplink bands in use.
    updates
        What the server learnt from devices, with losses and norms as recorded.
    band_hz
        Uplink band of a cell in each round, zero in round 0.
    deserted
        Whether nobody would take part after the last round.
    """

    rounds: list[Round]
    intervals: list[Interval]
    spectrum: list[Spectrum]
    updates: list[UpdateRow]
    band_hz: list[float]
    deserted: bool


def recompute(system: System, steering: Steering, recorded: Recorded) -> Recomputed:
    """Follow the plans of a run for as many rounds as it had.

    Parameters
    ----------
    system
        What was simulated.
    steering
        Draws the cohorts; its plans come from the run's files.
    recorded
        What only the files know.
    """
    dispatcher = Dispatcher(system, steering)
    rows, intervals, spectrum, bands = [Round(0, 0.0, 0.0, 0.0)], [], [], [0.0]
    updates: list[UpdateRow] = []
    steering.evaluated(recorded.loss[0])
    last = len(recorded.end_s) - 1
    for number in range(1, last + 1):
        start_s = _recorded(recorded.end_s[number - 1], rows[-1].end_s)
        opened = dispatcher.open(number, start_s)
        intervals += _round(system, opened, start_s)
        heard_s = start_s + opened.plan_s + opened.wait_s + system.broadcast_s
        spectrum += _spectrum(opened, heard_s)
        end_s = intervals[-1].end_s
        learnt = [
            UpdateRow(number, job.device, job.rank, float(weight), *_told(recorded, number, job))
            for job, weight in zip(opened.jobs, opened.cohort.weight, strict=True)
        ]
        updates += learnt
        expected_s = steering.plan.expected_round_s
        steering.learn(outcome(system, opened, learnt))
        rows.append(
            Round(
                number,
                start_s,
                end_s,
                end_s - start_s,
                expected_s,
                cohort_s(system, opened),
                opened.sampled,
                len(opened.jobs),
                train_loss=train_loss(learnt),
                queue_s=steering.queue_s,
            )
        )
        bands.append(opened.band_hz)
        steering.evaluated(recorded.loss[number])
        if number < last:
            steering.renew(number + 1, _recorded(recorded.end_s[number], end_s))
    last_s = _recorded(recorded.end_s[-1], rows[-1].end_s)
    deserted = dispatcher.deserted(last_s)
    return Recomputed(rows, intervals, spectrum, updates, bands, deserted)


def _told(recorded: Recorded, number: int, job: Job) -> tuple[float, float]:
    """Loss and norm of a device's update as recorded; zeros where a row is missing."""
    return recorded.update.get((number, job.device), (0.0, 0.0))


def _recorded(found_s: float, wanted_s: float) -> float:
    """The recorded time if it is the wanted one but for rounding."""
    return found_s if close(found_s, wanted_s) else wanted_s


def _round(system: System, opened: Opened, start_s: float) -> list[Interval]:
    """A round's intervals: plan, wait, downlink, compute, upload, aggregate."""
    number = opened.round
    planned_s = start_s + opened.plan_s
    sent_s = planned_s + opened.wait_s
    heard_s = sent_s + system.broadcast_s
    rows = []
    if opened.plan_s > 0:
        rows.append(Interval(number, None, "plan", start_s, planned_s))
    if opened.wait_s > 0:
        rows.append(Interval(number, None, "wait", planned_s, sent_s))
    rows += _broadcast(system, opened, sent_s, heard_s)
    rows += [
        Interval(number, int(n), "uplink", heard_s, heard_s, 0, energy_j=0.0, outcome="dropped")
        for n in opened.dropped
    ]
    begin_s, end_s, band_hz, power_s = np.zeros((4, len(opened.jobs)))
    for members, transfers in opened.transfers:
        begin_s[members], end_s[members] = transfers.begin_s, transfers.finish_s
        band_hz[members], power_s[members] = transfers.bandwidth_hz, transfers.power_s
    for m, job in enumerate(opened.dispatches):
        ready_s = heard_s + float(opened.ready_s[m])
        compute_s = ready_s - job.compute_s
        if job.download_s > 0:
            rows.append(
                Interval(
                    number,
                    job.device,
                    "downlink",
                    compute_s - job.download_s,
                    compute_s,
                    job.download_bytes,
                    system.scenario.radio.downlink_bandwidth_hz,
                    job.download_bps,
                    0.0,
                )
            )
        rows += [
            Interval(number, job.device, "compute", compute_s, ready_s, energy_j=job.compute_j),
            Interval(
                number,
                job.device,
                "uplink",
                heard_s + float(begin_s[m]),
                heard_s + float(end_s[m]),
                job.upload_bytes,
                float(band_hz[m]),
                float(opened.bits[m] / (end_s[m] - begin_s[m])),
                float(uplink_energy_j(job.tx_power_dbm, power_s[m])),
            ),
        ]
    done_s = heard_s + opened.finish_s
    overhead_s = system.scenario.schedule.overhead_s
    return [*rows, Interval(number, None, "aggregate", done_s, done_s + overhead_s)]


def _spectrum(opened: Opened, heard_s: float) -> list[Spectrum]:
    """Bands in use by the round's transfers, cell by cell."""
    return [
        Spectrum(heard_s + time_s, hz, active, opened.dispatches[members[0]].cell)
        for members, transfers in opened.transfers
        for time_s, hz, active in zip(
            transfers.event_s.tolist(),
            transfers.in_use_hz.tolist(),
            transfers.active.tolist(),
            strict=True,
        )
    ]


def _broadcast(system: System, opened: Opened, start_s: float, end_s: float) -> list[Interval]:
    """The broadcast and its receptions, if the server broadcasts."""
    radio, rank = system.scenario.radio, system.scenario.lora.rank
    if radio.downlink != "broadcast":
        return []
    size = int(system.workload.cost.download_bits(rank)) // 8
    receivers = [job.device for job in opened.jobs] + opened.dropped.tolist()
    return [
        Interval(
            opened.round,
            device,
            "downlink",
            start_s,
            end_s,
            size,
            radio.downlink_bandwidth_hz,
            system.broadcast_bps,
            None if device is None else 0.0,
        )
        for device in (None, *receivers)
    ]
