"""What every schedule tells of a merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from simpy import Event

from fslora.analog import Air
from sim.dispatch import Dispatcher
from sim.network import Member
from sim.system import System
from wireless import failures

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Merge:
    """What the server merges at a moment, ready to be trained and learnt from.

    Parameters
    ----------
    round
        Number of the merge, from 1.
    start_s, end_s
        Simulated seconds at the merge before, and at the end of this one.
    device, rank, key, weight
        (M,) whose updates, at which rank, from which job's draws, with which aggregation weight.
    version
        (M,) merge after which each was sent out: the global state that it trained from.
    busy_s
        (M,) seconds from when each was sent out until its update had arrived.
    sampled
        Devices sent out since the merge before.
    spent_s
        Duration without planning and waiting.
    oldest
        The oldest version that an update still to come may have trained from.
    deserted
        Whether nobody will take part from now on.
    cohort_s
        Duration that the round-time formula gives for the cohort drawn; None if there is none.
    mixing
        Share of the device's own model in the global one, where models are mixed; None where
        changes are added.
    air
        What adds the updates up, where they are not sent one by one.
    """

    round: int
    start_s: float
    end_s: float
    device: IntArray
    rank: IntArray
    key: IntArray
    weight: FloatArray
    version: IntArray
    busy_s: FloatArray
    sampled: int
    spent_s: float
    oldest: int
    deserted: bool
    cohort_s: float | None = None
    mixing: float | None = None
    air: Air | None = None

    def __len__(self) -> int:
        """Return the number of updates M."""
        return len(self.device)


OnMerge = Callable[[Merge], bool]
"""Trains, merges and records; tells whether to go on."""


def identities(members: Sequence[Member]) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Devices, ranks, keys and versions (M,) of members."""
    rows = [
        (m.device, m.batch.rank[m.place], m.batch.key[m.place], m.batch.round - 1) for m in members
    ]
    device, rank, key, version = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return device, rank, key, version


def count_as_free(dispatcher: Dispatcher, members: Sequence[Member]) -> None:
    """Tell the dispatcher that the part of these members has ended, and what they have spent."""
    device = np.array([member.device for member in members], dtype=np.int64)
    dispatcher.came_back(device, np.array([member.energy_j for member in members]))


def wake(event: Event) -> None:
    """Let whoever waits for an event go on, unless it has happened already."""
    if not event.triggered:
        event.succeed()


class ServerFailures:
    """When the server fails, and is back; never, if the scenario says so.

    Attributes
    ----------
    next_s
        Simulated seconds at which it fails next.
    """

    def __init__(self, system: System) -> None:
        self._restarts = system.scenario.failures.restarts
        self._seed = system.scenario.seed
        self.next_s = self._after(0.0)

    def back_s(self, now_s: float) -> float:
        """When the server can work: now, or if it has failed by now, once it has restarted."""
        while self._restarts is not None and self.next_s <= now_s:
            now_s = max(now_s, self.next_s + self._restarts.down_s)
            self.next_s = self._after(self.next_s + self._restarts.down_s)
        return now_s

    def _after(self, time_s: float) -> float:
        if self._restarts is None:
            return np.inf
        process = failures.server_failures(self._seed, self._restarts.mean_s)
        return float(process.next(np.zeros(1, dtype=np.int64), np.array([time_s]))[0])
