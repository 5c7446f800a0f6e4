"""Hexagonal sites: geometry, tiling, wrap-around and the drop of devices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from wireless.layout import Layout

D = 500.0
# Coordinates stay below 1e5 m, where a rounding is 1e-11 m, and no result takes a thousand.
ROUNDING_M = 1e-8

coordinate = st.floats(-20_000, 20_000)
rings = st.sampled_from([0, 1, 2])


def grid(size):
    """Sites of the endless hexagonal grid within `size` rows, as complex numbers."""
    m, n = np.meshgrid(np.arange(-size, size + 1), np.arange(-size, size + 1))
    return (D * (m + n * np.exp(1j * np.pi / 3))).ravel()


def copies(layout, reach):
    """Displacements to the copies of the cluster, none included, as complex numbers."""
    first, second = (layout.translations_m[0] + 1j * layout.translations_m[1])[:2]
    a, b = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
    return (a * first + b * second).ravel()


@pytest.mark.parametrize(("rings", "sites", "pairs"), [(0, 1, 0), (1, 7, 12), (2, 19, 42)])
def test_sites_are_those_of_a_hexagonal_grid(rings, sites, pairs):
    layout = Layout(rings, D)
    place = layout.x_m + 1j * layout.y_m
    assert len(layout) == len(place) == sites
    assert place[0] == 0
    apart = np.abs(place[:, None] - place)[np.triu_indices(sites, 1)]
    assert np.all(apart > D - ROUNDING_M)
    assert np.count_nonzero(apart < D + ROUNDING_M) == pairs
    np.testing.assert_allclose(np.abs(place[:, None] - grid(5)).min(axis=1), 0, atol=ROUNDING_M)
    assert np.all(np.abs(place) <= rings * D + ROUNDING_M)
    assert np.all(np.diff(np.round(np.abs(place) / D)) >= 0)


@pytest.mark.parametrize(
    ("rings", "neighbours"),
    [(0, {0: 1}), (1, {0: 1, 1: 6}), (2, {0: 1, 1: 6, math.sqrt(3): 6, 2: 6})],
)
def test_wrapped_around_every_site_sees_what_the_central_one_sees(rings, neighbours):
    layout = Layout(rings, D)
    distance = np.sort(layout.distance_m(layout.x_m, layout.y_m), axis=1)
    expected = np.repeat(list(neighbours), list(neighbours.values())) * D
    np.testing.assert_allclose(distance, np.broadcast_to(expected, distance.shape), atol=ROUNDING_M)


def test_without_wrap_around_a_corner_site_has_three_neighbours():
    layout = Layout(2, D, wrap=False)
    distance = layout.distance_m(layout.x_m, layout.y_m)
    neighbours = np.count_nonzero(np.abs(distance - D) < ROUNDING_M, axis=1)
    assert sorted(neighbours) == 6 * [3] + 6 * [4] + 7 * [6]
    np.testing.assert_array_equal(distance, distance.T)


@pytest.mark.parametrize("rings", [0, 1, 2])
def test_copies_of_the_cluster_tile_the_plane(rings):
    layout = Layout(rings, D)
    random = np.random.default_rng(5)
    place = random.uniform(-2 * D, 2 * D, 300) + 1j * random.uniform(-2 * D, 2 * D, 300)
    # Places are within 2.9 D of the centre and the cluster within 2.6: copies up to 8 away, which
    # are D or more apart, hold all images that may fall in it.
    image = place[:, None] - copies(layout, 8)
    own = np.abs(image[..., None] - (layout.x_m + 1j * layout.y_m)).min(axis=-1)
    # In the cluster if no site of the endless grid is nearer than one of the cluster; sites more
    # than five rows out are further from everything the cluster holds.
    near = np.abs(image) < 3.2 * D
    inside = np.zeros(image.shape, dtype=bool)
    inside[near] = own[near] <= np.abs(image[near][:, None] - grid(6)).min(axis=1) + ROUNDING_M
    np.testing.assert_array_equal(inside.sum(axis=1), 1)


@pytest.mark.parametrize("rings", [0, 1, 2])
def test_translations_are_a_sixfold_star_of_the_clusters_area(rings):
    layout = Layout(rings, D)
    star = layout.translations_m[0] + 1j * layout.translations_m[1]
    np.testing.assert_allclose(star, star[0] * np.exp(1j * np.pi / 3 * np.arange(6)))
    assert abs(star[0]) ** 2 == pytest.approx(len(layout) * D**2)


@pytest.mark.parametrize("rings", [0, 1, 2])
def test_within_the_cluster_the_six_copies_and_the_original_suffice(rings):
    layout = Layout(rings, D)
    x, y = layout.draw(3, np.arange(2000))
    dx, dy = layout.displacement(x, y)
    star = np.append(0, layout.translations_m[0] + 1j * layout.translations_m[1])
    sites = (layout.x_m + 1j * layout.y_m)[:, None] + star
    way = (x + 1j * y)[:, None, None] - sites
    shortest = np.take_along_axis(way, np.abs(way).argmin(axis=-1)[..., None], axis=-1)[..., 0]
    # Where two copies are equally near either is right: none of these random places is.
    np.testing.assert_allclose(dx + 1j * dy, shortest, atol=ROUNDING_M)
    np.testing.assert_allclose(layout.distance_m(x, y), np.abs(shortest), atol=ROUNDING_M)


@given(rings=rings, x=coordinate, y=coordinate)
def test_distance_is_the_shortest_over_all_copies(rings, x, y):
    layout = Layout(rings, D)
    # 20 km and a shear of 30 degrees are at most 66 copies of the smallest cluster away.
    all_copies = copies(layout, 70)
    for site, distance in enumerate(layout.distance_m(x, y)):
        way = x + 1j * y - layout.x_m[site] - 1j * layout.y_m[site]
        assert distance == pytest.approx(np.abs(way - all_copies).min(), abs=ROUNDING_M)


@given(rings=rings, x=coordinate, y=coordinate, turn=st.integers(0, 5))
def test_a_copy_of_a_place_is_the_same_place(rings, x, y, turn):
    layout = Layout(rings, D)
    east, north = (values[turn] for values in layout.translations_m)
    moved = layout.distance_m(x + east, y + north)
    np.testing.assert_allclose(layout.distance_m(x, y), moved, atol=ROUNDING_M)
    plain = Layout(rings, D, wrap=False)
    assert np.all(layout.distance_m(x, y) <= plain.distance_m(x, y) + ROUNDING_M)
    np.testing.assert_allclose(plain.distance_m(x, y), np.hypot(x - plain.x_m, y - plain.y_m))


@given(rings=rings, x=coordinate, y=coordinate, dx=st.floats(-900, 900), dy=st.floats(-900, 900))
def test_no_distance_changes_by_more_than_the_way_moved(rings, x, y, dx, dy):
    layout = Layout(rings, D)
    change = layout.distance_m(x + dx, y + dy) - layout.distance_m(x, y)
    assert np.all(np.abs(change) <= math.hypot(dx, dy) + ROUNDING_M)


@pytest.fixture(scope="module")
def sionna_grids():
    """Sionna's grids and its wrapped distances of random places."""
    sys = pytest.importorskip("sionna.sys")
    grids = []
    for rings in (1, 2):
        hexes = sys.HexGrid(num_rings=rings, isd=D, precision="double")
        place, _, distance = hexes(1, 20, 0.0)
        place = place.numpy().reshape(-1, 3)
        sites = hexes.cell_loc.numpy()
        grids.append((rings, sites, place, distance.numpy().reshape(len(place), len(sites))))
    return grids


def test_wrapped_distances_agree_with_sionna(sionna_grids):
    for rings, sites, place, distance in sionna_grids:
        layout = Layout(rings, D)
        # Sionna's grid is ours with the axes exchanged, which also turns its copies into ours.
        ours = layout.x_m + 1j * layout.y_m
        theirs = sites[:, 1] + 1j * sites[:, 0]
        there = place[:, 1] + 1j * place[:, 0]
        match = np.abs(theirs[:, None] - ours).argmin(axis=1)
        assert len(set(match)) == len(ours)
        np.testing.assert_allclose(theirs, ours[match], atol=1e-3)
        np.testing.assert_allclose(
            layout.distance_m(there.real, there.imag)[:, match], distance, atol=1e-3
        )


@pytest.mark.parametrize("rings", [0, 1, 2])
@pytest.mark.parametrize("min_distance_m", [0.0, 35.0, 240.0])
def test_devices_are_uniform_over_the_hexagons_less_the_discs(rings, min_distance_m):
    layout = Layout(rings, D)
    x, y = layout.draw(8, np.arange(20_000), min_distance_m)
    dx, dy = layout.displacement(x, y)
    distance = np.hypot(dx, dy)
    site = distance.argmin(axis=1)
    assert distance.min() > min_distance_m - ROUNDING_M
    # Nobody lies outside the cluster, where the wrap-around would hide it.
    plain = Layout(rings, D, wrap=False).distance_m(x, y)
    np.testing.assert_allclose(plain.min(axis=1), distance.min(axis=1), atol=ROUNDING_M)
    if rings:
        assert stats.chisquare(np.bincount(site, minlength=len(layout))).pvalue > 0.001
    chosen = np.arange(len(x)), site
    way, radius = (dx + 1j * dy)[chosen], distance[chosen]
    # The inscribed circle, and nothing of the hexagon's shape, within half the inter-site distance.
    inner = radius < D / 2
    ring_area = np.pi * (D**2 / 4 - min_distance_m**2)
    area = math.sqrt(3) / 2 * D**2 - np.pi * min_distance_m**2
    assert stats.binomtest(int(inner.sum()), len(x), ring_area / area).pvalue > 0.001
    spread = (radius[inner] ** 2 - min_distance_m**2) / (D**2 / 4 - min_distance_m**2)
    assert stats.kstest(spread, "uniform").pvalue > 0.001
    turn = np.angle(way[inner]) / (2 * np.pi) + 0.5
    assert stats.kstest(turn, "uniform").pvalue > 0.001
    if min_distance_m == 0:
        # Chords across the flats are 2/sqrt(3) (D - |t|) long, whichever pair of sides.
        for side in range(3):
            across = np.abs((way * np.exp(-1j * np.pi / 3 * side)).real) / D
            assert across.max() <= 0.5 + 1e-9
            assert stats.kstest(across, lambda t: (t - t**2 / 2) * 8 / 3).pvalue > 0.001
        # Polar second moment of a hexagon of side D / sqrt(3); r^2 varies by less than its mean,
        # so the mean of 20 000 is within 0.7 % with one standard error, 3 % with four.
        assert np.mean(radius**2) == pytest.approx(5 / 36 * D**2, rel=0.03)


def test_a_place_depends_on_seed_and_number_alone():
    layout = Layout(2, D)
    x, y = layout.draw(1, np.arange(3000), 100.0)
    order = np.random.default_rng(0).permutation(3000)[:500].reshape(5, 100)
    some = layout.draw(1, order, 100.0)
    np.testing.assert_array_equal(some[0], x[order])
    np.testing.assert_array_equal(some[1], y[order])
    assert not np.isin(layout.draw(2, np.arange(3000), 100.0)[0], x).any()
    assert layout.draw(1, 17, 100.0) == (x[17], y[17])
    assert layout.draw(1, np.arange(0))[0].shape == (0,)


def test_a_disc_moves_only_those_whom_it_would_hold():
    layout = Layout(1, D)
    free = np.stack(layout.draw(4, np.arange(5000)))
    kept = np.stack(layout.draw(4, np.arange(5000), 100.0))
    held = layout.distance_m(*free).min(axis=1) < 100
    np.testing.assert_array_equal(free[:, ~held], kept[:, ~held])
    assert held.any()
    assert not np.isin(free[0, held], kept[0]).any()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((3, D), "rings"), ((-1, D), "rings"), ((1, 0.0), "inter_site_m"), ((1, math.inf), "inter_")],
)
def test_impossible_layouts_are_refused(arguments, name):
    with pytest.raises(ValueError, match=name):
        Layout(*arguments)


@pytest.mark.parametrize("min_distance_m", [-1.0, 250.0, math.nan])
def test_a_disc_that_leaves_no_ring_is_refused(min_distance_m):
    with pytest.raises(ValueError, match="min_distance_m"):
        Layout(1, D).draw(0, np.arange(3), min_distance_m)
