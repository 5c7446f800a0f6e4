"""Losses into buildings."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from wireless.propagation.penetration import (
    building_loss_db,
    indoor_depth_m,
    material_loss_db,
    mean_building_loss_db,
    wall_loss_db,
)

DEVICE = np.arange(200_000)


@pytest.mark.parametrize(
    ("material", "loss_db"),
    [("glass", 2.7), ("irr-glass", 24.05), ("concrete", 19.0), ("wood", 5.27)],
)
def test_materials_at_3_5_ghz(material, loss_db):
    """Table 7.4.3-1 of TR 38.901, for example 2 + 0.2 x 3.5 dB of glass."""
    assert material_loss_db(material, 3.5e9) == pytest.approx(loss_db, rel=1e-12)


@given(carrier_hz=st.floats(0.5e9, 100e9), building=st.sampled_from(["low-loss", "high-loss"]))
def test_walls_lose_more_than_their_best_material_and_less_than_their_worst(carrier_hz, building):
    glass = material_loss_db("glass" if building == "low-loss" else "irr-glass", carrier_hz)
    concrete = material_loss_db("concrete", carrier_hz)
    wall = wall_loss_db(carrier_hz, building) - 5
    # The mean of equal terms may miss them by a rounding error.
    assert min(glass, concrete) - 1e-9 <= wall <= max(glass, concrete) + 1e-9


def test_walls_of_high_carriers_are_windows():
    """Concrete is opaque at 100 GHz: what is left is the share of the windows."""
    low = 5 + (2 + 0.2 * 100) - 10 * math.log10(0.3)
    high = 5 + (23 + 0.3 * 100) - 10 * math.log10(0.7)
    assert wall_loss_db(100e9, "low-loss") == pytest.approx(low, abs=1e-9)
    assert wall_loss_db(100e9, "high-loss") == pytest.approx(high, abs=1e-9)


def test_walls_of_low_carriers_are_composites():
    """Glass and concrete lose 2.1 and 7 dB at 0.5 GHz; the materials agree at 18/3.7 GHz."""
    low = 5 - 10 * math.log10(0.3 * 10**-0.21 + 0.7 * 10**-0.7)
    assert wall_loss_db(0.5e9, "low-loss") == pytest.approx(low, rel=1e-12)
    equal_hz = 18 / 3.7 * 1e9
    concrete = material_loss_db("concrete", equal_hz)
    assert wall_loss_db(equal_hz, "high-loss") == pytest.approx(5 + concrete, rel=1e-12)


def test_depth_adds_half_a_decibel_per_metre():
    loss = mean_building_loss_db([0.0, 10.0], 3.5e9, "high-loss")
    np.testing.assert_allclose(loss - wall_loss_db(3.5e9, "high-loss"), [0, 5], atol=1e-12)


@pytest.mark.parametrize(("environment", "largest_m"), [("uma", 25), ("umi", 25), ("rma", 10)])
def test_depth_is_the_smaller_of_two_uniform_distances(environment, largest_m):
    """P(depth < x) = 1 - (1 - x/a)^2, by Kolmogorov-Smirnov at the level 0.001: 1.95/sqrt(n)."""
    depth = indoor_depth_m(1, DEVICE, environment)
    statistic = kstest(depth / largest_m, lambda share: 1 - (1 - share) ** 2).statistic
    assert statistic < 1.95 / math.sqrt(DEVICE.size)


@pytest.mark.parametrize(
    ("building", "environment", "depth_m", "std_db"),
    [
        ("low-loss", "uma", 25, 4.4),
        ("high-loss", "umi", 25, 6.5),
        ("low-loss", "rma", 10, 4.4),
    ],
)
def test_moments_of_building_losses(building, environment, depth_m, std_db):
    """The depth has mean a/3 and variance a^2/18; five standard errors of 2e5 draws."""
    loss = building_loss_db(1, DEVICE, 3.5e9, building, environment)
    mean = wall_loss_db(3.5e9, building) + 0.5 * depth_m / 3
    std = math.hypot(std_db, 0.5 * depth_m / math.sqrt(18))
    assert loss.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(DEVICE.size))
    assert loss.std() == pytest.approx(std, abs=5 * std / math.sqrt(2 * DEVICE.size))


def test_draws_belong_to_the_device_and_the_seed():
    some = np.array([7, 123_456, 7])
    whole = building_loss_db(1, DEVICE, 3.5e9)
    np.testing.assert_array_equal(building_loss_db(1, some, 3.5e9), whole[some])
    # Five standard errors of the correlation of independent draws.
    other = building_loss_db(2, DEVICE, 3.5e9)
    assert abs(np.corrcoef(whole, other)[0, 1]) < 5 / math.sqrt(DEVICE.size)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("carrier_hz", (0.4e9,)),
        ("carrier_hz", (math.nan,)),
        ("building", (3.5e9, "tent")),
        ("environment", (3.5e9, "low-loss", "inf-sl")),
        ("building", (3.5e9, "high-loss", "rma")),
    ],
)
def test_building_losses_reject(field, arguments):
    with pytest.raises(ValueError, match=field):
        building_loss_db(1, DEVICE[:3], *arguments)


def test_materials_reject():
    with pytest.raises(ValueError, match="carrier_hz"):
        material_loss_db("glass", 101e9)
    with pytest.raises(ValueError, match="material"):
        material_loss_db("paper", 3.5e9)
