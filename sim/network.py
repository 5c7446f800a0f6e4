"""The network in simulated time: SimPy processes for server, devices and channels.

A device that was sent out downloads, computes, and uploads; each interval becomes one timeline row
when it ends, and every change of an uplink band in use one spectrum row. Its part ends with one row
whose outcome says how: `done`; `dropped` if it crashed, went away, ran out of charge or gave up
sending; `late` if it finished for nothing; `cancelled` if the server sent it home. Nothing here
reads the host's clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np
import simpy

from sim.clock import Clock
from sim.dispatch import Batch, FloatArray
from sim.timeline import Interval, Outcome, Phase, Piece, Spectrum
from sim.uplink import DividedUplink, Transfer, Uplink
from wireless.channel import Channel

Process = Generator[simpy.Event, Any, None]


class Member:
    """A device that is out: one of a batch.

    Parameters
    ----------
    batch, place
        The batch, and the device's place in it.
    device
        Its number.
    uplink, transfer
        The band that it sends in, and its upload.
    transmit_w
        Power that it radiates at full power.
    at_risk
        Whether its upload may break off.

    Attributes
    ----------
    outcome
        How its part ended, None while it is out.
    heard
        Whether its own download, if it has one, was reported.
    late
        Whether its update will not count even if it arrives.
    energy_j
        What it has spent.
    end_s
        Simulated seconds at which its part ended.
    """

    __slots__ = (
        "at_risk",
        "attempt",
        "attempt_bits",
        "batch",
        "device",
        "end_s",
        "energy_j",
        "heard",
        "late",
        "outcome",
        "place",
        "transfer",
        "transmit_w",
        "uplink",
    )

    def __init__(
        self,
        batch: Batch,
        place: int,
        device: int,
        uplink: Uplink,
        transfer: Transfer,
        transmit_w: float,
        at_risk: bool,
    ) -> None:
        self.batch, self.place, self.device = batch, place, device
        self.uplink, self.transfer, self.transmit_w = uplink, transfer, transmit_w
        self.at_risk = at_risk
        self.outcome: Outcome | None = None
        self.heard = self.late = False
        self.energy_j = self.end_s = 0.0
        self.attempt_bits = transfer.bits
        self.attempt = -1  # none yet


class _Use:
    """What a cell uses of its band, reported when it has changed.

    Parameters
    ----------
    clock, cell
        Simulated time, and the cell's number.
    on_spectrum
        Called with every change.
    """

    __slots__ = ("_active", "_band_hz", "_cell", "_clock", "_on_spectrum", "_since_s", "_told")

    def __init__(self, clock: Clock, cell: int, on_spectrum: Callable[[Spectrum], None]) -> None:
        self._clock, self._cell, self._on_spectrum = clock, cell, on_spectrum
        self._since_s, self._band_hz, self._active = math.inf, 0.0, 0  # not used yet
        self._told: tuple[float, int] | None = None

    def change(self, band_hz: float, active: int) -> None:
        """Note what is used from now on; of changes at one moment the last one holds."""
        now = self._clock.now
        if now > self._since_s:
            self._report()
        self._since_s, self._band_hz, self._active = now, band_hz, active

    def finish(self) -> None:
        """Report that nothing is used from now on, if something ever was."""
        if self._since_s < math.inf:
            self.change(0.0, 0)
            self._report()

    def _report(self) -> None:
        """Tell what is used from a moment on, unless it is what was told before."""
        told = (self._band_hz, self._active)
        if told != self._told:
            self._told = told
            self._on_spectrum(Spectrum(self._since_s, *told, self._cell))


class Network:
    """A server, downlinks, and the uplink bands of one or more cells.

    Parameters
    ----------
    clock
        Simulated time.
    make_uplink
        Makes the uplink of a cell from what it is to call: when an attempt ends, when the band in
        use changes, and with pieces of transfers.
    downlink_hz
        Width of the downlink band.
    backoff_s
        Pause after the first lost attempt of an upload; it doubles with every further one.
    on_interval, on_spectrum
        Called with every finished interval and every change of an uplink band in use.
    on_piece
        Called with every span of a transfer over which it held a constant band; None to spare the
        work.

    Attributes
    ----------
    on_end
        Called with every member whose part has ended by itself, not if it was cancelled: the
        schedule listens here.
    """

    def __init__(
        self,
        clock: Clock,
        make_uplink: Callable[..., Uplink],
        downlink_hz: float,
        backoff_s: float,
        on_interval: Callable[[Interval], None],
        on_spectrum: Callable[[Spectrum], None],
        on_piece: Callable[[Piece], None] | None = None,
    ) -> None:
        self.clock = clock
        self._make_uplink, self._downlink_hz, self._backoff_s = make_uplink, downlink_hz, backoff_s
        self._on_interval, self._on_spectrum = on_interval, on_spectrum
        self._on_piece = on_piece
        self._uplinks: dict[int, Uplink] = {}
        self._uses: list[_Use] = []
        self._out: dict[Member, None] = {}
        self.on_end: Callable[[Member], None] = lambda _: None

    # The server.

    def serve(self, round_index: int, phase: Phase, until_s: float) -> Process:
        """The server's own time until a moment: planning, waiting, aggregating; no row if none."""
        start = self.clock.now
        if until_s > start:
            yield self.clock.at(until_s)
            self._on_interval(Interval(round_index, None, phase, start, until_s))

    def broadcast(
        self, round_index: int, receivers: Iterable[int], size: int, rate_bps: float, until_s: float
    ) -> Process:
        """Send `size` bytes to everybody at once; one row for the server and one per receiver."""
        start, band_hz = self.clock.now, self._downlink_hz
        yield self.clock.at(until_s)
        for device in (None, *receivers):
            energy = None if device is None else 0.0
            self._on_interval(
                Interval(
                    round_index,
                    device,
                    "downlink",
                    start,
                    until_s,
                    size,
                    band_hz,
                    rate_bps,
                    energy,
                )
            )

    def drop(self, round_index: int, device: int) -> None:
        """A device that fading keeps from sending; it gives up at once."""
        now = self.clock.now
        self._on_interval(
            Interval(round_index, device, "uplink", now, now, 0, energy_j=0.0, outcome="dropped")
        )

    # Devices.

    def send_out(self, batch: Batch, reserved_hz: FloatArray | None = None) -> list[Member]:
        """Let the devices of a batch do their part from now on.

        Parameters
        ----------
        batch
            The devices; the present moment is when they have received a broadcast, or when the
            server begins to send to them.
        reserved_hz
            (M,) band that a rule that reserves gives to each; None under another rule.

        Returns
        -------
        list of Member
            In the order of the batch.
        """
        uplinks, transfers = self._prepare(batch, reserved_hz)
        columns = (batch.device.tolist(), uplinks, transfers, batch.transmit_w.tolist())
        at_risk = batch.at_risk
        members = [
            Member(batch, place, *values, at_risk)
            for place, values in enumerate(zip(*columns, strict=True))
        ]
        for member in members:
            member.transfer.owner = member
        self._out.update(dict.fromkeys(members))
        if batch.download_s.any():
            self.clock.process(self._downloads(batch, members))
        self.clock.process(self._computations(batch, members))
        return members

    def cancel(self, members: Iterable[Member], outcome: Outcome = "cancelled") -> None:
        """End the part of those members that are still out; what they spent stays spent."""
        now = self.clock.now
        for member in members:
            if member.outcome is not None:
                continue
            batch, place = member.batch, member.place
            start = float(batch.start_s[place])
            if member.attempt >= 0:
                self._break_off(member, outcome)
            elif now >= start:
                self._stop_computing(member, start, now, outcome)
            else:
                self._stop_downloading(member, start - float(batch.download_s[place]), outcome)

    def set_band(self, band_hz: float) -> None:
        """Change the width of every uplink band from now on."""
        for uplink in self._uplinks.values():
            assert isinstance(uplink, DividedUplink)
            uplink.set_band(band_hz)

    def relink(self, channel: Channel) -> None:
        """Give everybody who is out the link of the moment."""
        by_uplink: dict[Uplink, list[Member]] = {}
        for member in self._out:
            by_uplink.setdefault(member.uplink, []).append(member)
        for uplink, members in by_uplink.items():
            assert isinstance(uplink, DividedUplink)
            device = np.array([member.device for member in members], dtype=np.int64)
            link = channel.at(device, self.clock.now).uplink
            uplink.relink([member.transfer for member in members], link)

    def finish(self) -> None:
        """End what is still going on, and report what is in use."""
        self.cancel(list(self._out))
        for use in self._uses:
            use.finish()

    def _prepare(
        self, batch: Batch, reserved_hz: FloatArray | None
    ) -> tuple[Sequence[Uplink], Sequence[Transfer]]:
        """Bands and uploads (M,) of a batch."""
        if not batch.cell.any():
            uplink = self._uplink(0)
            return [uplink] * len(batch), uplink.prepare(batch.link, batch.bits, reserved_hz)
        uplinks: dict[int, Uplink] = {}
        transfers: dict[int, Transfer] = {}
        for cell in np.unique(batch.cell).tolist():
            places = np.flatnonzero(batch.cell == cell)
            uplink = self._uplink(cell)
            held = None if reserved_hz is None else reserved_hz[places]
            prepared = uplink.prepare(batch.link.take(places), batch.bits[places], held)
            uplinks.update(dict.fromkeys(places.tolist(), uplink))
            transfers.update(zip(places.tolist(), prepared, strict=True))
        every = range(len(batch))
        return [uplinks[place] for place in every], [transfers[place] for place in every]

    def _uplink(self, cell: int) -> Uplink:
        if cell not in self._uplinks:
            use = _Use(self.clock, cell, self._on_spectrum)
            self._uses.append(use)
            self._uplinks[cell] = self._make_uplink(
                self._attempt_over,
                use.change,
                None if self._on_piece is None else self._piece,
            )
        return self._uplinks[cell]

    def _downloads(self, batch: Batch, members: list[Member]) -> Process:
        """Downloads of a batch that are sent to one device after the other."""
        end_s = batch.start_s
        order = np.argsort(end_s, kind="stable").tolist()
        until, lasts = end_s.tolist(), batch.download_s.tolist()
        for place in order:
            member, moment = members[place], until[place]
            if moment > self.clock.now:
                yield self.clock.at(moment)
            if member.outcome is None and not member.heard:
                self._heard(member, moment - lasts[place], moment)

    def _heard(self, member: Member, start_s: float, end_s: float) -> None:
        """Report a download of one's own."""
        batch, place = member.batch, member.place
        member.heard = True
        self._on_interval(
            Interval(
                batch.round,
                member.device,
                "downlink",
                start_s,
                end_s,
                int(batch.download_bytes[place]),
                self._downlink_hz,
                float(batch.download_bps[place]),
                0.0,
            )
        )

    def _computations(self, batch: Batch, members: list[Member]) -> Process:
        """Training of a batch, and what follows: in the order in which devices become ready."""
        clock, on_interval, number = self.clock, self._on_interval, batch.round
        moment_s = np.minimum(batch.ready_s, batch.fails_s)
        fails = np.isfinite(batch.fails_s)
        order = np.argsort(moment_s, kind="stable")
        for place, moment, start, energy, failed in zip(
            order.tolist(),
            moment_s[order].tolist(),
            batch.start_s[order].tolist(),
            batch.compute_j[order].tolist(),
            fails[order].tolist(),
            strict=True,
        ):
            if moment > clock.now:
                yield clock.at(moment)
            member = members[place]
            if member.outcome is not None:
                continue
            if failed:
                self._stop_computing(member, start, moment, "dropped")
                self.on_end(member)
                continue
            on_interval(
                Interval(number, member.device, "compute", start, moment, None, None, None, energy)
            )
            member.energy_j = energy
            self._send(member)

    def _stop_computing(
        self, member: Member, start_s: float, now_s: float, outcome: Outcome
    ) -> None:
        """A device that ends while it computes has spent power times time."""
        lasts_s = float(member.batch.download_s[member.place])
        if lasts_s > 0 and not member.heard:
            # It has its download at this very moment.
            self._heard(member, start_s - lasts_s, start_s)
        energy = float(member.batch.compute_w[member.place]) * (now_s - start_s)
        self._on_interval(
            Interval(
                member.batch.round,
                member.device,
                "compute",
                start_s,
                now_s,
                None,
                None,
                None,
                energy,
                outcome,
            )
        )
        member.energy_j, member.end_s, member.outcome = energy, now_s, outcome
        self._leaves(member)

    def _stop_downloading(self, member: Member, start_s: float, outcome: Outcome) -> None:
        """A device that ends before it has its download: part of it, or nothing."""
        now, batch, place = self.clock.now, member.batch, member.place
        begun = min(start_s, now)
        rate = float(batch.download_bps[place])
        self._on_interval(
            Interval(
                batch.round,
                member.device,
                "downlink",
                begun,
                now,
                int(rate * (now - begun)) // 8,
                self._downlink_hz,
                rate,
                0.0,
                outcome,
            )
        )
        member.end_s, member.outcome = now, outcome
        self._leaves(member)

    def _leaves(self, member: Member) -> None:
        """A member is out no more; without the circle it is freed as soon as nobody needs it."""
        del self._out[member]
        member.transfer.owner = None

    # Uploads.

    def _send(self, member: Member) -> None:
        """Begin the next attempt of an upload."""
        member.attempt += 1
        left_s = math.inf
        if member.at_risk:
            batch, place = member.batch, member.place
            member.attempt_bits = float(batch.bits[place] * batch.delivered[place, member.attempt])
            leaves_s = float(batch.leaves_s[place])
            if leaves_s <= self.clock.now:
                self._gone(member)
                return
            if member.attempt == 0 and leaves_s < math.inf:
                self._later(leaves_s, lambda: self._gone(member))
            charge_j = float(batch.charge_j[place])
            if charge_j < math.inf and member.transmit_w > 0:
                left_s = max(charge_j - member.energy_j, 0.0) / member.transmit_w
        member.uplink.start(member.transfer, member.attempt_bits, left_s)

    def _attempt_over(self, transfer: Transfer) -> None:
        """An attempt that has got through as much as it could."""
        member: Member = transfer.owner
        if transfer.sent_bits < member.attempt_bits:
            outcome: Outcome = "dropped"  # the battery is empty
        elif member.attempt_bits == transfer.bits:
            outcome = "late" if member.late else "done"
        elif member.attempt + 1 < member.batch.delivered.shape[1]:
            self._uplink_row(member, "lost")
            pause_s = self._backoff_s * 2.0**member.attempt
            self._later(self.clock.now + pause_s, lambda: self._again(member))
            return
        else:
            outcome = "dropped"
        self._uplink_row(member, outcome)
        self.on_end(member)

    def _again(self, member: Member) -> None:
        """Try once more, unless the device is no longer out."""
        if member.outcome is None:
            self._send(member)

    def _gone(self, member: Member) -> None:
        """A device goes away in the middle of its upload, or before the next attempt of it."""
        if member.outcome is None:
            self._break_off(member, "dropped")
            self.on_end(member)

    def _break_off(self, member: Member, outcome: Outcome) -> None:
        """Stop an upload that is under way, or that waits for its next attempt."""
        transfer = member.transfer
        if transfer.sending:
            member.uplink.stop(transfer)
        else:
            transfer.begin_s, transfer.sent_bits = None, 0.0
            transfer.used_hz_s = transfer.power_s = 0.0
        self._uplink_row(member, outcome)

    def _uplink_row(self, member: Member, outcome: Outcome) -> None:
        """Report an attempt that has ended."""
        now, batch, transfer = self.clock.now, member.batch, member.transfer
        begin = now if transfer.begin_s is None else transfer.begin_s
        seconds = now - begin
        energy = member.transmit_w * transfer.power_s
        self._on_interval(
            Interval(
                batch.round,
                member.device,
                "uplink",
                begin,
                now,
                int(transfer.sent_bits) // 8,
                transfer.used_hz_s / seconds if seconds > 0 else None,
                transfer.sent_bits / seconds if seconds > 0 else None,
                energy,
                outcome,
            )
        )
        member.energy_j += energy
        if outcome != "lost":
            member.outcome, member.end_s = outcome, now
            self._leaves(member)

    def _piece(
        self, transfer: Transfer, start_s: float, end_s: float, band_hz: float, rate_bps: float
    ) -> None:
        """Report a span of constant band."""
        assert self._on_piece is not None
        member: Member = transfer.owner
        self._on_piece(Piece(member.batch.round, member.device, start_s, end_s, band_hz, rate_bps))

    def _later(self, time_s: float, what: Callable[[], None]) -> None:
        """Do something at a moment."""
        self.clock.at(time_s).callbacks.append(lambda _: what())
