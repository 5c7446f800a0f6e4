"""Rules that share a band: closed forms, conservation, queueing theory and independent solvers."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from wireless.link import ErgodicRayleighLink, LinearLink, PowerLimitedLink
from wireless.link.base import FullPower
from wireless.spectrum import RULES, equal_finish, equal_finish_time, solo_finish_time

BAND = 20e6
KINDS = [LinearLink, PowerLimitedLink, ErgodicRayleighLink]
DYNAMIC = [name for name, rule in RULES.items() if not rule.reserves]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_rule = pytest.mark.parametrize("name", RULES)


class Plain:
    """A linear link in disguise, so that no rule can take the closed form of linear links."""

    def __init__(self, efficiency):
        self.inner = LinearLink(efficiency)
        self.limit_bps = self.inner.limit_bps
        self.rate = self.inner.rate
        self.bandwidth = self.inner.bandwidth
        self.bandwidth_and_slope = self.inner.bandwidth_and_slope

    def take(self, index):
        return Plain(self.inner.efficiency_bps_hz[index])

    def __len__(self):
        return len(self.inner)


class Capped(FullPower):
    """rate = min(e b, limit): the limit is reached, at a bandwidth that may lie in the band."""

    def __init__(self, efficiency, limit_bps):
        self.efficiency, self.limit_bps = efficiency, limit_bps

    def rate(self, bandwidth_hz):
        return np.minimum(np.asarray(bandwidth_hz) * self.efficiency, self.limit_bps)

    def bandwidth(self, rate_bps):
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(self, rate_bps):
        possible = rate_bps <= self.limit_bps
        slope = np.where(possible, 1 / self.efficiency, np.inf)
        return np.where(possible, rate_bps / self.efficiency, np.inf), slope

    def take(self, index):
        return Capped(self.efficiency[index], self.limit_bps[index])

    def __len__(self):
        return len(self.efficiency)


class Saturating(FullPower):
    """rate = L (1 - exp(-e b / L)), which a float cannot tell from L beyond some 37 L / e."""

    def __init__(self, efficiency, limit_bps):
        self.efficiency, self.limit_bps = efficiency, limit_bps

    def rate(self, bandwidth_hz):
        return -self.limit_bps * np.expm1(-self.efficiency * bandwidth_hz / self.limit_bps)

    def bandwidth(self, rate_bps):
        return self.bandwidth_and_slope(rate_bps)[0]

    def bandwidth_and_slope(self, rate_bps):
        possible = rate_bps < self.limit_bps
        share = np.where(possible, rate_bps / self.limit_bps, 0.5)
        bandwidth = -np.log1p(-share) * self.limit_bps / self.efficiency
        slope = 1 / (self.efficiency * (1 - share))
        return np.where(possible, bandwidth, np.inf), np.where(possible, slope, np.inf)

    def take(self, index):
        return Saturating(self.efficiency[index], self.limit_bps[index])

    def __len__(self):
        return len(self.efficiency)


def cohort(kind, size, seed=0):
    """Starts, bits and links of a random cohort whose transfers overlap in part."""
    rng = np.random.default_rng(seed)
    start, bits = rng.lognormal(2, 1, size), rng.uniform(1, 50, size) * 1e6
    if kind is LinearLink:
        return start, bits, LinearLink(rng.uniform(0.2, 6, size))
    return start, bits, kind(10 ** rng.uniform(5, 9, size))


def blocks(bandwidth_hz, band_hz, block_hz=1e5):
    """At least one block for everybody who has a share, the rest rounded down."""
    count = np.maximum(np.floor(bandwidth_hz / block_hz * (1 + 1e-12)), bandwidth_hz > 0)
    while count.sum() * block_hz > band_hz * (1 + 1e-12):
        count[count.argmax()] -= 1
    return count * block_hz


def sending(transfers):
    """Who holds band between each event and the next, (E - 1, M), and for how long, (E - 1,)."""
    middle = (transfers.event_s[1:] + transfers.event_s[:-1])[:, None] / 2
    return (
        (transfers.begin_s < middle) & (middle < transfers.finish_s),
        np.diff(transfers.event_s),
    )


def test_rules_by_their_names():
    assert list(RULES) == [
        "equal-finish",
        "work-conserving",
        "equal-split",
        "proportional",
        "time-division",
    ]
    assert all(rule.name == name for name, rule in RULES.items())
    assert [name for name, rule in RULES.items() if rule.reserves] == ["equal-finish"]


@every_rule
@every_kind
def test_one_device_has_the_band_to_itself(name, kind):
    start, bits, link = cohort(kind, 1)
    solo = start[0] + bits[0] / link.rate(BAND)[0]
    assert RULES[name].round_time(start, bits, link, BAND) == pytest.approx(solo, rel=1e-14)
    transfers = RULES[name].transfers(start, bits, link, BAND)
    assert transfers.begin_s[0] == start[0]
    assert transfers.finish_s[0] == pytest.approx(solo, rel=1e-14)
    assert transfers.bandwidth_hz[0] == pytest.approx(BAND, rel=1e-12)
    assert transfers.power_s[0] == pytest.approx(solo - start[0], rel=1e-12)
    np.testing.assert_array_equal(
        transfers.event_s, np.stack([transfers.begin_s, transfers.finish_s])[:, 0]
    )
    np.testing.assert_allclose(transfers.in_use_hz, [BAND, 0], rtol=1e-12)
    assert transfers.active.tolist() == [1, 0]


@every_rule
@every_kind
def test_two_equal_transfers_halve_the_band_or_queue(name, kind):
    _, _, link = cohort(kind, 1)
    pair = link.take(np.array([0, 0]))
    transfers = RULES[name].transfers([3, 3], [7e6, 7e6], pair, BAND)
    whole, half = 7e6 / pair.rate(BAND)[0], 7e6 / pair.rate(BAND / 2)[0]
    queue = name == "time-division"
    finish = [3 + whole, 3 + 2 * whole] if queue else [3 + half, 3 + half]
    np.testing.assert_allclose(transfers.finish_s, finish, rtol=1e-13)
    np.testing.assert_allclose(transfers.bandwidth_hz, BAND if queue else BAND / 2, rtol=1e-12)
    np.testing.assert_allclose(transfers.power_s, whole if queue else half, rtol=1e-12)
    assert transfers.active.tolist() == ([1, 1, 0] if queue else [2, 0])


@pytest.mark.parametrize(
    ("name", "begin", "finish", "event", "in_use"),
    [
        # 4/T + 1/(T - 1) = 2
        (
            "equal-finish",
            [0, 1],
            [(7 + 17**0.5) / 4] * 2,
            [0, 1, (7 + 17**0.5) / 4],
            [16 / (7 + 17**0.5), 2, 0],
        ),
        ("work-conserving", [0, 1], [2.5, 2.5], [0, 1, 2.5], [2, 2, 0]),
        ("equal-split", [0, 1], [2.5, 2], [0, 1, 2, 2.5], [2, 2, 2, 0]),
        ("proportional", [0, 1], [2.25, 2.5], [0, 1, 2.25, 2.5], [2, 2, 2, 0]),
        ("time-division", [0, 2], [2, 2.5], [0, 2, 2.5], [2, 2, 0]),
    ],
)
def test_two_transfers_by_hand(name, begin, finish, event, in_use):
    """Works of 4 and 1 Hz s, ready at 0 and 1 s, in a band of 2 Hz."""
    transfers = RULES[name].transfers([0, 1], [4, 3], LinearLink(np.array([1.0, 3.0])), 2)
    np.testing.assert_allclose(transfers.begin_s, begin, rtol=1e-14)
    np.testing.assert_allclose(transfers.finish_s, finish, rtol=1e-14)
    np.testing.assert_allclose(transfers.event_s, event, rtol=1e-14)
    np.testing.assert_allclose(transfers.in_use_hz, in_use, rtol=1e-13)
    mean = np.array([4, 1]) / (transfers.finish_s - transfers.begin_s)
    np.testing.assert_allclose(transfers.bandwidth_hz, mean, rtol=1e-13)


@pytest.mark.parametrize("name", ["work-conserving", "equal-split", "proportional"])
def test_events_reach_the_closed_form_of_linear_links(name):
    start, bits, link = cohort(LinearLink, 60)
    present = np.random.default_rng(1).random((200, 60)) < 0.3
    closed = RULES[name].round_time(start, bits, link, BAND, present)
    stepped = RULES[name].round_time(start, bits, Plain(link.efficiency_bps_hz), BAND, present)
    # Some 40 events with a few roundings each.
    np.testing.assert_allclose(stepped, closed, rtol=1e-13)


def test_rules_that_never_idle_end_together_on_linear_links():
    start, bits, link = cohort(LinearLink, 60)
    start[:10] = start[0]
    present = np.random.default_rng(2).random((200, 60)) < 0.3
    ready, work = np.sort(start), bits / link.efficiency_bps_hz / BAND
    for row in present:
        order = np.argsort(np.where(row, start, np.inf))[: row.sum()]
        ready, work = start[order], (bits / link.efficiency_bps_hz / BAND)[order]
        end = max((ready[i] + work[i:].sum() for i in range(len(order))), default=0)
        for name in DYNAMIC:
            found = RULES[name].round_time(start, bits, link, BAND, row)
            assert found == pytest.approx(end, rel=1e-13)


@pytest.mark.parametrize("kind", [*KINDS, Capped])
def test_work_conserving_never_ends_after_equal_finish(kind):
    """Static reservations stay possible at every event, so dividing again cannot delay."""
    rng = np.random.default_rng(3)
    for seed in range(10):
        start, bits, link = cohort(LinearLink if kind is Capped else kind, 24, seed)
        if kind is Capped:
            link = Capped(link.efficiency_bps_hz, rng.uniform(1e5, 4e6, 24))
        # From transfers that rarely meet to all at once.
        bits *= 10 ** rng.uniform(-1, 3)
        present = rng.random((1000, 24)) < rng.uniform(0.05, 0.5, (1000, 1))
        static = RULES["equal-finish"].round_time(start, bits, link, BAND, present)
        conserving = RULES["work-conserving"].round_time(start, bits, link, BAND, present)
        assert (conserving <= static * (1 + 1e-12)).all()
        if kind is not Capped:
            assert (conserving < static * (1 - 1e-9)).any()
        if kind is LinearLink:
            latest = np.where(present, start, 0).max(axis=1)
            work = (present * bits / link.efficiency_bps_hz).sum(axis=1)
            assert (conserving <= (latest + work / BAND) * (1 + 1e-12)).all()


@every_kind
def test_equal_finish_against_brentq_close_to_infeasible(kind):
    """Rates within 1e-2 to 1e-9 of the limits: T close to the longest solo finish."""
    for seed in range(6):
        start, bits, link = cohort(kind, 8, seed)
        if kind is not LinearLink:
            link = kind(link.snr_bandwidth_hz * 10.0 ** -(seed + 1))
        finish = equal_finish_time(start, bits, link, BAND)
        solo = solo_finish_time(start, bits, link, BAND) - start

        def excess(t, start=start, bits=bits, link=link):
            # Bounded, so that the root finder can start from an infinite band.
            used = link.bandwidth(bits / (t - start)).sum() / BAND
            return 1.0 if np.isinf(used) else (used - 1) / (used + 1)

        low, high = (start + solo).max() * (1 - 1e-12), start.max() + solo.sum() * (1 + 1e-9)
        root = brentq(excess, low, high, xtol=1e-300, rtol=1e-15, maxiter=500)
        assert finish == pytest.approx(root, rel=1e-12)


@pytest.mark.parametrize("kind", [PowerLimitedLink, ErgodicRayleighLink])
def test_work_conserving_against_brentq_at_every_start(kind):
    for seed in range(4):
        start, bits, link = cohort(kind, 9, seed)
        bits[seed] = 0
        order = np.argsort(start)
        left, end = np.zeros(9), 0.0
        for place, device in enumerate(order):
            left[device] = bits[device]
            active = np.flatnonzero(left > 0)
            if len(active):
                chosen, u = link.take(active), left[active]
                solo = u / chosen.rate(np.full(len(u), BAND))
                time = brentq(
                    lambda t, chosen=chosen, u=u: chosen.bandwidth(u / t).sum() / BAND - 1,
                    solo.max() * (1 - 1e-13 if len(u) == 1 else 1 + 1e-13),
                    solo.sum() * (1 + 1e-9),
                    xtol=1e-300,
                    rtol=1e-15,
                )
                end = start[device] + time
                if place < 8:
                    gap = start[order[place + 1]] - start[device]
                    left *= max(1 - gap / time, 0)
        found = RULES["work-conserving"].round_time(start, bits, link, BAND)
        assert found == pytest.approx(end, rel=1e-12)


@every_kind
def test_work_conserving_is_equal_finish_for_equal_starts(kind):
    _, bits, link = cohort(kind, 12)
    start = np.full(12, 5.0)
    static = RULES["equal-finish"].round_time(start, bits, link, BAND)
    conserving = RULES["work-conserving"].round_time(start, bits, link, BAND)
    assert conserving == pytest.approx(static, rel=1e-13)
    left = RULES["work-conserving"].divide(bits, bits, link, BAND)
    np.testing.assert_allclose(left, equal_finish(start, bits, link, BAND).bandwidth_hz, rtol=1e-10)


@pytest.mark.parametrize("name", ["equal-split", "proportional"])
@every_kind
def test_rates_integrate_to_the_bits(name, kind):
    """Rates from the definition of the rule and from who was sending when."""
    start, bits, link = cohort(kind, 30)
    transfers = RULES[name].transfers(start, bits, link, BAND)
    active, lasts = sending(transfers)
    weight = np.ones(30) if name == "equal-split" else bits / link.rate(BAND)
    band = BAND * active * weight / np.maximum((active * weight).sum(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(lasts @ link.rate(band), bits, rtol=1e-10)
    mean = lasts @ band / (transfers.finish_s - transfers.begin_s)
    np.testing.assert_allclose(transfers.bandwidth_hz, mean, rtol=1e-10)


@pytest.mark.parametrize("name", ["equal-finish", "time-division"])
@every_kind
def test_constant_rates_carry_the_bits(name, kind):
    start, bits, link = cohort(kind, 30)
    transfers = RULES[name].transfers(start, bits, link, BAND)
    rate = link.rate(transfers.bandwidth_hz)
    np.testing.assert_allclose(rate * transfers.power_s, bits, rtol=1e-11)


@every_rule
@every_kind
@pytest.mark.parametrize("whole", [None, blocks])
def test_band_is_conserved(name, kind, whole):
    for seed in range(2):
        start, bits, link = cohort(kind, 20, seed)
        bits[3] = 0
        transfers = RULES[name].transfers(start, bits, link, BAND, whole)
        active, lasts = sending(transfers)
        assert transfers.in_use_hz.max() <= BAND * (1 + 1e-12)
        assert (transfers.in_use_hz[-1], transfers.active[-1]) == (0, 0)
        assert (np.diff(transfers.event_s) > 0).all()
        np.testing.assert_array_equal(transfers.active[:-1], active.sum(axis=1))
        held = transfers.finish_s - transfers.begin_s
        np.testing.assert_allclose(transfers.power_s, held, rtol=1e-9)
        assert transfers.bandwidth_hz @ held == pytest.approx(
            transfers.in_use_hz[:-1] @ lasts, rel=1e-11
        )
        assert set(transfers.event_s) == set(transfers.begin_s[bits > 0]) | set(
            transfers.finish_s[bits > 0]
        )
        if kind is LinearLink:
            work = transfers.bandwidth_hz * held
            np.testing.assert_allclose(work, bits / link.efficiency_bps_hz, rtol=1e-10)
        if whole is None and name in DYNAMIC:
            busy = transfers.active > 0
            np.testing.assert_allclose(transfers.in_use_hz[busy], BAND, rtol=1e-9)


@every_rule
@every_kind
def test_round_ends_with_the_last_transfer(name, kind):
    for seed in range(3):
        start, bits, link = cohort(kind, 20, seed)
        bits[:3] = 0
        start[seed] = 1e3 if seed == 2 else start[seed]
        transfers = RULES[name].transfers(start, bits, link, BAND)
        time = RULES[name].round_time(start, bits, link, BAND)
        assert transfers.end_s == pytest.approx(time, rel=1e-12)
        assert transfers.end_s == transfers.finish_s.max()
        queues = name == "time-division"
        assert (transfers.begin_s >= start).all() if queues else (transfers.begin_s == start).all()
        np.testing.assert_array_equal(transfers.finish_s[bits == 0], start[bits == 0])
        assert (transfers.bandwidth_hz[bits == 0] == 0).all()


@every_rule
@every_kind
def test_batch_equals_one_by_one(name, kind):
    start, bits, link = cohort(kind, 15)
    rng = np.random.default_rng(1)
    present = rng.random((3, 20, 15)) < 0.4
    present[0, 0] = False
    bits = bits * rng.integers(0, 2, (20, 15))
    time = RULES[name].round_time(start, bits, link, BAND, present)
    assert time.shape == (3, 20)
    for row in np.ndindex(3, 20):
        mask = present[row]
        alone = RULES[name].round_time(start[mask], bits[row[1]][mask], link.take(mask), BAND)
        assert time[row] == alone


@every_rule
@every_kind
def test_every_cell_has_a_band_of_its_own(name, kind):
    start, bits, link = cohort(kind, 24)
    rng = np.random.default_rng(4)
    cell = rng.choice([-2, 5, 11], 24)
    present = rng.random((30, 24)) < 0.4
    present[0] = False
    time = RULES[name].round_time(start, bits, link, BAND, present, cell)
    of_cell = [
        RULES[name].round_time(start, bits, link, BAND, present & (cell == number))
        for number in (-2, 5, 11)
    ]
    np.testing.assert_array_equal(time, np.max(of_cell, axis=0))
    one = RULES[name].round_time(start, bits, link, BAND, present, np.zeros(24, int))
    np.testing.assert_array_equal(one, RULES[name].round_time(start, bits, link, BAND, present))


@every_rule
@every_kind
def test_nobody_present_ends_at_zero(name, kind):
    start, bits, link = cohort(kind, 4)
    rule, nobody = RULES[name], link.take(np.zeros(0, int))
    assert rule.round_time(start, bits, link, BAND, np.zeros(4, bool)) == 0
    assert rule.round_time([], [], nobody, BAND) == 0
    assert rule.divide([], [], nobody, BAND).shape == (0,)
    transfers = rule.transfers([], [], nobody, BAND)
    assert transfers.end_s == 0
    assert len(transfers.finish_s) == len(transfers.event_s) == len(transfers.in_use_hz) == 0
    idle = rule.transfers(start, np.zeros(4), link, BAND)
    np.testing.assert_array_equal(idle.finish_s, start)
    assert len(idle.event_s) == 0
    assert rule.round_time(-start, np.zeros(4), link, BAND) == -start.min()


@every_rule
@every_kind
def test_permuting_devices_permutes_the_transfers(name, kind):
    start, bits, link = cohort(kind, 12)
    order = np.random.default_rng(2).permutation(12)
    straight = RULES[name].transfers(start, bits, link, BAND)
    permuted = RULES[name].transfers(start[order], bits[order], link.take(order), BAND)
    np.testing.assert_allclose(permuted.finish_s, straight.finish_s[order], rtol=1e-12)
    np.testing.assert_allclose(permuted.bandwidth_hz, straight.bandwidth_hz[order], rtol=1e-9)
    assert RULES[name].round_time(
        start[order], bits[order], link.take(order), BAND
    ) == pytest.approx(RULES[name].round_time(start, bits, link, BAND), rel=1e-13)


@every_rule
@every_kind
def test_scaling_and_shifting_time(name, kind):
    """Starts and bits times s: everything lasts s times as long. Later starts: a later end."""
    start, bits, link = cohort(kind, 12)
    time = RULES[name].round_time(start, bits, link, BAND)
    scaled = RULES[name].round_time(3.7 * start, 3.7 * bits, link, BAND)
    shifted = RULES[name].round_time(start + 100, bits, link, BAND)
    assert scaled == pytest.approx(3.7 * time, rel=1e-12)
    assert shifted == pytest.approx(time + 100, rel=1e-12)


@every_rule
def test_band_and_bits_scale_together(name):
    """a, B and the bits times s: the same spectral efficiencies, the same times."""
    start, bits, link = cohort(PowerLimitedLink, 12)
    wide = PowerLimitedLink(8 * link.snr_bandwidth_hz)
    time = RULES[name].round_time(start, bits, link, BAND)
    assert RULES[name].round_time(start, 8 * bits, wide, 8 * BAND) == pytest.approx(time, rel=1e-12)


@pytest.mark.parametrize("name", ["equal-finish", "work-conserving", "equal-split", "proportional"])
def test_unlimited_band_leaves_the_limit_of_each_link(name):
    """Over b hertz the rate falls short of its limit by the part a / (2 b)."""
    start, bits, link = cohort(PowerLimitedLink, 12)
    alone = (start + bits / link.limit_bps).max()
    time = RULES[name].round_time(start, bits, link, 1e20)
    assert time == pytest.approx(alone, rel=1e-9)


@every_rule
def test_band_beyond_an_attained_limit_is_left_over(name):
    """Two devices of at most 1 Mbit/s cannot use more than 1 MHz each."""
    link = Capped(np.ones(2), np.full(2, 1e6))
    transfers = RULES[name].transfers([0, 0], [3e6, 2e6], link, 10e6)
    time = RULES[name].round_time([0, 0], [3e6, 2e6], link, 10e6)
    assert time == pytest.approx(5 if name == "time-division" else 3, rel=1e-13)
    assert transfers.end_s == pytest.approx(time, rel=1e-13)


@pytest.mark.parametrize("kind", [Capped, Saturating])
def test_limits_reached_within_the_band(kind):
    """One device after another reaches its limit; static and renewed division stay consistent."""
    for seed in range(6):
        start, bits, linear = cohort(LinearLink, 15, seed)
        limit = 10 ** np.random.default_rng(seed).uniform(4, 8, 15)
        link = kind(linear.efficiency_bps_hz, limit)
        alone = solo_finish_time(start, bits, link, BAND).max()
        end = {}
        for name, rule in RULES.items():
            transfers = rule.transfers(start, bits, link, BAND)
            end[name] = rule.round_time(start, bits, link, BAND)
            assert transfers.end_s == pytest.approx(end[name], rel=1e-12)
            assert transfers.in_use_hz.max() <= BAND * (1 + 1e-12)
            assert end[name] >= alone * (1 - 1e-14)
        assert end["work-conserving"] <= end["equal-finish"] * (1 + 1e-12)
        # Either the band is full or the slowest has all the band that it can use.
        used = equal_finish(start, bits, link, BAND).bandwidth_hz.sum()
        assert used > BAND * (1 - 1e-9) or end["equal-finish"] <= alone * (1 + 1e-14)


def test_deterministic_transfers_of_poisson_starts():
    """M/D/1 at load 1/2: mean time in the system 1 + 1/2 when queueing, 2 when sharing.

    Pollaczek-Khinchine, and the insensitivity of processor sharing to the law of the sizes.
    """
    rng = np.random.default_rng(5)
    start = np.cumsum(rng.exponential(2.0, 300_000))
    link = LinearLink(np.ones(len(start)))
    queue = RULES["time-division"].transfers(start, np.ones(len(start)), link, 1.0)
    # Waits have mean and deviation near 1/2 and 0.8 and are correlated over some ten starts.
    assert (queue.finish_s - start).mean() == pytest.approx(1.5, rel=0.015)
    some = slice(4000)
    shared = RULES["equal-split"].transfers(start[some], np.ones(4000), link.take(some), 1.0)
    # Deviation about 1.3, correlated likewise: 0.06 of standard error.
    assert (shared.finish_s - start[some]).mean() == pytest.approx(2, abs=0.2)
    assert shared.end_s == pytest.approx(queue.finish_s[some].max(), rel=1e-12)


@pytest.mark.parametrize("kind", [LinearLink, PowerLimitedLink])
def test_divisions_by_definition(kind):
    _, total, link = cohort(kind, 6)
    left = total * np.linspace(0.1, 1, 6)
    solo = total / link.rate(np.full(6, BAND))
    band = {name: rule.divide(left, total, link, BAND) for name, rule in RULES.items()}
    for name in ("equal-finish", "work-conserving"):
        lasts = left / link.rate(band[name])
        np.testing.assert_allclose(lasts, lasts[0], rtol=1e-11)
    np.testing.assert_allclose(band["equal-split"], BAND / 6, rtol=1e-14)
    np.testing.assert_allclose(band["proportional"], BAND * solo / solo.sum(), rtol=1e-14)
    np.testing.assert_array_equal(band["time-division"], [BAND, 0, 0, 0, 0, 0])
    for share in band.values():
        assert share.sum() == pytest.approx(BAND, rel=1e-9)


@every_rule
def test_every_division_is_rounded(name):
    start, bits, link = cohort(PowerLimitedLink, 20)
    transfers = RULES[name].transfers(start, bits, link, BAND, blocks)
    in_blocks = transfers.in_use_hz / 1e5
    np.testing.assert_allclose(in_blocks, np.round(in_blocks), atol=1e-9)
    if RULES[name].reserves:
        # The reservation stays although its transfers no longer end together.
        division = equal_finish(start, bits, link, BAND).bandwidth_hz
        np.testing.assert_array_equal(transfers.bandwidth_hz, blocks(division, BAND))
        assert len(np.unique(transfers.finish_s)) > 1
    # Blocks of 1 Hz take less than a thousandth from anybody's share.
    free = RULES[name].round_time(start, bits, link, BAND)
    fine = RULES[name].transfers(start, bits, link, BAND, partial(blocks, block_hz=1.0))
    assert fine.end_s == pytest.approx(free, rel=1e-3)


@every_rule
def test_rounding_everybody_away_is_refused(name):
    link = LinearLink(np.ones(2))
    with pytest.raises(ValueError, match="whole"):
        RULES[name].transfers([0, 0], [1, 1], link, BAND, lambda band, _: np.zeros_like(band))


@every_rule
def test_values_without_meaning_are_refused(name):
    rule, link = RULES[name], LinearLink(np.ones(2))
    for function in (rule.round_time, rule.transfers):
        with pytest.raises(ValueError, match="bits"):
            function([0, 0], [1, -1], link, BAND)
        with pytest.raises(ValueError, match="start_s"):
            function([0, np.nan], [1, 1], link, BAND)
        with pytest.raises(ValueError, match="bandwidth_hz"):
            function([0, 0], [1, 1], link, np.inf)
    with pytest.raises(ValueError, match="one cohort"):
        rule.transfers([[0, 0]], [[1, 1]], link, BAND)
    with pytest.raises(ValueError, match="cell"):
        rule.round_time([0, 0], [1, 1], link, BAND, cell=[0.5, 1])
    with pytest.raises(ValueError, match="cell"):
        rule.round_time([0, 0], [1, 1], link, BAND, cell=[1])
    with pytest.raises(ValueError, match="left_bits"):
        rule.divide([0, 1], [1, 1], link, BAND)
    with pytest.raises(ValueError, match="total_bits"):
        rule.divide([1, 1], [1], link, BAND)
    with pytest.raises(ValueError, match="bandwidth_hz"):
        rule.divide([1, 1], [1, 1], link, 0)


@every_rule
@pytest.mark.parametrize("kind", [LinearLink, PowerLimitedLink])
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e4), st.sampled_from([0.0, 1e-3, 1e6, 1e9]), st.floats(-1, 9)),
        min_size=1,
        max_size=8,
    )
)
def test_any_cohort(name, kind, devices):
    start, bits, exponent = np.array(devices).T
    link = kind(10**exponent)
    rule = RULES[name]
    transfers = rule.transfers(start, bits, link, BAND)
    time = rule.round_time(start, bits, link, BAND)
    # Times of 1e4 s carry digits of 2e-12 s.
    assert transfers.end_s == pytest.approx(time, rel=1e-11, abs=1e-10)
    solo = solo_finish_time(start, bits, link, BAND)
    assert (start <= transfers.begin_s).all()
    assert (transfers.begin_s <= transfers.finish_s).all()
    assert (transfers.finish_s >= solo - 1e-10 - 1e-11 * np.abs(solo)).all()
    assert (transfers.in_use_hz <= BAND * (1 + 1e-12)).all()
    assert (transfers.bandwidth_hz <= BAND * (1 + 1e-12)).all()
    assert len(transfers.event_s) <= 2 * len(bits) + 1
    # Concave links use a divided band no worse than one after the other, from the last start on.
    queue = start.max() + (solo - start).sum()
    assert time <= queue + 1e-10 + 1e-11 * abs(queue)
