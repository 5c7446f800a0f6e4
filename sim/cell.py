"""The cell in simulated time: SimPy processes for transfers and computation.

Every interval becomes one timeline row when it ends, and every change of the uplink band in use one
spectrum row. Nothing here reads the host's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from sim.timeline import Interval, Spectrum
from wireless.energy import compute_energy_j, uplink_energy_j

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One device's part of one round.

    Parameters
    ----------
    round, device
        Who, and when.
    compute_s, compute_power_w
        Duration and power of its local training.
    upload_bytes
        Payload of its upload.
    bandwidth_hz, rate_bps
        What it is granted in the uplink, and the rate its link reaches there.
    tx_power_dbm
        Power of its transmitter.
    """

    round: int
    device: int
    compute_s: float
    compute_power_w: float
    upload_bytes: int
    bandwidth_hz: float
    rate_bps: float
    tx_power_dbm: float


class Cell:
    """A server, a broadcast downlink and a shared uplink.

    Parameters
    ----------
    on_interval, on_spectrum
        Called with every finished interval and every change of the uplink band in use.
    """

    def __init__(
        self,
        on_interval: Callable[[Interval], None],
        on_spectrum: Callable[[Spectrum], None],
    ) -> None:
        self.env = simpy.Environment(0.0)
        self._on_interval = on_interval
        self._on_spectrum = on_spectrum
        self._sending = 0
        self._in_use_hz = 0.0

    def broadcast(
        self, round_index: int, receivers: list[int], size: int, band_hz: float, rate_bps: float
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

    def take_part(self, job: Dispatch) -> Process:
        """Compute, then upload in the granted band."""
        start = self.env.now
        yield self.env.timeout(job.compute_s)
        spent = compute_energy_j(job.compute_power_w, job.compute_s)
        self._on_interval(
            Interval(job.round, job.device, "compute", start, self.env.now, energy_j=float(spent))
        )
        start = self.env.now
        seconds = 8 * job.upload_bytes / job.rate_bps
        self._use(job.bandwidth_hz, 1)
        yield self.env.timeout(seconds)
        self._use(-job.bandwidth_hz, -1)
        self._on_interval(
            Interval(
                job.round,
                job.device,
                "uplink",
                start,
                self.env.now,
                job.upload_bytes,
                job.bandwidth_hz,
                job.rate_bps,
                float(uplink_energy_j(job.tx_power_dbm, seconds)),
            )
        )

    def aggregate(self, round_index: int, seconds: float) -> Process:
        """The server's own work at the end of a round."""
        start = self.env.now
        yield self.env.timeout(seconds)
        self._on_interval(Interval(round_index, None, "aggregate", start, self.env.now))

    def _use(self, bandwidth_hz: float, senders: int) -> None:
        """Count `senders` more (or fewer) that use `bandwidth_hz` more (or less) of the band."""
        self._sending += senders
        # An idle band is empty exactly, whatever the sums before were rounded to.
        self._in_use_hz = self._in_use_hz + bandwidth_hz if self._sending else 0.0
        self._on_spectrum(Spectrum(self.env.now, self._in_use_hz, self._sending))
