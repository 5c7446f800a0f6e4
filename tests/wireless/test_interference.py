"""Association, interference of other cells in both directions, and the SINR of a full network."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import zeta

from wireless.interference import (
    downlink_interference_w_hz,
    serving,
    uplink_interference_w_hz,
)
from wireless.layout import Layout

D = 500.0
EXPONENT = 3.76


def power_law(layout, x, y, exponent=EXPONENT):
    """Gains of a distance power law, bounded at one metre."""
    return np.maximum(layout.distance_m(x, y), 1) ** -exponent


@pytest.fixture(scope="module")
def network():
    """Gains of 3000 devices to 19 sites, with shadowing, and their serving sites."""
    layout = Layout(2, D)
    gain = power_law(layout, *layout.draw(2, np.arange(3000), 35.0))
    gain *= 10 ** (0.6 * np.random.default_rng(1).standard_normal(gain.shape))
    return gain, serving(10 * np.log10(gain))


def test_without_shadowing_the_nearest_site_serves():
    layout = Layout(2, D)
    x, y = layout.draw(1, np.arange(2000))
    nearest = layout.distance_m(x, y).argmin(axis=1)
    np.testing.assert_array_equal(serving(-np.log10(layout.distance_m(x, y))), nearest)


def test_the_strongest_serves_and_the_first_of_equals():
    np.testing.assert_array_equal(
        serving([[-90.0, -80.0, -85.0], [-70.0, -70.0, -99.0], [-np.inf, -200.0, -np.inf]]),
        [1, 0, 1],
    )


def test_one_site_disturbs_nobody():
    gain, site = np.full((5, 1), 1e-9), np.zeros(5, dtype=int)
    np.testing.assert_array_equal(downlink_interference_w_hz(gain, site, 1e-6, 1.0), np.zeros(5))
    np.testing.assert_array_equal(uplink_interference_w_hz(gain, site, 0.2, 1e6, 1.0), [0.0])


def test_two_sites_by_hand():
    gain = np.array([[1e-8, 1e-11], [4e-9, 2e-12], [1e-12, 1e-7]])
    site = np.array([0, 0, 1])
    # 1e-6 W/Hz at the first site, busy half the time, 2e-6 at the second, a quarter.
    down = downlink_interference_w_hz(gain, site, [1e-6, 2e-6], [0.5, 0.25])
    np.testing.assert_allclose(down, [5e-18, 1e-18, 5e-19])
    # 0.1, 0.3 and 0.2 W over 1 MHz: the second site hears the mean of the first two devices.
    up = uplink_interference_w_hz(gain, site, [0.1, 0.3, 0.2], 1e6, [0.5, 0.25])
    np.testing.assert_allclose(
        up, [0.25 * 0.2 * 1e-12 / 1e6, 0.5 * (0.1 * 1e-11 + 0.3 * 2e-12) / 2 / 1e6]
    )


@pytest.mark.parametrize("exponent", [2.2, EXPONENT, 4.0])
def test_at_every_site_the_rings_of_neighbours_add_up(exponent):
    # Distances D, sqrt(3) D and 2 D, six of each.
    rings = {1: 6.0, 2: 6 * (1 + 3 ** (-exponent / 2) + 4 ** (-exponent / 2))}
    for number, expected in rings.items():
        layout = Layout(number, D)
        gain = power_law(layout, layout.x_m, layout.y_m, exponent)
        site = np.arange(len(layout))
        down = downlink_interference_w_hz(gain, site, 2e-6, 0.5)
        np.testing.assert_allclose(down, 1e-6 * expected * D**-exponent, rtol=1e-12)
        # The same places send to each other what they receive from each other.
        up = uplink_interference_w_hz(gain, site, 2.0, 1e6, 0.5)
        np.testing.assert_allclose(up, down, rtol=1e-12)


@pytest.mark.parametrize("exponent", [2.2, 3.0, EXPONENT])
def test_nineteen_sites_leave_out_the_endless_plane_beyond_them(exponent):
    # Over the endless grid sum |z|^-2s = 6 zeta(s) L(s), L the Dirichlet series of the character
    # 1, -1, 0 modulo 3 (the Epstein zeta function of the triangular lattice).
    s = exponent / 2
    endless = 6 * zeta(s) * 3**-s * (zeta(s, 1 / 3) - zeta(s, 2 / 3)) * D**-exponent
    layout = Layout(2, D)
    gain = power_law(layout, layout.x_m, layout.y_m, exponent)
    level = downlink_interference_w_hz(gain, np.arange(19), 1.0, 1.0)
    # Sites spread evenly beyond the circle of 19 cells' area; the hexagonal edge of the real ones
    # costs up to 3 % of what they add, less the slower the decay.
    cell = math.sqrt(3) / 2 * D**2
    beyond = 2 * np.pi / cell / (exponent - 2) * (19 * cell / np.pi) ** (1 - s)
    np.testing.assert_allclose(endless - level, beyond, rtol=0.03)


def test_a_wider_grid_scales_the_interference_by_the_power_law():
    fraction = np.random.default_rng(2).uniform(-1, 1, (2, 500))
    level = []
    for spacing in (D, 3 * D):
        layout = Layout(2, spacing)
        gain = layout.distance_m(*(spacing * fraction)) ** -EXPONENT
        level.append(downlink_interference_w_hz(gain, gain.argmax(axis=1), 1e-6, 1.0))
    np.testing.assert_allclose(level[0], level[1] * 3**EXPONENT, rtol=1e-9)


def test_interference_grows_on_the_way_to_the_edge():
    layout = Layout(2, D)
    way = np.linspace(1, D / 2, 200)
    for turn in np.deg2rad([0, 15, 30]):
        gain = power_law(layout, way * np.cos(turn), way * np.sin(turn))
        level = downlink_interference_w_hz(gain, np.zeros(200, dtype=int), 1e-6, 1.0)
        assert np.all(np.diff(level) > 0)


def test_wrap_around_gives_every_cell_the_interference_of_the_central_one():
    place = Layout(0, D).draw(6, np.arange(200), 35.0)
    for wrap, spread in ((True, 1e-9), (False, None)):
        layout = Layout(2, D, wrap)
        levels = []
        for site, (east, north) in enumerate(zip(layout.x_m, layout.y_m, strict=True)):
            gain = power_law(layout, place[0] + east, place[1] + north)
            levels.append(downlink_interference_w_hz(gain, np.full(200, site), 1e-6, 1.0))
        if spread:
            np.testing.assert_allclose(levels, np.broadcast_to(levels[0], (19, 200)), rtol=spread)
        else:
            assert np.mean(levels[-1]) < 0.7 * np.mean(levels[0])


def test_sums_agree_with_their_definition_device_by_device(network):
    gain, site = network
    few, cells = gain[:60], site[:60]
    random = np.random.default_rng(3)
    density, load = random.uniform(0, 1e-6, 19), random.uniform(0, 1, 19)
    power, senders = random.uniform(0.01, 0.2, 60), random.uniform(0, 9, 19)
    down = [
        sum(load[s] * density[s] * few[n, s] for s in range(19) if s != cells[n]) for n in range(60)
    ]
    np.testing.assert_allclose(downlink_interference_w_hz(few, cells, density, load), down)
    up = np.zeros(19)
    for s in range(19):
        for c in set(cells.tolist()) - {s}:
            received = [power[n] * few[n, s] for n in range(60) if cells[n] == c]
            up[s] += load[c] * senders[c] * np.mean(received) / 5e6
    np.testing.assert_allclose(uplink_interference_w_hz(few, cells, power, 5e6, load, senders), up)


def test_an_own_signal_of_any_strength_costs_the_interference_no_digits():
    gain = np.array([[1e5, 1e-17, 3e-17], [1e5, 0.0, 0.0]])
    down = downlink_interference_w_hz(gain, [0, 0], 1.0, 1.0)
    np.testing.assert_allclose(down, [4e-17, 0], rtol=1e-15)
    up = uplink_interference_w_hz(gain[:, [0, 1]], [0, 1], 1.0, 1.0, 1.0)
    np.testing.assert_allclose(up, [1e5, 1e-17], rtol=1e-15)


@given(
    load=st.floats(0, 1),
    power=st.floats(0, 50),
    senders=st.integers(0, 100),
    bandwidth=st.floats(1e3, 1e9),
)
def test_linear_in_load_power_and_senders(network, load, power, senders, bandwidth):
    gain, site = (part[:50] for part in network)
    # Below the normal numbers, the smallest of which is 2e-308, digits go.
    tolerance = {"rtol": 1e-12, "atol": 1e-300}
    full = downlink_interference_w_hz(gain, site, 1.0, 1.0)
    np.testing.assert_allclose(
        downlink_interference_w_hz(gain, site, power, load), load * power * full, **tolerance
    )
    full = uplink_interference_w_hz(gain, site, 1.0, 1.0, 1.0)
    some = uplink_interference_w_hz(gain, site, power, bandwidth, load, senders)
    np.testing.assert_allclose(some, load * power * senders / bandwidth * full, **tolerance)


@given(gain=st.floats(1e-16, 1e-6), weaker=st.floats(0, 1))
def test_a_further_interferer_adds_less(gain, weaker):
    level = [
        downlink_interference_w_hz([[1e-6, 1e-12, g]], [0], 1e-6, 1.0)[0]
        for g in (gain, weaker * gain)
    ]
    assert level[0] >= level[1]


def test_uplink_is_a_mean_over_a_cells_devices(network):
    gain, site = network
    power = np.random.default_rng(4).uniform(0.01, 0.2, len(site))
    level = uplink_interference_w_hz(gain, site, power, 1e6, 0.7)
    order = np.random.default_rng(5).permutation(np.tile(np.arange(len(site)), 3))
    # A fleet of three of each, in any order, is only summed differently.
    again = uplink_interference_w_hz(gain[order], site[order], power[order], 1e6, 0.7)
    np.testing.assert_allclose(again, level, rtol=1e-12)


def test_an_empty_cell_adds_nothing_yet_is_disturbed(network):
    gain, site = network
    present = site != 7
    level = uplink_interference_w_hz(gain[present], site[present], 0.2, 1e6, 1.0)
    load = np.where(np.arange(19) == 7, 0.0, 1.0)
    np.testing.assert_allclose(
        level, uplink_interference_w_hz(gain, site, 0.2, 1e6, load), rtol=1e-12
    )
    assert level[7] > 0
    nobody = uplink_interference_w_hz(np.empty((0, 3)), np.empty(0, dtype=int), 0.2, 1e6, 1.0)
    np.testing.assert_array_equal(nobody, np.zeros(3))


def test_a_device_is_disturbed_alike_whatever_the_fleet(network):
    gain, site = network
    whole = downlink_interference_w_hz(gain, site, 1e-6, 0.9)
    for part in (slice(7), slice(100, 1300), slice(None, None, 17)):
        np.testing.assert_array_equal(
            downlink_interference_w_hz(gain[part], site[part], 1e-6, 0.9), whole[part]
        )


def independent_sinr_db(places, seed):
    """SINR over the plane of 19 sets of equal sites, without the package's geometry.

    In the ring of integers m + n w the 19 cells of a cluster are the residues modulo 3 + 2 w, which
    are those of m + 8 n modulo 19 (3 + 2 * 8 = 19); the plane over its copies is a parallelogram.
    """
    w = np.exp(1j * np.pi / 3)
    m, n = (axis.ravel() for axis in np.meshgrid(np.arange(-9, 10), np.arange(-9, 10)))
    residue, grid = (m + 8 * n) % 19, m + n * w
    share = np.random.default_rng(seed).uniform(size=(2, places))
    place = (3 + 2 * w) * ((share[0] - 0.5) + (share[1] - 0.5) * w)
    # The parallelogram reaches 3.8 spacings from the centre; the nearest of a set is within 2.6.
    nearest = np.array([np.abs(place[:, None] - grid[residue == r]).min(axis=1) for r in range(19)])
    power = np.sort(nearest[:, nearest.min(axis=0) > 35 / D], axis=0) ** -EXPONENT
    return 10 * np.log10(power[0] / power[1:].sum(axis=0))


def test_downlink_sinr_of_a_full_network_matches_an_independent_simulation():
    layout = Layout(2, D)
    gain = power_law(layout, *layout.draw(9, np.arange(40_000), 35.0))
    site = serving(10 * np.log10(gain))
    interference = downlink_interference_w_hz(gain, site, 1e-6, 1.0)
    sinr_db = 10 * np.log10(1e-6 * gain[np.arange(len(site)), site] / interference)
    reference_db = independent_sinr_db(40_000, 10)
    assert stats.ks_2samp(sinr_db, reference_db).pvalue > 0.001
    # Near the median 1 dB holds some 5 % of the places, so that a median has a standard error of
    # 0.05 dB, the difference 0.07.
    assert np.median(sinr_db) == pytest.approx(np.median(reference_db), abs=0.25)
    # Nobody of a nearest-site network is below the point where three cells meet.
    corner = power_law(layout, D / 2, D / math.sqrt(12))
    worst_db = 10 * np.log10(corner.max() / (corner.sum() - corner.max()))
    assert worst_db - 1e-9 < sinr_db.min() < worst_db + 0.5


GAIN, SITE = np.full((2, 3), 1e-9), np.array([0, 2])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: serving([1.0, 2.0]), "gain_db"),
        (lambda: serving(np.empty((2, 0))), "gain_db"),
        (lambda: serving([[1.0, math.nan]]), "gain_db"),
        (lambda: downlink_interference_w_hz(-GAIN, SITE, 1.0, 1.0), "gain"),
        (lambda: downlink_interference_w_hz(GAIN * math.nan, SITE, 1.0, 1.0), "gain"),
        (lambda: downlink_interference_w_hz(GAIN[0], SITE, 1.0, 1.0), "gain"),
        (lambda: downlink_interference_w_hz(GAIN, SITE[:1], 1.0, 1.0), "serving"),
        (lambda: downlink_interference_w_hz(GAIN, SITE * 1.0, 1.0, 1.0), "serving"),
        (lambda: downlink_interference_w_hz(GAIN, SITE + 1, 1.0, 1.0), "serving"),
        (lambda: downlink_interference_w_hz(GAIN, SITE - 1, 1.0, 1.0), "serving"),
        (lambda: downlink_interference_w_hz(GAIN, SITE, -1.0, 1.0), "power_density_w_hz"),
        (lambda: downlink_interference_w_hz(GAIN, SITE, 1.0, 1.1), "load"),
        (lambda: uplink_interference_w_hz(GAIN, SITE, 1.0, 1e6, -0.1), "load"),
        (lambda: uplink_interference_w_hz(GAIN, SITE, math.inf, 1e6, 1.0), "power_w"),
        (lambda: uplink_interference_w_hz(GAIN, SITE, 1.0, 0.0, 1.0), "bandwidth_hz"),
        (lambda: uplink_interference_w_hz(GAIN, SITE, 1.0, 1e6, 1.0, -1), "senders"),
    ],
)
def test_impossible_values_are_refused(call, name):
    with pytest.raises(ValueError, match=name):
        call()
