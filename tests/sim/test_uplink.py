"""Uplinks in simulated time: closed forms, conservation, stops, budgets, moments."""

import math
from functools import partial

import numpy as np
import pytest

from sim.uplink.shared import SharedUplink
from tests.sim.uplinks import BAND_HZ, BLOCKS, Cell, Make, cell_of, divided, quick
from wireless.link import LinearLink, PowerLimitedLink
from wireless.power_control import PowerControlledLink
from wireless.spectrum import RULES, Whole

DYNAMIC = [name for name, rule in RULES.items() if not rule.reserves]
TOGETHER = [name for name in RULES if name != "time-division"]
every_rule = pytest.mark.parametrize("name", RULES)
every_way = pytest.mark.parametrize("way", [divided, quick])


def linear(count: int, seed: int = 0) -> tuple[LinearLink, np.ndarray, np.ndarray]:
    """Links, payloads and starts of transfers that overlap in part."""
    rng = np.random.default_rng(seed)
    link = LinearLink(rng.uniform(0.2, 6, count))
    return link, rng.uniform(1, 50, count) * 1e5, rng.uniform(0, 30, count)


@every_way
@every_rule
def test_one_device_alone(name: str, way: type[Make]) -> None:
    """It has the band for u / (e B) seconds."""
    cell = cell_of(way(name), LinearLink(np.array([0.5])), [1e6], [3.0], on_piece=True).run()
    (attempt,) = cell.attempts[0]
    assert (attempt.begin_s, attempt.by_itself, attempt.sent_bits) == (3.0, True, 1e6)
    assert attempt.end_s == pytest.approx(5.0, rel=1e-15)
    assert attempt.used_hz_s == pytest.approx(2e6, rel=1e-14)
    assert attempt.power_s == pytest.approx(2.0, rel=1e-14)
    np.testing.assert_allclose(cell.usage(), [[3, BAND_HZ, 1], [5, 0, 0]], rtol=1e-15)
    np.testing.assert_allclose(cell.pieces, [[0, 3, 5, BAND_HZ, 5e5]], rtol=1e-15)


@every_way
def test_equal_split_of_two_that_start_apart(way: type[Make]) -> None:
    """Works of 4 s and 1 s, from 0 s and 1 s: halves from 1 s to 3 s, the first ends at 5 s."""
    cell = cell_of(way("equal-split"), LinearLink(np.array([1.0, 2.0])), [4e6, 2e6], [0.0, 1.0])
    assert cell.run().ends() == pytest.approx([5.0, 3.0], rel=1e-15)
    used = [cell.attempts[n][0].used_hz_s for n in (0, 1)]
    assert used == pytest.approx([4e6, 1e6], rel=1e-14)
    assert [cell.attempts[n][0].power_s for n in (0, 1)] == pytest.approx([5.0, 2.0], rel=1e-15)


@every_way
def test_proportional_of_two_that_start_apart(way: type[Make]) -> None:
    """Works of 4 s and 1 s: from 1 s on four fifths and one fifth; 3 s are left, 3.75 s go by."""
    cell = cell_of(way("proportional"), LinearLink(np.array([1.0, 2.0])), [4e6, 2e6], [0.0, 1.0])
    assert cell.run().ends() == pytest.approx([4.75, 5.0], rel=1e-15)


@every_way
@pytest.mark.parametrize("name", TOGETHER)
def test_equal_starts_and_works_end_together(name: str, way: type[Make]) -> None:
    """At one moment, to the last bit, after the sum of the works."""
    link = LinearLink(np.full(7, 0.3))
    cell = cell_of(way(name), link, [1e5] * 7, [0.1] * 7).run()
    assert len(set(cell.ends())) == 1
    assert cell.ends()[0] == pytest.approx(0.1 + 7e5 / (0.3 * BAND_HZ), rel=1e-14)
    assert cell.usage()[:, 2].tolist() == [7, 0]


@every_way
@pytest.mark.parametrize("name", ["equal-finish", "work-conserving"])
def test_devices_meant_to_end_together_do(name: str, way: type[Make]) -> None:
    """Whatever their starts, links and payloads."""
    link, bits, ready_s = linear(40)
    cell = cell_of(way(name), link, bits, ready_s / 30).run()
    assert len(set(cell.ends())) == 1
    assert cell.usage()[-1].tolist() == [cell.ends()[0], 0, 0]
    end_s = RULES[name].round_time(ready_s / 30, bits, link, BAND_HZ)
    assert cell.ends()[0] == pytest.approx(float(end_s), rel=1e-11)


@every_way
@pytest.mark.parametrize("name", DYNAMIC)
def test_a_band_that_never_idles_ends_with_its_work(name: str, way: type[Make]) -> None:
    """The end is that of one after the other, max over i of tau_i + sum_{j >= i} w_j / B."""
    link, bits, ready_s = linear(50)
    order = np.argsort(ready_s)
    work_s = (bits / link.efficiency_bps_hz)[order] / BAND_HZ
    wanted = (ready_s[order] + work_s[::-1].cumsum()[::-1]).max()
    cell = cell_of(way(name), link, bits, ready_s).run()
    assert max(cell.ends()) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("way", "name", "whole"),
    [
        *((divided, name, whole) for name in RULES for whole in (None, BLOCKS)),
        *((quick, name, None) for name in RULES),
        *((quick, name, BLOCKS) for name in ("equal-finish", "time-division")),
    ],
)
def test_bits_band_and_power_are_conserved(way: type[Make], name: str, whole: Whole | None) -> None:
    """Pieces add up to the bits, to band times time, and to what the callbacks say is in use."""
    link, bits, ready_s = linear(30)
    cell = cell_of(way(name, whole), link, bits, ready_s, on_piece=True)
    for n in range(0, 30, 5):
        cell.at(ready_s[n] + 1.0, partial(cell.stop, n))
    cell.run()
    number, start_s, end_s, band_hz, rate_bps = np.array(cell.pieces).T
    index, lasted = number.astype(int), end_s - start_s
    assert (lasted > 0).all()
    np.testing.assert_allclose(rate_bps, link.efficiency_bps_hz[index] * band_hz, rtol=1e-12)
    last = [cell.attempts[n][-1] for n in range(30)]
    for values, total in (
        (rate_bps * lasted, [each.sent_bits for each in last]),
        (band_hz * lasted, [each.used_hz_s for each in last]),
        (lasted, [each.power_s for each in last]),
    ):
        np.testing.assert_allclose(np.bincount(index, values, 30), total, rtol=1e-10)
    done = [n for n in range(30) if last[n].by_itself]
    assert 24 <= len(done) < 30
    assert [last[n].sent_bits for n in done] == bits[done].tolist()
    time_s, in_use, senders = cell.usage().T
    assert in_use.max() <= BAND_HZ * (1 + 1e-12)
    assert (in_use[-1], senders[-1]) == (0, 0)
    used = sum(each.used_hz_s for each in last)
    assert in_use[:-1] @ np.diff(time_s) == pytest.approx(used, rel=1e-11)
    assert senders[:-1] @ np.diff(time_s) == pytest.approx(lasted.sum(), rel=1e-11)
    if name in DYNAMIC:
        busy_s = np.diff(time_s)[senders[:-1] > 0].sum()
        assert used == pytest.approx(BAND_HZ * busy_s, rel=1e-11)


@every_way
@every_rule
def test_pieces_change_nothing(name: str, way: type[Make]) -> None:
    link, bits, ready_s = linear(30)
    cells = [
        cell_of(way(name), link, bits, ready_s, on_piece=asked).run() for asked in (False, True)
    ]
    assert cells[0].attempts == cells[1].attempts
    assert cells[0].changes == cells[1].changes


@every_way
@every_rule
def test_a_stop_charges_what_was_used(name: str, way: type[Make]) -> None:
    """Alone from 1 s to 2.5 s; the other then has what it would have had without."""
    link = LinearLink(np.array([0.5, 0.5]))
    cell = Cell(way(name))
    cell.prepare(link, [1e6, 1e6], [1.0, 1.0])
    share = 0.5 if name == "equal-finish" else 1.0
    cell.at(1.0, partial(cell.start, 0))
    cell.at(2.5, partial(cell.stop, 0))
    cell.at(2.5, partial(cell.start, 1))
    cell.run()
    first, second = cell.attempts[0][0], cell.attempts[1][0]
    assert not first.by_itself
    assert first.sent_bits == pytest.approx(share * 7.5e5, rel=1e-14)
    assert first.used_hz_s == pytest.approx(share * 1.5e6, rel=1e-14)
    assert first.power_s == 1.5
    assert (second.begin_s, second.end_s) == (2.5, pytest.approx(2.5 + 2 / share, rel=1e-14))


@every_way
@every_rule
def test_a_budget_ends_an_attempt(name: str, way: type[Make]) -> None:
    """At full power it is a time, and the band goes to the others."""
    cell = Cell(way(name))
    cell.prepare(LinearLink(np.array([0.5, 0.5])), [1e6, 1e6], [0.0, 0.0])
    cell.start(0, power_s=1.0)
    cell.at(1.0, partial(cell.start, 1))
    cell.run()
    first, second = cell.attempts[0][0], cell.attempts[1][0]
    assert (first.end_s, first.power_s, first.by_itself) == (1.0, 1.0, True)
    reserved = name == "equal-finish"
    assert first.sent_bits == pytest.approx(2.5e5 if reserved else 5e5, rel=1e-14)
    assert second.end_s == pytest.approx(5.0 if reserved else 3.0, rel=1e-14)


@every_way
@every_rule
def test_a_budget_below_the_knee_goes_with_the_band(name: str, way: type[Make]) -> None:
    """A knee of ten bands: a tenth of full power over all of it, so 0.1 s of budget last 1 s."""
    link = PowerControlledLink(LinearLink(np.array([0.5])), np.array([10 * BAND_HZ]))
    cell = Cell(way(name))
    cell.prepare(link, [1e6], [0.0])
    cell.start(0, power_s=0.1)
    (attempt,) = cell.run().attempts[0]
    assert attempt.end_s == pytest.approx(1.0, rel=1e-14)
    assert attempt.sent_bits == pytest.approx(5e5, rel=1e-13)
    assert attempt.power_s == 0.1
    assert attempt.used_hz_s == pytest.approx(1e6, rel=1e-13)


@every_way
@every_rule
def test_no_budget_ends_an_attempt_as_it_begins(name: str, way: type[Make]) -> None:
    cell = Cell(way(name))
    cell.prepare(LinearLink(np.array([0.5])), [1e6], [0.0])
    cell.at(2.0, partial(cell.start, 0, power_s=0.0))
    (attempt,) = cell.run().attempts[0]
    assert (attempt.begin_s, attempt.end_s, attempt.sent_bits, attempt.power_s) == (2, 2, 0, 0)


@every_way
@every_rule
def test_stopped_as_it_starts_it_never_began(name: str, way: type[Make]) -> None:
    cell = Cell(way(name))
    cell.prepare(LinearLink(np.array([0.5])), [1e6], [0.0])
    cell.at(2.0, partial(cell.start, 0))
    cell.at(2.0, partial(cell.stop, 0))
    (attempt,) = cell.run().attempts[0]
    assert (attempt.begin_s, attempt.sent_bits, attempt.used_hz_s, attempt.power_s) == (
        None,
        0,
        0,
        0,
    )
    assert cell.usage()[-1].tolist() == [2, 0, 0]


@every_way
@every_rule
def test_attempts_follow_each_other(name: str, way: type[Make]) -> None:
    """Two that are lost after a quarter, then the whole: one and a half payloads."""
    cell = Cell(way(name))
    cell.prepare(LinearLink(np.array([0.5])), [1e6], [0.0])
    parts = [0.25, 1.0]
    cell.on_end = lambda n: parts and cell.start(n, parts.pop(0))
    cell.start(0, 0.25)
    cell.run()
    assert [each.sent_bits for each in cell.attempts[0]] == [2.5e5, 2.5e5, 1e6]
    assert cell.ends() == pytest.approx([3.0], rel=1e-14)
    assert cell.usage()[-1].tolist() == [cell.ends()[0], 0, 0]


@every_way
def test_whoever_hears_of_an_end_may_stop_those_that_end_with_it(way: type[Make]) -> None:
    """They have sent everything, and nobody is told of their end."""
    cell = cell_of(way("equal-split"), LinearLink(np.ones(3)), [1e6] * 3, [0.0] * 3)
    cell.on_end = lambda _: [cell.stop(n) for n in range(3)]
    cell.run()
    ended = [cell.attempts[n][0] for n in range(3)]
    assert sorted(each.by_itself for each in ended) == [False, False, True]
    assert {each.end_s for each in ended} == {ended[0].end_s}
    assert [each.sent_bits for each in ended] == pytest.approx([1e6] * 3, rel=1e-12)


@every_way
@pytest.mark.parametrize("name", TOGETHER)
def test_the_order_of_what_happens_at_one_moment_is_irrelevant(name: str, way: type[Make]) -> None:
    """Starts at the end of another, stops and starts: in any order, but for roundings."""
    link, bits, _ = linear(6)
    pair = Cell(way(name))
    pair.prepare(link.take(np.arange(2)), bits[:2], np.zeros(2))
    pair.start(0)
    pair.start(1)
    moment_s = min(pair.run().ends())
    runs = []
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 1, 3]):
        cell = Cell(way(name))
        cell.prepare(link, bits, np.zeros(6))
        for n in (0, 1):
            cell.start(n)
        actions = [*(partial(cell.start, n) for n in (2, 3, 4)), partial(cell.stop, 1)]
        actions.append(lambda cell=cell: (cell.start(5), cell.stop(5)))
        for k in order:
            cell.at(moment_s, actions[k])
        cell.run()
        runs.append(cell)
    for cell in runs[1:]:
        for n in range(6):
            for name_of in ("end_s", "sent_bits", "used_hz_s", "power_s"):
                values = [getattr(each.attempts[n][-1], name_of) for each in (runs[0], cell)]
                assert values[1] == pytest.approx(values[0], rel=1e-11, abs=1e-6)
        np.testing.assert_allclose(cell.usage(), runs[0].usage(), rtol=1e-11)


@pytest.mark.parametrize("name", ["equal-split", "proportional", "work-conserving"])
def test_large_transfers_leave_no_trace_in_small_ones(name: str) -> None:
    """Fifteen decades larger, and gone again: the small one takes as long as alone."""
    cell = Cell(quick(name))
    cell.prepare(LinearLink(np.ones(2)), [1e3, 1e18], [0.0, 0.0])
    cell.start(1)
    cell.start(0)
    cell.at(1.0, partial(cell.stop, 1))
    cell.run()
    sent_before = {"equal-split": 1e3, "proportional": 1e-9, "work-conserving": 1e-9}[name]
    left_s = (1e3 - sent_before) / BAND_HZ
    assert cell.ends()[0] == pytest.approx(1 + left_s if left_s else 2e-3, rel=1e-12)


def test_work_conserving_without_end() -> None:
    """Each comes when a thousandth of the one before is left: parts of 1e-900 do not underflow."""
    cell = Cell(quick("work-conserving"))
    cell.prepare(LinearLink(np.ones(300)), [1e6] * 300, [0.0] * 300)
    for n in range(300):
        cell.at(0.999 * n, partial(cell.start, n))
    cell.run()
    assert cell.ends() == pytest.approx([300.0] * 300, rel=1e-12)
    assert sum(each[0].used_hz_s for each in cell.attempts.values()) == pytest.approx(
        3e8, rel=1e-12
    )


@every_way
@every_rule
def test_far_into_a_run_nothing_stalls(name: str, way: type[Make]) -> None:
    """At a million seconds a transfer of microseconds is next to the clock's resolution."""
    cell = cell_of(way(name), LinearLink(np.array([1.0, 3.0, 7.0])), [1.0, 2.0, 3.0], [1e6] * 3)
    cell.run()
    assert cell.ends() == pytest.approx([1e6] * 3, abs=1e-5)


@every_way
@every_rule
def test_misuse_is_refused(name: str, way: type[Make]) -> None:
    cell = Cell(way(name))
    cell.prepare(LinearLink(np.ones(1)), [1e6], [0.0])
    for part, power_s in ((0.0, 1.0), (1.1, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="bits must be"):
            cell.start(0, part, power_s)
    cell.start(0)
    with pytest.raises(ValueError, match="under way already"):
        cell.start(0)
    cell.stop(0)
    with pytest.raises(ValueError, match="not under way"):
        cell.uplink.stop(cell.transfers[0])


def test_reservations_of_two_batches_do_not_fit() -> None:
    cell = Cell(quick("equal-finish"))
    for _ in range(2):
        cell.prepare(LinearLink(np.ones(1)), [1e6], [0.0])
    cell.start(0)
    with pytest.raises(ValueError, match="several batches"):
        cell.start(1)


def test_shared_refuses_what_is_not_linear() -> None:
    cell = Cell(quick("equal-split"))
    with pytest.raises(ValueError, match="linear"):
        cell.prepare(PowerLimitedLink(np.array([1e6])), [1e6], [0.0])
    with pytest.raises(ValueError, match="time-division"):
        Cell(Make(partial(SharedUplink, RULES["time-division"]), RULES["time-division"]))


def test_blocks_that_leave_nobody_any_band_are_refused() -> None:
    def none(band: np.ndarray, _: float) -> np.ndarray:
        return np.zeros_like(band)

    with pytest.raises(ValueError, match="whole"):
        Cell(quick("time-division", none))
    cell = cell_of(divided("equal-split", none), LinearLink(np.ones(1)), [1e6], [0.0])
    with pytest.raises(ValueError, match="whole"):
        cell.run()
