"""The quick uplinks against the general one, and that against the rules' own formulas."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.uplinks import BAND_HZ, BLOCKS, Cell, Make, cell_of, divided, quick
from wireless.efficiency import FittedNr, LinkAdaptation
from wireless.link import (
    CappedLink,
    ErgodicRayleighLink,
    LinearLink,
    Link,
    PowerLimitedLink,
    make_link,
)
from wireless.power_control import PowerControlledLink
from wireless.spectrum import RULES, Whole

A = np.array([3e5, 1e6, 4e6, 2e7, 1e8, 7e5])
K_DB = np.array([np.nan, 9.0, 3.0, np.nan, 12.0, 9.0])
LINKS: dict[str, Link] = {
    "linear": LinearLink(A / 1e7),
    "power-limited": PowerLimitedLink(A),
    "ergodic": ErgodicRayleighLink(A, 0.7),
    "capped": CappedLink(PowerLimitedLink(A), 2.0),
    "tabulated": make_link(A, FittedNr(), K_DB, "rician"),
    "steps": make_link(A, LinkAdaptation(), fading="none"),
    "power-controlled": PowerControlledLink(
        CappedLink(PowerLimitedLink(A), 2.0), np.array([1e4, 1e5, 1e6, 1e7, 3e5, 1e5])
    ),
}
BITS = np.array([3e6, 1e6, 8e6, 2e7, 2e7, 5e5])
READY_S = np.array([1.0, 2.5, 1.0, 0.0, 4.0, 2.0])


@pytest.mark.parametrize("whole", [None, BLOCKS], ids=["freely", "blocks"])
@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", RULES)
def test_divided_is_the_rule(name: str, kind: str, whole: Whole | None) -> None:
    """Begins, ends, mean bands, power and the band in use are those of `Rule.transfers`."""
    link = LINKS[kind]
    wanted = RULES[name].transfers(READY_S, BITS, link, BAND_HZ, whole)
    cell = cell_of(divided(name, whole), link, BITS, READY_S).run()
    seen = [cell.attempts[n][0] for n in range(6)]
    begin_s, end_s, used, power_s = (
        np.array([getattr(each, field) for each in seen])
        for field in ("begin_s", "end_s", "used_hz_s", "power_s")
    )
    np.testing.assert_allclose(begin_s, wanted.begin_s, rtol=1e-9)
    np.testing.assert_allclose(end_s, wanted.finish_s, rtol=1e-9)
    np.testing.assert_allclose(used / (end_s - begin_s), wanted.bandwidth_hz, rtol=1e-9)
    np.testing.assert_allclose(power_s, wanted.power_s, rtol=1e-9)
    usage = cell.usage()
    usage = usage[np.diff(usage[:, 1:], axis=0, prepend=-1.0).any(axis=1)]
    found = np.array([wanted.in_use_hz, wanted.active]).T
    lasting = np.diff(wanted.event_s, append=np.inf) > 1e-9
    # What rounding alone sets apart is one event, and what changes nothing is none.
    found, event_s = found[lasting], wanted.event_s[lasting]
    change = ~np.isclose(np.diff(found, axis=0, prepend=-1.0), 0, atol=1e-3).all(axis=1)
    moved = ~np.isclose(np.diff(usage[:, 1:], axis=0, prepend=-1.0), 0, atol=1e-3).all(axis=1)
    np.testing.assert_allclose(usage[moved, 0], event_s[change], rtol=1e-9)
    np.testing.assert_allclose(usage[moved, 1:], found[change], rtol=1e-9)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", RULES)
def test_batches_do_not_matter_to_a_rule_that_divides_anew(name: str, kind: str) -> None:
    """Each device prepared by itself: the same ends, to the last bit."""
    if RULES[name].reserves:
        name = "work-conserving"
    link = LINKS[kind]
    together = cell_of(divided(name), link, BITS, READY_S).run()
    apart = Cell(divided(name))
    for n in range(6):
        apart.prepare(link.take(np.array([n])), BITS[[n]], READY_S[[n]])
        apart.at(READY_S[n], partial(apart.start, n))
    assert apart.run().attempts == together.attempts


@dataclass(frozen=True)
class Device:
    """One device's course: payload, link, start, and how its attempts go."""

    exponent: float
    efficiency: float
    knee: float
    start_s: float
    part: float
    budget: float
    stop: float
    pause_s: float

    @property
    def bits(self) -> float:
        """Payload."""
        return float(10**self.exponent)

    @property
    def solo_s(self) -> float:
        """Time alone in the band."""
        return self.bits / self.efficiency / BAND_HZ


def _never_or(value: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return st.one_of(st.just(np.inf), value)


DEVICES = st.lists(
    st.builds(
        Device,
        exponent=st.one_of(st.just(6.0), st.floats(3, 8)),
        efficiency=st.one_of(st.just(1.0), st.floats(0.1, 10)),
        knee=_never_or(st.floats(1.1, 1e3)),
        start_s=st.one_of(st.sampled_from([0.0, 1.0, 2.0, 10.0]), st.floats(0, 100)),
        part=st.one_of(st.just(1.0), st.floats(0.01, 1)),
        budget=_never_or(st.floats(0.01, 100)),
        stop=_never_or(st.floats(0.01, 100)),
        pause_s=_never_or(st.one_of(st.just(0.0), st.floats(0.01, 10))),
    ),
    min_size=1,
    max_size=8,
)


def _played(make: Make, devices: list[Device], link: Link, again: bool) -> Cell:
    """Start, lose or stop; then, if asked, once more as a whole."""
    cell = Cell(make)
    cell.prepare(link, [each.bits for each in devices], [each.start_s for each in devices])

    def stop(n: int) -> None:
        if len(cell.attempts.get(n, ())) == 0 and cell.transfers[n].sending:
            cell.stop(n)
            cell.on_end(n)

    def first(n: int) -> None:
        each = devices[n]
        cell.start(n, each.part, each.budget * each.solo_s)
        if each.stop < np.inf:
            cell.at(cell.clock.now + each.stop * each.solo_s, partial(stop, n))

    def follow(n: int) -> None:
        each = devices[n]
        if not again or len(cell.attempts[n]) > 1 or each.pause_s == np.inf:
            return
        if each.pause_s:
            cell.at(cell.clock.now + each.pause_s, partial(cell.start, n))
        else:
            cell.start(n)

    cell.on_end = follow
    for n, each in enumerate(devices):
        cell.at(each.start_s, partial(first, n))
    return cell.run()


def _agree(devices: list[Device], one: Cell, other: Cell) -> None:
    """To a billionth: of the clock, of the payload, of the time since the begin."""
    assert one.attempts.keys() == other.attempts.keys()
    for n, each in enumerate(devices):
        for this, that in zip(one.attempts[n], other.attempts[n], strict=True):
            assert this.end_s == pytest.approx(that.end_s, rel=1e-9)
            assert this.sent_bits == pytest.approx(that.sent_bits, abs=1e-9 * each.bits)
            work = each.bits / each.efficiency
            assert this.used_hz_s == pytest.approx(that.used_hz_s, rel=1e-9, abs=1e-9 * work)
            assert (this.begin_s is None) == (that.begin_s is None)
            if this.begin_s is not None:
                assert this.begin_s == pytest.approx(that.begin_s, rel=1e-9)
                lasted = this.end_s - this.begin_s
                assert this.power_s == pytest.approx(that.power_s, rel=1e-9, abs=1e-9 * lasted)
    for cell in (one, other):
        assert cell.usage()[-1, 1:].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["equal-split", "proportional", "work-conserving"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(devices=DEVICES)
def test_virtual_time_is_the_general_uplink(name: str, devices: list[Device]) -> None:
    efficiency = np.array([each.efficiency for each in devices])
    knee = np.array([each.knee for each in devices])
    link: Link = LinearLink(efficiency)
    if np.isfinite(knee).all():
        link = PowerControlledLink(link, knee * BAND_HZ)
    _agree(devices, *(_played(way(name), devices, link, True) for way in (divided, quick)))


@pytest.mark.parametrize("name", ["equal-finish", "time-division"])
@pytest.mark.parametrize("whole", [None, BLOCKS], ids=["freely", "blocks"])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(devices=DEVICES)
def test_constant_rates_are_the_general_uplink(
    name: str, whole: Whole | None, devices: list[Device]
) -> None:
    """A queue forgets its order if a second attempt starts within a rounding of another."""
    efficiency = np.array([each.efficiency for each in devices])
    link: Link = PowerLimitedLink(efficiency * BAND_HZ)
    knee = np.array([each.knee for each in devices])
    if np.isfinite(knee).all():
        link = PowerControlledLink(link, knee * BAND_HZ / 30)
    again = name == "equal-finish"
    cells = (_played(way(name, whole), devices, link, again) for way in (divided, quick))
    _agree(devices, *cells)
