"""Gaussian fields in the plane: purity, marginals and correlation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from wireless.fields import Field

DISTANCE = np.array([0.05, 0.2, 0.5, 1.0, 2.0, 4.0])  # in decorrelation distances
SEEDS = range(2000)


def _correlations(direction):
    """Mean products of the field at two places, with standard errors, over the seeds."""
    x, y = 123 + 50 * DISTANCE * np.cos(direction), -77 + 50 * DISTANCE * np.sin(direction)
    products = np.empty((len(SEEDS), len(DISTANCE)))
    for seed in SEEDS:
        field = Field(seed, "shadowing", 50.0)
        here, *there = field.at(np.append(123.0, x), np.append(-77.0, y))
        products[seed] = here * np.array(there)
    return products.mean(axis=0), products.std(axis=0) / np.sqrt(len(SEEDS))


@pytest.mark.parametrize("direction", [0.0, 1.1])
def test_correlation_is_exponential_in_every_direction(direction):
    mean, error = _correlations(direction)
    # The ensemble is exact, so only the Monte-Carlo error remains: four standard errors.
    assert (np.abs(mean - np.exp(-DISTANCE)) < 4 * error).all()
    assert (error < 0.04).all()


@pytest.mark.parametrize("seed", range(5))
def test_one_field_repeats_the_correlation(seed):
    """Over one large area, the products at a distance average to exp(-r/d).

    The 64 waves leave a root mean square of 0.006 averaged over the directions; 40 000 places in
    an area of (10 km)^2 at 50 m leave about 1/sqrt(40 000) = 0.005. Three of both together.
    """
    field, rng = Field(seed, "shadowing", 50.0), np.random.default_rng(0)
    x, y = rng.uniform(-5000, 5000, (2, 40_000))
    angle = rng.uniform(0, 2 * np.pi, x.size)
    here = field.at(x, y)
    for distance in DISTANCE:
        there = field.at(x + 50 * distance * np.cos(angle), y + 50 * distance * np.sin(angle))
        assert abs(np.mean(here * there) - np.exp(-distance)) < 3 * np.hypot(0.006, 0.005)


def test_marginals_are_normal():
    """100 places some ten decorrelation distances apart in each of 300 fields."""
    grid = 500.0 * np.arange(10)
    values = np.array(
        [Field(seed, "shadowing", 50.0).at(grid[:, None], grid).ravel() for seed in range(300)]
    )
    # The 64 waves alone shift the distribution function by 6e-4, a tenth of what this notices.
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.001
    # Mean square 1, with a standard error of sqrt(2/30000) = 0.008.
    assert np.mean(values**2) == pytest.approx(1, abs=0.04)
    assert stats.kstest(ndtr(values[:, 0]), "uniform").pvalue > 0.001


def test_fields_of_unlike_address_are_independent():
    x, y = np.random.default_rng(2).uniform(-50_000, 50_000, (2, 20_000))
    values = [
        Field(seed, purpose, 20.0, index).at(x, y)
        for seed, purpose, index in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]
    ]
    # Standard error 0.007 of places far apart.
    assert np.abs(np.corrcoef(values) - np.eye(4)).max() < 0.035


def test_a_place_has_one_value_in_whatever_company():
    x, y = np.random.default_rng(3).uniform(-500, 500, (2, 40_001))
    field = Field(7, "los", 50.0, 3)
    values = field.at(x, y)
    picked = np.array([0, 1, 16_383, 16_384, 40_000])
    np.testing.assert_array_equal(field.at(x[picked], y[picked]), values[picked])
    np.testing.assert_array_equal(field.at(x[5], y[5]), values[5])
    np.testing.assert_array_equal(field.at(x[::-3], y[::-3]), values[::-3])
    np.testing.assert_array_equal(Field(7, "los", 50.0, 3).at(x[:9], y[:9]), values[:9])
    assert field.at(0.0, 0.0).shape == ()
    assert field.at(np.zeros((2, 1)), np.zeros(3)).shape == (2, 3)


@given(
    scale=st.floats(0.01, 1000),
    x=st.floats(-1e4, 1e4),
    y=st.floats(-1e4, 1e4),
)
@settings(max_examples=30)
def test_only_distance_over_decorrelation_matters(scale, x, y):
    # A wave number times 1e4 m may reach 1e7 turns, of which rounding leaves 1e-9.
    scaled = Field(1, "a", 50.0 * scale).at(x * scale, y * scale)
    np.testing.assert_allclose(scaled, Field(1, "a", 50.0).at(x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("distance", [0.0, -1.0, np.inf, np.nan])
def test_impossible_decorrelation_is_refused(distance):
    with pytest.raises(ValueError, match="decorrelation_m must be finite and positive"):
        Field(1, "a", distance)


@pytest.fixture(scope="module")
def sionna_shadowing():
    """Shadowing of Sionna's UMi cell, out of sight: places (U, 2), samples (B, U) scaled to 1."""
    scenarios = pytest.importorskip("sionna.phy.channel.tr38901")
    torch, phy = pytest.importorskip("torch"), pytest.importorskip("sionna.phy")
    phy.config.seed = 5
    batch, places = 2000, np.random.default_rng(4).uniform(100, 140, (12, 2))
    panel = scenarios.PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=1,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=3.5e9,
    )
    scenario = scenarios.UMiScenario(3.5e9, "low", panel, panel, "uplink", False, True)
    user = torch.tensor(np.column_stack([places, np.full(12, 1.5)]), dtype=torch.float32)
    scenario.set_topology(
        ut_loc=user.expand(batch, -1, -1),
        bs_loc=torch.tensor([[[0.0, 0.0, 10.0]]]).expand(batch, -1, -1),
        ut_orientations=torch.zeros(batch, 12, 3),
        bs_orientations=torch.zeros(batch, 1, 3),
        ut_velocities=torch.zeros(batch, 12, 3),
        in_state=torch.zeros(batch, 12, dtype=torch.bool),
        los=False,
    )
    generator = scenarios.LSPGenerator(scenario)
    generator.topology_updated_callback()
    shadowing_db = 10 * np.log10(generator().sf[:, 0].numpy().astype(np.float64))
    return places, shadowing_db / 7.82


def test_correlation_agrees_with_sionna(sionna_shadowing):
    """66 pairs up to 50 m apart, UMi out of sight: decorrelation 13 m in both.

    The mean product of two standard normal numbers of correlation c over 2000 samples has the
    standard error sqrt((1 + c^2) / 2000), 0.022 to 0.032; the difference of two such means at most
    0.045, and 0.16 is three and a half of these. The mean over the pairs is held to 0.04, since
    the pairs share their twelve places: its standard error is about 0.01.
    """
    places, theirs = sionna_shadowing
    ours = np.array([Field(seed, "shadowing", 13.0).at(*places.T) for seed in range(len(theirs))])
    pairs = np.triu_indices(12, 1)
    difference = (ours.T @ ours - theirs.T @ theirs)[pairs] / len(theirs)
    assert np.abs(difference).max() < 0.16
    assert abs(difference.mean()) < 0.04
    distance = np.hypot(*(places[pairs[0]] - places[pairs[1]]).T)
    assert np.ptp(np.exp(-distance / 13)) > 0.5  # from near to far, lest zero agree with zero
