"""A finished run, run again by its own schedule: with the ends of uploads from its timeline, the
losses from its updates, and the plans from its plan table.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.clock import Clock
from sim.errors import RunError
from sim.findings import TOLERANCE, Finding
from sim.learning import Estimate
from sim.memory import Told
from sim.network import Network
from sim.parts import Parts
from sim.playback import Playback
from sim.schedules import SCHEDULES, Merge
from sim.steering import Steering
from sim.system import System
from sim.timeline import Round, UpdateRow
from sim.updates import outcome, round_row


class Recorded:
    """What of a run only training could tell, from its tables.

    Parameters
    ----------
    rounds, updates
        The tables.
    """

    def __init__(self, rounds: pd.DataFrame, updates: pd.DataFrame) -> None:
        self.rounds = len(rounds) - 1
        self.eval_loss: list[float] = rounds["eval_loss"].tolist()
        order = np.argsort(updates["round"].to_numpy(), kind="stable")
        self._device = updates["device"].to_numpy()[order]
        self._loss = updates["loss"].to_numpy(dtype=np.float64)[order]
        # A norm below zero is a finding in the end, and no reason to stop here.
        norm = updates["update_norm"].to_numpy(dtype=np.float64)
        self._norm = np.maximum(norm, 0.0)[order]
        self._kept = updates["rank_kept"].to_numpy(dtype=np.float64)[order]
        numbers = np.arange(self.rounds + 2)
        self._first = np.searchsorted(updates["round"].to_numpy()[order], numbers)

    def told(self, round_index: int, device: NDArray[np.int64]) -> list[Told]:
        """What the updates of some devices told in a round; zeros for lack of a row.

        A device that comes twice has rows one after the other.
        """
        rows = slice(*self._first[round_index : round_index + 2])
        known = self._device[rows].tolist()
        columns = (self._loss[rows].tolist(), self._norm[rows].tolist(), self._kept[rows].tolist())
        there = [
            Told(loss, norm, None if math.isnan(kept) else max(1, int(kept)))
            for loss, norm, kept in zip(*columns, strict=True)
        ]
        if known == device.tolist():
            return there
        by_device: dict[int, deque[Told]] = defaultdict(deque)
        for who, each in zip(known, there, strict=True):
            by_device[who].append(each)
        return [by_device[n].popleft() if by_device[n] else Told(0.0, 0.0) for n in device.tolist()]


@dataclass(slots=True)
class Replay:
    """How the schedule went on what the timeline tells.

    Parameters
    ----------
    rounds
        What rows of `rounds.csv` should hold, without totals and evaluations, from round 0.
    updates
        What rows of `updates.csv` should hold, with what training told as recorded.
    playback
        What was asked of the network.
    end_s
        Simulated seconds at which the last merge that there is was over.
    deserted
        Rounds after which nobody would take part again.
    trouble
        Why the timeline cannot be followed to the end of the run, if it cannot.
    """

    rounds: list[Round]
    updates: list[UpdateRow]
    playback: Playback
    end_s: float = 0.0
    deserted: list[int] = field(default_factory=list)
    trouble: Finding | None = None


class _Astray(Exception):
    """The timeline ends, but the schedule still waits."""


def replay(
    system: System,
    steering: Steering,
    recorded: Recorded,
    parts: Parts,
    server: pd.DataFrame,
    last_s: float,
) -> Replay:
    """Run a schedule again for as many merges as the run had.

    Parameters
    ----------
    system
        What was simulated.
    steering
        Draws the devices; its plans come from the run's files.
    recorded
        What only training could tell.
    parts, server
        Rows of the timeline: the devices' and the server's.
    last_s
        The last moment in the run's files.

    Raises
    ------
    BadPlan
        If a plan on disk is out of its bounds.
    """
    clock = Clock()
    playback = Playback(clock, parts, server, len(system.fleet))
    estimate = Estimate(steering) if system.scenario.training.timing_only else None
    known = None if estimate is None else estimate.progress
    found = Replay([Round(0, 0.0, 0.0, 0.0, progress=known)], [], playback)
    steering.evaluated(recorded.eval_loss[0])
    if recorded.rounds == 0:
        return found

    def merged(merge: Merge) -> bool:
        rows: list[UpdateRow] = []
        if estimate is None:
            rows = _update_rows(merge, recorded.told(merge.round, merge.device))
        else:
            estimate.merge(merge)
        steering.learn(outcome(merge, rows))
        progress = None if estimate is None else estimate.progress
        found.rounds.append(round_row(system, steering, merge, rows, progress))
        found.updates += rows
        found.end_s = merge.end_s
        if merge.deserted:
            found.deserted.append(merge.round)
        steering.evaluated(recorded.eval_loss[merge.round])
        if merge.round >= recorded.rounds:
            playback.finish()
            return False
        steering.renew(merge.round + 1, merge.end_s)
        return True

    schedule = SCHEDULES[system.scenario.schedule.name]
    # It has all that a schedule asks of a network.
    network = cast(Network, playback)
    process = clock.process(schedule(network, system, steering, merged))
    callbacks = clock.at(last_s * (1 + 2 * TOLERANCE) + TOLERANCE).callbacks
    assert callbacks is not None
    callbacks.append(lambda _: _lost())
    try:
        clock.run(until=process)
    except _Astray:
        found.trouble = _waits(found, playback)
    except RunError as error:
        found.trouble = Finding("rounds.csv", None, f"has a round too many: {error}")
    except (ValueError, ArithmeticError) as error:
        number = len(found.rounds)
        found.trouble = Finding(
            "timeline.csv", None, f"cannot be followed in round {number}: {error}"
        )
    return found


def _lost() -> None:
    raise _Astray


def _waits(found: Replay, playback: Playback) -> Finding:
    """What the schedule waits for in vain."""
    number = len(found.rounds)
    if not playback.out:
        return Finding(
            "rounds.csv", None, f"has round {number}, which would end after the timeline"
        )
    member = playback.out[0]
    others = f" and {len(playback.out) - 1} others" if len(playback.out) > 1 else ""
    return Finding(
        "timeline.csv",
        None,
        f"cannot be followed beyond round {number - 1}: device {member.device}, sent out in round "
        f"{member.batch.round}{others}, never ends",
    )


def _update_rows(merge: Merge, told: Sequence[Told]) -> list[UpdateRow]:
    who = zip(merge.device.tolist(), merge.rank.tolist(), merge.weight.tolist(), strict=True)
    return [UpdateRow(merge.round, *each, *what) for each, what in zip(who, told, strict=True)]
