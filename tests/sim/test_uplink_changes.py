"""The general uplink when band and links change, and with a least time between divisions."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.uplink import DividedUplink
from tests.sim.uplinks import BAND_HZ, BLOCKS, Cell, cell_of, divided
from wireless.link import LinearLink, PowerLimitedLink
from wireless.power_control import PowerControlledLink
from wireless.spectrum import RULES

every_rule = pytest.mark.parametrize("name", RULES)


def uplink(cell: Cell) -> DividedUplink:
    """The uplink, which can change."""
    assert isinstance(cell.uplink, DividedUplink)
    return cell.uplink


@every_rule
def test_everybody_stalls_without_a_band(name: str) -> None:
    """A gap of 10 s delays all ends behind it by 10 s, and costs neither band nor power."""
    link, bits = LinearLink(np.array([0.5, 1.0, 2.0])), np.array([2e6, 3e6, 1e6])
    cells = [cell_of(divided(name), link, bits, [0.0, 0.5, 0.7], on_piece=True) for _ in range(2)]
    cells[1].at(2.0, partial(uplink(cells[1]).set_band, 0.0))
    cells[1].at(12.0, partial(uplink(cells[1]).set_band, BAND_HZ))
    smooth, stalled = (cell.run() for cell in cells)
    ends = np.array(smooth.ends())
    assert (ends > 2.0).any()
    np.testing.assert_allclose(stalled.ends(), ends + 10 * (ends > 2.0), rtol=1e-12)
    for n in range(3):
        one, other = smooth.attempts[n][0], stalled.attempts[n][0]
        assert other.used_hz_s == pytest.approx(one.used_hz_s, rel=1e-11)
        assert other.power_s == pytest.approx(one.power_s, rel=1e-11)
    assert [2.0, 0.0, 0.0] in stalled.usage().tolist()
    assert all(end_s <= 2 or start_s >= 12 for _, start_s, end_s, _, _ in stalled.pieces)


@pytest.mark.parametrize("name", [name for name in RULES if name != "equal-finish"])
def test_half_the_band_takes_twice_as_long(name: str) -> None:
    link, bits = LinearLink(np.array([0.5, 1.0])), np.array([2e6, 3e6])
    cells = [cell_of(divided(name), link, bits, [0.0, 0.0]) for _ in range(2)]
    cells[1].at(1.0, partial(uplink(cells[1]).set_band, BAND_HZ / 2))
    whole, half = (np.array(cell.run().ends()) for cell in cells)
    np.testing.assert_allclose(half - 1, 2 * (whole - 1), rtol=1e-12)


def test_reservations_shrink_with_the_band() -> None:
    """To 3/4 MHz: two of 1/2 MHz get 3/8 each, and all of it again once the other has ended."""
    cell = cell_of(divided("equal-finish"), LinearLink(np.ones(2)), [2e6, 2e6], [0.0, 0.0])
    cell.at(0.0, partial(uplink(cell).set_band, 0.75e6))
    cell.at(1.0, partial(cell.stop, 1))
    assert cell.run().ends() == pytest.approx([1 + (2e6 - 0.375e6) / 0.5e6, 1.0], rel=1e-14)


def test_reservations_of_two_batches_share_the_band() -> None:
    cell = Cell(divided("equal-finish"))
    for n in range(2):
        cell.prepare(LinearLink(np.ones(1)), [1e6], [0.0])
        cell.start(n)
    assert cell.run().ends() == pytest.approx([2.0, 2.0], rel=1e-14)


@every_rule
def test_a_device_that_moves_away(name: str) -> None:
    """Alone at 1 bit/s/Hz for a second, then at a quarter of it."""
    cell = cell_of(divided(name), LinearLink(np.array([1.0])), [2e6], [0.0])
    change = partial(uplink(cell).relink, cell.transfers, LinearLink(np.array([0.25])))
    cell.at(1.0, change)
    assert cell.run().ends() == pytest.approx([5.0], rel=1e-14)


@pytest.mark.parametrize("name", [name for name in RULES if name != "equal-finish"])
def test_the_same_links_again_change_nothing(name: str) -> None:
    """Given to some of those on the way, to one who comes later, and to one who is done."""
    a = np.array([1e6, 3e6, 2e6, 5e6])
    link = PowerControlledLink(PowerLimitedLink(a), a / 10)
    bits, ready_s = [1e5, 4e6, 4e6, 4e6], [0.0, 0.0, 0.5, 30.0]
    cells = [cell_of(divided(name), link, bits, ready_s) for _ in range(2)]
    chosen = np.array([2, 0, 3])
    changes = [cells[1].transfers[n] for n in chosen]
    cells[1].at(2.0, partial(uplink(cells[1]).relink, changes, link.take(chosen)))
    before, after = (cell.run() for cell in cells)
    assert min(before.ends()[1:]) > 2.0
    # Only the rule under which all end together has the first still sending.
    assert (before.ends()[0] > 2.0) == (name == "work-conserving")
    np.testing.assert_allclose(after.ends(), before.ends(), rtol=1e-11)


def test_new_links_count_from_the_change_on_while_the_division_waits() -> None:
    """Halves of the band until 10 s; the first at a quarter of its rate from 1 s on."""
    cell = cell_of(divided("equal-split", None, 10.0), LinearLink(np.ones(2)), [1e7] * 2, [0.0] * 2)
    change = partial(uplink(cell).relink, cell.transfers[:1], LinearLink(np.array([0.25])))
    cell.at(1.0, change)
    cell.at(3.0, partial(cell.stop, 0))
    cell.run()
    assert cell.attempts[0][0].sent_bits == pytest.approx(0.5e6 + 2 * 0.125e6, rel=1e-14)
    # Of the second 5 Mbit are left at 10 s.
    assert cell.ends()[1] == pytest.approx(15.0, rel=1e-14)


def test_what_comes_and_goes_between_divisions_waits() -> None:
    """Division at 0 s, 4 s and 8 s; an end at 3 s and an arrival at 1 s."""
    cell = Cell(divided("equal-split", None, 4.0))
    cell.prepare(LinearLink(np.ones(3)), [1.5e6, 6e6, 1e6], [0.0] * 3)
    cell.start(0)
    cell.start(1)
    cell.at(1.0, partial(cell.start, 2))
    cell.run()
    # The first ends at 3 s, its half lies idle until 4 s, when the third begins in its place.
    assert cell.ends() == pytest.approx([3.0, 10.0, 6.0], rel=1e-14)
    assert cell.attempts[2][0].begin_s == 4.0
    wanted = [[0, 1e6, 2], [3, 5e5, 1], [4, 1e6, 2], [6, 5e5, 1], [8, 1e6, 1], [10, 0, 0]]
    usage = cell.usage()
    changed = np.diff(usage[:, 1:], axis=0, prepend=-1.0).any(axis=1)
    np.testing.assert_allclose(usage[changed], wanted, rtol=1e-14)


def test_an_idle_band_still_waits_for_its_next_division() -> None:
    cell = Cell(divided("equal-split", None, 4.0))
    cell.prepare(LinearLink(np.ones(2)), [1e6, 1e6], [0.0] * 2)
    cell.start(0)
    cell.at(2.0, partial(cell.start, 1))
    cell.run()
    assert (cell.attempts[1][0].begin_s, cell.ends()) == (4.0, [1.0, 5.0])


def test_a_new_band_does_not_wait() -> None:
    """It is divided at once, and the least time counts from there."""
    cell = Cell(divided("equal-split", None, 4.0))
    cell.prepare(LinearLink(np.ones(3)), [2e6, 2e6, 1e6], [0.0] * 3)
    cell.start(0)
    cell.at(1.0, partial(cell.start, 1))
    cell.at(1.5, partial(uplink(cell).set_band, BAND_HZ / 2))
    cell.at(2.0, partial(cell.start, 2))
    cell.run()
    assert cell.attempts[1][0].begin_s == 1.5
    assert cell.attempts[2][0].begin_s == 5.5
    # At 1.5 s half a megabit is left, which a quarter of the old band sends in 2 s.
    assert cell.ends()[0] == pytest.approx(3.5, rel=1e-14)


def test_reservations_do_not_wait() -> None:
    cells = [
        cell_of(divided("equal-finish", None, wait_s), LinearLink(np.ones(3)), [1e6] * 3, [0, 1, 2])
        for wait_s in (0.0, 100.0)
    ]
    assert cells[0].run().attempts == cells[1].run().attempts


@pytest.mark.parametrize("name", ["work-conserving", "equal-split", "proportional"])
@pytest.mark.parametrize("whole", [None, BLOCKS], ids=["freely", "blocks"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    ready_s=st.lists(st.floats(0, 20), min_size=1, max_size=10),
    wait_s=st.floats(0.01, 10),
    data=st.data(),
)
def test_divisions_keep_their_distance(
    name: str, whole: object, ready_s: list[float], wait_s: float, data: st.DataObject
) -> None:
    """Bands grow at divisions alone, which are so far apart; all bits get through."""
    exponent = st.lists(st.floats(4, 7), min_size=len(ready_s), max_size=len(ready_s))
    bits = 10 ** np.array(data.draw(exponent))
    link = PowerLimitedLink(10 ** np.array(data.draw(exponent)))
    cell = cell_of(divided(name, whole, wait_s), link, bits, ready_s, on_piece=True).run()
    begin: dict[tuple[int, float], float] = {}
    for n, start_s, _, band_hz, _ in cell.pieces:
        begin.setdefault((n, band_hz), start_s)
    moments = np.unique(list(begin.values()))
    assert (np.diff(moments) >= wait_s * (1 - 1e-12)).all()
    assert [cell.attempts[n][0].sent_bits for n in range(len(bits))] == bits.tolist()
    assert cell.usage()[:, 1].max() <= BAND_HZ * (1 + 1e-12)


def test_changes_without_meaning_are_refused() -> None:
    cell = Cell(divided("equal-split"))
    cell.prepare(LinearLink(np.ones(2)), [1e6, 1e6], [0.0] * 2)
    for band_hz in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="band_hz"):
            uplink(cell).set_band(band_hz)
    with pytest.raises(ValueError, match="2 transfers but 1 links"):
        uplink(cell).relink(cell.transfers, LinearLink(np.ones(1)))
