"""The network in simulated time: SimPy processes for transfers and computation.

Every interval becomes one timeline row when it ends, and every change of an uplink band in use one
spectrum row. Nothing here reads the host's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy

from sim.dispatch import Dispatch, Opened
from sim.timeline import Interval, Phase, Spectrum
from sim.uplink import Uplink
from wireless.energy import uplink_energy_j
from wireless.spectrum import Rule, Whole

Process = Generator[simpy.Event, Any, None]


class Network:
    """A server, a downlink, and the uplink bands of one or more cells.

    Parameters
    ----------
    rule, whole
        How uplink bands are divided, and rounded to whole resource blocks.
    on_interval, on_spectrum
        Called with every finished interval and every change of an uplink band in use.
    """

    def __init__(
        self,
        rule: Rule,
        whole: Whole | None,
        on_interval: Callable[[Interval], None],
        on_spectrum: Callable[[Spectrum], None],
    ) -> None:
        self.env = simpy.Environment(0.0)
        self._rule, self._whole = rule, whole
        self._on_interval = on_interval
        self._on_spectrum = on_spectrum
        self._latest: dict[int, Spectrum] = {}

    def serve(self, round_index: int, phase: Phase, seconds: float) -> Process:
        """The server's own time: planning, waiting, aggregating; no row if it takes none."""
        if seconds > 0:
            start = self.env.now
            yield self.env.timeout(seconds)
            self._on_interval(Interval(round_index, None, phase, start, self.env.now))

    def broadcast(
        self,
        round_index: int,
        receivers: Sequence[int],
        size: int,
        band_hz: float,
        rate_bps: float,
    ) -> Process:
        """Send `size` bytes to everybody at once; one row for the server and one per receiver."""
        start = self.env.now
        yield self.env.timeout(8 * size / rate_bps)
        for device in (None, *receivers):
            energy = None if device is None else 0.0
            self._on_interval(
                Interval(
                    round_index,
                    device,
                    "downlink",
                    start,
                    self.env.now,
                    size,
                    band_hz,
                    rate_bps,
                    energy,
                )
            )

    def drop(self, round_index: int, device: int) -> None:
        """A device that fading keeps from sending; it gives up at once."""
        now = self.env.now
        self._on_interval(
            Interval(round_index, device, "uplink", now, now, 0, energy_j=0.0, outcome="dropped")
        )

    def take_part(self, opened: Opened, downlink_hz: float) -> Process:
        """All devices of a round: download if not broadcast, compute, upload; until the last."""
        uplinks = {
            cell: self._uplink(opened, cell)
            for cell in sorted({job.cell for job in opened.dispatches})
        }
        cells = [
            self.env.process(self._cell(opened, cell, uplink, downlink_hz))
            for cell, uplink in uplinks.items()
        ]
        yield self.env.all_of(cells)
        for row in self._latest.values():
            self._on_spectrum(row)
        self._latest.clear()

    def _cell(self, opened: Opened, cell: int, uplink: Uplink, downlink_hz: float) -> Process:
        """One cell's devices; one download after the other, while those who have theirs compute."""
        parts = []
        for member, job in enumerate(opened.dispatches):
            if job.cell != cell:
                continue
            if job.download_s > 0:
                yield from self._download(job, downlink_hz)
            part = self._compute_and_send(job, member, opened.bits[member], uplink)
            parts.append(self.env.process(part))
        yield self.env.all_of(parts)

    def _uplink(self, opened: Opened, cell: int) -> Uplink:
        reserved = None
        if self._rule.reserves:
            reserved = np.zeros(len(opened.dispatches))
            for members, transfers in opened.transfers:
                reserved[members] = transfers.bandwidth_hz
        return Uplink(
            self.env,
            self._rule,
            self._whole,
            opened.link,
            opened.band_hz,
            reserved,
            lambda hz, active: self._change(Spectrum(self.env.now, hz, active, cell)),
        )

    def _change(self, row: Spectrum) -> None:
        """Note what a cell uses from now on; of changes at one moment the last one holds."""
        before = self._latest.get(row.cell)
        if before is not None and before.time_s < row.time_s:
            if (before.bandwidth_in_use_hz, before.active) == (row.bandwidth_in_use_hz, row.active):
                return
            self._on_spectrum(before)
        self._latest[row.cell] = row

    def _download(self, job: Dispatch, band_hz: float) -> Process:
        start = self.env.now
        yield self.env.timeout(job.download_s)
        self._on_interval(
            Interval(
                job.round,
                job.device,
                "downlink",
                start,
                self.env.now,
                job.download_bytes,
                band_hz,
                job.download_bps,
                0.0,
            )
        )

    def _compute_and_send(self, job: Dispatch, member: int, bits: float, uplink: Uplink) -> Process:
        start = self.env.now
        yield self.env.timeout(job.compute_s)
        self._on_interval(
            Interval(job.round, job.device, "compute", start, self.env.now, energy_j=job.compute_j)
        )
        transfer = uplink.send(member, bits)
        yield transfer.done
        begin, end = transfer.begin_s, self.env.now
        assert begin is not None
        seconds = end - begin
        self._on_interval(
            Interval(
                job.round,
                job.device,
                "uplink",
                begin,
                end,
                job.upload_bytes,
                transfer.used_hz_s / seconds,
                bits / seconds,
                float(uplink_energy_j(job.tx_power_dbm, transfer.power_s)),
            )
        )
