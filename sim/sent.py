"""All devices that a run sent out, batch after batch, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sim.dispatch import Batch
from sim.playback import Playback
from sim.system import System
from wireless.link import Link, join

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """D devices that were sent out, in order.

    Parameters
    ----------
    batches
        As they were sent out together.
    part
        (D,) what each left in the timeline, -1 for nothing.
    cancelled_s
        (D,) when the schedule cancelled it; infinite if it did not.
    late
        (D,) whether its update no longer counted when it ended.
    round, device, rank, cell
        (D,) as in `Batch`.
    start_s, ready_s
        (D,) when it begins to compute, and is ready to send if it does not fail before.
    download_s, download_bytes, download_bps
        (D,) its own download.
    compute_w, transmit_w
        (D,) powers.
    bits
        (D,) what it sends.
    fails_s, leaves_s, charge_j
        (D,) when it fails before it is ready, when it goes away, what its battery holds.
    delivered
        (D, A) share of the payload that each attempt gets through.
    link
        Uplinks (D,) at the moment they were sent out; None if nobody was.
    """

    batches: tuple[Batch, ...]
    part: IntArray
    cancelled_s: FloatArray
    late: NDArray[np.bool_]
    round: IntArray
    device: IntArray
    rank: IntArray
    cell: IntArray
    start_s: FloatArray
    ready_s: FloatArray
    download_s: FloatArray
    download_bytes: IntArray
    download_bps: FloatArray
    compute_w: FloatArray
    transmit_w: FloatArray
    bits: FloatArray
    fails_s: FloatArray
    leaves_s: FloatArray
    charge_j: FloatArray
    delivered: FloatArray
    link: Link | None

    def __len__(self) -> int:
        """Return the number of devices D."""
        return len(self.part)

    @classmethod
    def of(cls, system: System, playback: Playback) -> Self:
        """What a playback was asked to send out."""
        batches = [batch for batch in playback.batches if len(batch)]
        size = np.array([len(batch) for batch in batches], dtype=np.int64)

        def column(name: str, kind: type = np.float64) -> NDArray[Any]:
            parts = [getattr(batch, name) for batch in batches]
            return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)

        def each(name: str) -> FloatArray:
            return np.repeat([float(getattr(batch, name)) for batch in batches], size)

        cancelled_s = np.full(len(playback.part), np.inf)
        cancelled_s[list(playback.cancelled_s)] = list(playback.cancelled_s.values())
        late = np.zeros(len(playback.part), dtype=np.bool_)
        late[playback.late] = True
        device = column("device", np.int64)
        heard_s, after_s = each("heard_s"), column("after_s")
        return cls(
            tuple(batches),
            np.array(playback.part, dtype=np.int64),
            cancelled_s,
            late,
            each("round").astype(np.int64),
            device,
            column("rank", np.int64),
            column("cell", np.int64),
            heard_s + after_s,
            heard_s + (after_s + column("compute_s")),
            column("download_s"),
            column("download_bytes", np.int64),
            column("download_bps"),
            column("compute_w"),
            column("transmit_w"),
            column("bits"),
            column("fails_s"),
            column("leaves_s"),
            column("charge_j"),
            column("delivered") if batches else np.zeros((0, 1)),
            _links(system, batches, device),
        )


def _links(system: System, batches: list[Batch], device: IntArray) -> Link | None:
    channel = system.fleet.channel
    if not batches:
        return None
    if not channel.changes:
        return channel.start.uplink.take(device)
    return join([batch.link for batch in batches])
