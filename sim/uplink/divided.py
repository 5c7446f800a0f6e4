"""A band that is divided anew at every event, by any rule over any links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from simpy.events import Event

from sim.clock import Clock
from sim.uplink.alarm import Alarm
from sim.uplink.attempts import STEPS, TIE
from sim.uplink.base import FloatArray, OnChange, OnEnd, OnPiece, Transfer, Uplink
from sim.uplink.links import ActiveLinks
from wireless.link import Link
from wireless.spectrum import Rule, Whole

#: Rows of the active attempts: bits that are still to send of the attempt, of the payload beyond
#: it; the payload; seconds at full power that are left; hertz seconds and seconds at full power so
#: far; the begin, NaN before; band that is reserved, and that is held; its rate and power share.
(
    _LEFT,
    _BEYOND,
    _PAYLOAD,
    _BUDGET,
    _USED,
    _POWER,
    _BEGIN,
    _RESERVED,
    _BAND,
    _RATE,
    _SHARE,
    _ROWS,
) = range(12)


@dataclass(slots=True, eq=False, kw_only=True)
class _Divided(Transfer):
    """A transfer by its batch's links and its number there.

    Parameters
    ----------
    link, index
        The links, and which of them is its own.
    reserved_hz
        Band that a rule that reserves has given to it, else zero.
    goal_bits, budget_s
        What ends the attempt.
    """

    link: Link
    index: int
    reserved_hz: float
    goal_bits: float = 0.0
    budget_s: float = math.inf


class DividedUplink(Uplink):
    """Every rule over every link, whatever changes, at O(active) for each event and more.

    The band is divided once everything else has happened that happens at a moment, and between two
    divisions all rates are constant. What comes or goes before the least time between two
    divisions is over waits for it: an arrival sends nothing, and what an attempt held that has
    ended lies idle. A rule that reserves gives everybody what `prepare` reserved, less in
    proportion if the band is narrower than the sum, and does not wait.

    Parameters
    ----------
    rule, whole
        How the band is divided, and rounded to whole resource blocks if it is.
    reallocation_s
        Least time between two divisions.
    clock, band_hz, on_end, on_change, on_piece
        As of `Uplink`.
    """

    def __init__(
        self,
        rule: Rule,
        whole: Whole | None,
        reallocation_s: float,
        clock: Clock,
        band_hz: float,
        on_end: OnEnd,
        on_change: OnChange,
        on_piece: OnPiece | None = None,
    ) -> None:
        super().__init__(clock, band_hz, on_end, on_change, on_piece)
        self._rule, self._whole = rule, whole
        self._reallocation_s = 0.0 if rule.reserves else reallocation_s
        self._active: list[_Divided] = []
        self._state = np.zeros((_ROWS, 0))
        self._links = ActiveLinks()
        self._arrived: list[_Divided] = []
        self._since_s = clock.now
        # Whether to look at the moment's end, and what there is to do then.
        self._looks = self._divides = self._forced = self._relinked = False
        self._next_division_s = -math.inf
        self._ends, self._waits = Alarm(clock, self._end), Alarm(clock, self._look)

    def prepare(
        self, link: Link, bits: FloatArray, reserved_hz: FloatArray | None = None
    ) -> list[Transfer]:
        """Note links and reservations: see `Uplink.prepare`."""
        held = np.zeros(len(link)) if reserved_hz is None else reserved_hz
        return [
            _Divided(payload, link=link, index=index, reserved_hz=hz)
            for index, (payload, hz) in enumerate(zip(bits.tolist(), held.tolist(), strict=True))
        ]

    def start(self, transfer: Transfer, bits: float, power_s: float = math.inf) -> None:
        """Begin an attempt: see `Uplink.start`."""
        assert isinstance(transfer, _Divided)
        self._open(transfer, bits, power_s)
        transfer.goal_bits, transfer.budget_s = bits, power_s
        self._arrived.append(transfer)
        self._divides = True
        self._look()

    def stop(self, transfer: Transfer) -> None:
        """Cut an attempt off: see `Uplink.stop`."""
        assert isinstance(transfer, _Divided)
        self._check_open(transfer)
        if transfer in self._arrived:
            self._arrived.remove(transfer)
        elif transfer in self._ended:
            self._ended.remove(transfer)
        else:
            self._advance()
            chosen = np.zeros(len(self._active), dtype=np.bool_)
            chosen[self._active.index(transfer)] = True
            self._close(chosen)
            self._divides = True
            self._look()
        if transfer.begin_s == self._clock.now:
            transfer.begin_s = None
        transfer.sending = False

    def set_band(self, band_hz: float) -> None:
        """Change the width of the band from now on; at zero everybody stalls until it returns.

        It is divided anew at once, however short the time since the last division.

        Parameters
        ----------
        band_hz
            New width, >= 0.
        """
        if not 0 <= band_hz < math.inf:
            raise ValueError(f"band_hz must be finite and not negative, got {band_hz}")
        self._band_hz = band_hz
        self._divides = self._forced = True
        self._look()

    def relink(self, transfers: Sequence[Transfer], link: Link) -> None:
        """Give transfers other links from now on.

        Rates change at once. The band is divided anew as at any event.

        Parameters
        ----------
        transfers
            M of them, under way or not.
        link
            Their links (M,), of the kind that they had.
        """
        if len(transfers) != len(link):
            raise ValueError(f"{len(transfers)} transfers but {len(link)} links")
        self._advance()
        place = {id(each): number for number, each in enumerate(self._active)}
        chosen = []
        for index, transfer in enumerate(transfers):
            assert isinstance(transfer, _Divided)
            transfer.link, transfer.index = link, index
            if id(transfer) in place:
                chosen.append((place[id(transfer)], index))
        if chosen:
            places, members = np.array(chosen).T
            self._links.replace(places, link.take(members))
            self._divides = self._relinked = True
            self._look()

    def _look(self) -> None:
        """See to what has changed once everything has happened that happens at this moment."""
        if not self._looks:
            self._looks = True
            callbacks = self._clock.moment_over().callbacks
            assert callbacks is not None
            callbacks.append(self._moment_over)

    def _moment_over(self, _: Event) -> None:
        self._looks = False
        now = self._clock.now
        self._advance()
        self._take_ended()
        self._admit()
        self._divides &= bool(self._active)
        if self._divides and (self._forced or now >= self._next_division_s):
            self._divides = False
            self._next_division_s = now + self._reallocation_s
            self._hold(self._division())
        elif self._divides:
            self._waits.set(self._next_division_s)
            if self._relinked:
                self._hold(self._state[_BAND])
        self._forced = self._relinked = False
        self._wait()
        held = self._state[_BAND].tolist()
        self._on_change(math.fsum(held), len(held) - held.count(0.0))
        self._tell()

    def _end(self) -> None:
        """Let those go who have ended."""
        self._advance()
        self._take_ended()
        self._look()
        self._tell()

    def _advance(self) -> None:
        """Count what was sent since the last event."""
        since, now = self._since_s, self._clock.now
        self._since_s, elapsed = now, now - since
        if not elapsed or not self._active:
            return
        state = self._state
        state[_LEFT] -= state[_RATE] * elapsed
        state[_USED] += state[_BAND] * elapsed
        state[_POWER] += state[_SHARE] * elapsed
        state[_BUDGET] -= state[_SHARE] * elapsed
        if self._on_piece is not None:
            held = zip(self._active, state[_BAND].tolist(), state[_RATE].tolist(), strict=True)
            for each, hz, bps in held:
                if hz > 0:
                    self._on_piece(each, since, now, hz, bps)

    def _take_ended(self) -> None:
        """Take out whose attempt has ended but for a rounding: see `attempts.is_rounding`."""
        if not self._active:
            return
        now, state = self._clock.now, self._state
        slack_s = np.fmax(TIE * (now - state[_BEGIN]), STEPS * math.ulp(now))
        sent = state[_LEFT] <= state[_RATE] * slack_s
        dry = (state[_BUDGET] <= state[_SHARE] * slack_s) & (state[_SHARE] > 0) & ~sent
        ended = sent | dry
        if not ended.any():
            return
        self._divides = True
        runs_dry = dry[ended].tolist()
        for each, is_dry in zip(self._close(ended), runs_dry, strict=True):
            if is_dry:
                each.power_s = each.budget_s
            else:
                each.sent_bits = each.goal_bits
            self._ended.append(each)

    def _close(self, chosen: NDArray[np.bool_]) -> list[_Divided]:
        """Take attempts out, (active,) by mask, and count what they have taken."""
        taken = self._state[[_LEFT, _USED, _POWER]][:, chosen].tolist()
        closed = list(compress(self._active, chosen.tolist()))
        for each, left, used, power_s in zip(closed, *taken, strict=True):
            each.sent_bits = min(max(each.goal_bits - left, 0.0), each.goal_bits)
            each.used_hz_s, each.power_s = used, min(power_s, each.budget_s)
        keep = ~chosen
        self._active = list(compress(self._active, keep.tolist()))
        self._state = self._state[:, keep]
        self._links.keep(keep)
        return closed

    def _admit(self) -> None:
        """Take in who has arrived, without any band so far."""
        arrived, self._arrived = self._arrived, []
        if not arrived:
            return
        new = np.zeros((_ROWS, len(arrived)))
        new[_LEFT] = [each.goal_bits for each in arrived]
        new[_PAYLOAD] = [each.bits for each in arrived]
        new[_BEYOND] = new[_PAYLOAD] - new[_LEFT]
        new[_BUDGET] = [each.budget_s for each in arrived]
        new[_RESERVED] = [each.reserved_hz for each in arrived]
        new[_BEGIN] = np.nan
        self._state = np.concatenate((self._state, new), axis=1)
        self._active += arrived
        self._links.append([(each.link, each.index) for each in arrived])

    def _division(self) -> FloatArray:
        """Bandwidths of the active by the rule, (active,) in Hz."""
        state, band_hz = self._state, self._band_hz
        band: FloatArray
        if not self._active or not band_hz:
            return np.zeros(len(self._active))
        if self._rule.reserves:
            band, sum_hz = state[_RESERVED], float(state[_RESERVED].sum())
            if sum_hz <= band_hz:
                return band
            band = band * (band_hz / sum_hz)
        else:
            left = state[_LEFT] + state[_BEYOND]
            band = self._rule.divide(left, state[_PAYLOAD], self._links.links, band_hz)
        if self._whole is not None:
            band = self._whole(band, band_hz)
        if not band.any():
            raise ValueError("whole must leave band to at least one of the devices that send")
        return band

    def _hold(self, band: FloatArray) -> None:
        """Let the active hold bandwidths, (active,) in Hz, from now on."""
        state, links = self._state, self._links.links
        state[_BAND], state[_RATE], state[_SHARE] = band, links.rate(band), links.power_share(band)
        for place in np.flatnonzero((band > 0) & np.isnan(state[_BEGIN])):
            state[_BEGIN, place] = self._active[place].begin_s = self._clock.now

    def _wait(self) -> None:
        """Wait for the next end."""
        state = self._state
        soonest = math.inf
        for left, speed in ((state[_LEFT], state[_RATE]), (state[_BUDGET], state[_SHARE])):
            sends = speed > 0
            soonest = min(soonest, float((left[sends] / speed[sends]).min(initial=math.inf)))
        self._ends.set(self._clock.now + max(soonest, 0.0))
