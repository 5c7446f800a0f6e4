"""Propagation environments: published values, identities and ranges of the models."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireless.propagation import (
    ENVIRONMENTS,
    FreeSpace,
    InFDH,
    InFDL,
    InFSH,
    InFSL,
    InHMixed,
    InHOpen,
    LogDistance,
    RMa,
    UMa,
    UMi,
)

CARRIER_HZ = 5e9
REPORT_LIGHT_M_PER_S = 3e8
# Each environment with the horizontal distances of its path-loss model; InH and InF start at a
# 3-D distance of 1 m, which 1 m of horizontal distance exceeds.
DISTANCES_M = {
    "uma": (10, 5000),
    "umi": (10, 5000),
    "rma": (10, 5000),
    "inh-open": (1, 149),
    "inh-mixed": (1, 149),
    "inf-sl": (1, 599),
    "inf-dl": (1, 599),
    "inf-sh": (1, 599),
    "inf-dh": (1, 599),
    "log-distance": (1, 5000),
    "free-space": (1, 5000),
}
FACTORIES = (InFSL, InFDL, InFSH, InFDH)
VECTORS = {"RMa": RMa, "UMa": UMa, "UMi": UMi, "InH": InHOpen}

names = pytest.mark.parametrize("name", sorted(ENVIRONMENTS))


def _vectors():
    with (Path(__file__).parent / "data" / "pathloss_vectors.csv").open() as file:
        return list(csv.DictReader(file))


def _path_loss_db(environment, distance_2d_m, los, carrier_hz=CARRIER_HZ):
    return environment.path_loss_db(
        distance_2d_m, los, carrier_hz, environment.bs_height_m, environment.ut_height_m
    )


def test_registry_has_each_environment_under_its_name():
    assert set(ENVIRONMENTS) == set(DISTANCES_M)
    for name, environment in ENVIRONMENTS.items():
        assert environment.name == name


@pytest.mark.parametrize(
    "row",
    _vectors(),
    ids=lambda row: f"{row['scenario']}-{row['condition']}-{row['distance_2d_m']}",
)
def test_path_loss_as_published(row):
    """The values published with the test suite of ns-3 for TR 38.901, to their four decimals."""
    computed = VECTORS[row["scenario"]]().path_loss_db(
        float(row["distance_2d_m"]),
        row["condition"] == "los",
        float(row["carrier_hz"]),
        float(row["h_bs_m"]),
        float(row["h_ut_m"]),
    )
    assert computed == pytest.approx(float(row["path_loss_db"]), abs=1e-4)


def test_all_published_values_are_there():
    assert len(_vectors()) == 32


@names
def test_path_loss_grows_with_distance_and_is_no_less_out_of_sight(name):
    distance = np.geomspace(*DISTANCES_M[name], 3001)
    environment = ENVIRONMENTS[name]()
    los, nlos = (_path_loss_db(environment, distance, sight) for sight in (True, False))
    assert los.shape == nlos.shape == distance.shape
    assert (np.diff(los) > 0).all()
    assert (np.diff(nlos) > 0).all()
    assert (nlos >= los).all()


@pytest.mark.parametrize("name", sorted(set(ENVIRONMENTS) - {"log-distance"}))
@given(
    carrier_hz=st.floats(0.5e9, 30e9),
    share=st.floats(0, 1),
    los=st.booleans(),
)
def test_nothing_beats_free_space_by_more_than_the_guidance_of_streets_and_halls(
    name, carrier_hz, share, los
):
    """Walls along a street or a hall guide waves: exponents down to 1.73 (InH) in sight.

    The gain over free space is then largest at the far end: 2.7 dB per decade over 2.2 decades in
    InH, less elsewhere. A slip of the carrier's unit or of an intercept costs 20 dB and more.
    """
    environment = ENVIRONMENTS[name]()
    low, high = DISTANCES_M[name]
    distance = low * (high / low) ** share
    heights = environment.bs_height_m, environment.ut_height_m
    loss = environment.path_loss_db(distance, los, carrier_hz, *heights)
    free = FreeSpace().path_loss_db(distance, True, carrier_hz, *heights)
    assert loss >= free - 6.1


@names
def test_devices_do_not_see_each_other(name):
    environment = ENVIRONMENTS[name]()
    distance = np.geomspace(*DISTANCES_M[name], 64)
    los = np.arange(64) % 3 == 0
    heights = environment.bs_height_m, environment.ut_height_m
    whole = (
        environment.los_probability(distance, *heights),
        environment.path_loss_db(distance, los, CARRIER_HZ, *heights),
        environment.shadowing_std_db(distance, los, CARRIER_HZ, *heights),
        environment.shadowing_decorrelation_m(los),
    )
    for n in (0, 17, 63):
        alone = (
            environment.los_probability(distance[n], *heights),
            environment.path_loss_db(distance[n], los[n], CARRIER_HZ, *heights),
            environment.shadowing_std_db(distance[n], los[n], CARRIER_HZ, *heights),
            environment.shadowing_decorrelation_m(los[n]),
        )
        for of_all, of_one in zip(whole, alone, strict=True):
            assert of_all.shape == (64,)
            # Vector and scalar logarithms may differ in the last bit.
            assert of_all[n] == pytest.approx(of_one.item(), rel=1e-14)


@pytest.mark.parametrize("environment", [UMa(), UMi()], ids=lambda each: each.name)
@pytest.mark.parametrize("carrier_hz", [0.8e9, 3.5e9, 28e9])
def test_path_loss_is_continuous_at_the_breakpoint(environment, carrier_hz):
    bs, ut = environment.bs_height_m, environment.ut_height_m
    breakpoint_m = 4 * (bs - 1) * (ut - 1) * carrier_hz / REPORT_LIGHT_M_PER_S
    sides = breakpoint_m * np.array([1 - 1e-9, 1 + 1e-9, 10])
    near, far, decade = environment.path_loss_db(sides, True, carrier_hz, bs, ut)
    # The table rounds no coefficient of these two; 1e-9 of the distance is worth 2e-8 dB.
    assert far == pytest.approx(near, abs=1e-7)
    # 40 dB per decade of the 3-D distance.
    decades_3d = math.log10(math.hypot(sides[2], bs - ut) / math.hypot(sides[1], bs - ut))
    assert decade - far == pytest.approx(40 * decades_3d, abs=1e-9)


@pytest.mark.parametrize("carrier_hz", [0.5e9, 3.5e9, 30e9])
def test_rural_step_at_the_breakpoint(carrier_hz):
    """The step is the far minus the near slope over the way from d_2D to d_3D."""
    bs, ut, building = 35, 1.5, 5
    breakpoint_m = 2 * math.pi * bs * ut * carrier_hz / REPORT_LIGHT_M_PER_S
    near, far = RMa().path_loss_db(
        breakpoint_m * np.array([1 - 1e-12, 1 + 1e-12]), True, carrier_hz, bs, ut
    )
    distance_3d = math.hypot(breakpoint_m, bs - ut)
    slope_db = 20 + 0.03 * building**1.72
    step = (40 - slope_db) * math.log10(distance_3d / breakpoint_m) - 0.002 * math.log10(
        building
    ) * (distance_3d - breakpoint_m)
    assert far - near == pytest.approx(step, abs=1e-9)
    assert abs(step) < 0.02


def test_rural_buildings_and_streets():
    """Out of sight the loss falls by 7.1 dB per decade of street width, and not with h in sight."""
    wide, narrow = RMa(street_width_m=50), RMa(street_width_m=5)
    distance = np.array([200.0, 2000.0])
    difference = _path_loss_db(narrow, distance, False) - _path_loss_db(wide, distance, False)
    np.testing.assert_allclose(difference, 7.1, rtol=1e-12)
    np.testing.assert_array_equal(
        _path_loss_db(narrow, distance, True), _path_loss_db(wide, distance, True)
    )
    # h^1.72 reaches both caps (10 and 14.77 dB) at 29.3 m: only the linear term is left to grow.
    high, higher = RMa(building_height_m=40), RMa(building_height_m=50)
    difference = _path_loss_db(higher, 1000.0, True) - _path_loss_db(high, 1000.0, True)
    distance_3d = math.hypot(1000, 33.5)
    assert difference == pytest.approx(0.002 * math.log10(50 / 40) * distance_3d, rel=1e-9)


@pytest.mark.parametrize(("environment", "decay_m"), [(UMa(), 63), (UMi(), 36)])
def test_urban_los_probability(environment, decay_m):
    heights = environment.bs_height_m, 1.5
    np.testing.assert_array_equal(environment.los_probability([0, 1, 10, 18], *heights), 1)
    # At d = 36 or 63 m the exponential is 1/e.
    expected = 18 / decay_m + (1 - 18 / decay_m) / math.e
    assert environment.los_probability(decay_m, *heights) == pytest.approx(expected)


def test_tall_devices_of_the_urban_macrocell_see_more():
    expected = 18 / 63 + (1 - 18 / 63) / math.e
    assert UMa().los_probability(63, 25, 13) == pytest.approx(expected)
    # C' of 23 m is 1.
    lift = 1 + 5 / 4 * 0.63**3 * math.exp(-63 / 150)
    assert UMa().los_probability(63, 25, 23) == pytest.approx(expected * lift)
    with pytest.raises(ValueError, match="ut_height_m"):
        UMa().los_probability(100, 25, 24)


def test_rural_los_probability():
    np.testing.assert_array_equal(RMa().los_probability([0, 5, 10], 35, 1.5), 1)
    assert RMa().los_probability(1010, 35, 1.5) == pytest.approx(1 / math.e)


def test_office_los_probability():
    np.testing.assert_array_equal(InHOpen().los_probability([0, 3, 5], 3, 1), 1)
    np.testing.assert_array_equal(InHMixed().los_probability([0, 1, 1.2], 3, 1), 1)
    assert InHMixed().los_probability(1.2 + 4.7, 3, 1) == pytest.approx(1 / math.e)
    assert InHMixed().los_probability(6.5 + 32.6, 3, 1) == pytest.approx(0.32 / math.e)
    assert InHOpen().los_probability(49 + 211.7, 3, 1) == pytest.approx(0.54 / math.e)
    assert InHOpen().los_probability(5 + 35.4, 3, 1) == pytest.approx(math.exp(-0.5))
    # The pieces were fitted apart; they miss each other by less than 0.004.
    for office, switch_m in ((InHOpen(), 49), (InHMixed(), 6.5)):
        before, after = office.los_probability([switch_m, switch_m * (1 + 1e-9)], 3, 1)
        assert 0 < abs(after - before) < 0.004


@pytest.mark.parametrize("factory", FACTORIES)
def test_factory_los_probability_is_a_poisson_law_of_clutter(factory):
    """Probabilities of two stretches multiply, and one clutter size leaves 1 - density."""
    hall = factory()
    bs, ut = hall.bs_height_m, hall.ut_height_m
    whole, first, second = hall.los_probability([50.0, 20.0, 30.0], bs, ut)
    assert whole == pytest.approx(first * second)
    assert hall.los_probability(0.0, bs, ut) == 1
    # Seen from above the clutter only this share of the way is below its top.
    blocked = (hall.clutter_height_m - ut) / (bs - ut) if bs > hall.clutter_height_m else 1
    assert hall.los_probability(hall.clutter_size_m, bs, ut) == pytest.approx(
        (1 - hall.clutter_density) ** blocked
    )
    assert hall.los_decorrelation_m == hall.clutter_size_m / 2


def test_high_base_station_at_the_top_of_the_clutter_is_a_low_one():
    high, low = InFDH(), InFDL()
    distance = np.linspace(0, 100, 11)
    np.testing.assert_allclose(
        high.los_probability(distance, high.clutter_height_m, 1.5),
        low.los_probability(distance, 1.5, 1.5),
    )


def test_dense_low_factory_loses_at_least_as_much_as_the_sparse_one():
    distance = np.geomspace(1, 599, 501)
    dense, sparse = (_path_loss_db(hall, distance, False) for hall in (InFDL(), InFSL()))
    assert (dense >= sparse).all()
    # The laws cross at lg d = 14.4/10.2, that is 25.8 m: below it the sparse one holds.
    np.testing.assert_array_equal(dense[distance < 25.8], sparse[distance < 25.8])
    assert (dense[distance > 25.9] > sparse[distance > 25.9]).all()


@names
@given(distance=st.floats(0, 20000), ut_height_m=st.floats(1.0, 1.9))
def test_los_probability_is_a_probability(name, distance, ut_height_m):
    environment = ENVIRONMENTS[name]()
    probability = environment.los_probability(distance, environment.bs_height_m, ut_height_m)
    assert 0 <= probability <= 1


@pytest.mark.parametrize("ut_height_m", [1.5, 13, 18, 22.5, 23])
def test_urban_los_probability_is_a_probability_at_every_height(ut_height_m):
    probability = UMa().los_probability(np.linspace(0, 5000, 20001), 25, ut_height_m)
    assert ((probability > 0) & (probability <= 1)).all()


@pytest.mark.parametrize(
    ("environment", "los_db", "nlos_db", "los_m", "nlos_m", "los_decorrelation_m", "k_db"),
    [
        (UMa(), 4, 6, 37, 50, 50, (9, 3.5)),
        (UMi(), 4, 7.82, 10, 13, 50, (9, 5)),
        (RMa(), 4, 8, 37, 120, 60, (7, 4)),
        (InHOpen(), 3, 8.03, 10, 6, 10, (7, 4)),
        (InHMixed(), 3, 8.03, 10, 6, 10, (7, 4)),
        (InFSL(), 4.3, 5.7, 10, 10, 5, (7, 8)),
        (InFDL(), 4.3, 7.2, 10, 10, 1, (7, 8)),
        (InFSH(), 4.3, 5.9, 10, 10, 5, (7, 8)),
        (InFDH(), 4.3, 4.0, 10, 10, 1, (7, 8)),
    ],
)
def test_tables_of_the_report(
    environment, los_db, nlos_db, los_m, nlos_m, los_decorrelation_m, k_db
):
    heights = environment.bs_height_m, environment.ut_height_m
    sight = np.array([True, False])
    std = environment.shadowing_std_db(np.array([20.0, 20.0]), sight, CARRIER_HZ, *heights)
    np.testing.assert_array_equal(std, [los_db, nlos_db])
    np.testing.assert_array_equal(environment.shadowing_decorrelation_m(sight), [los_m, nlos_m])
    assert environment.los_decorrelation_m == los_decorrelation_m
    assert environment.rician_k_db == k_db


def test_rural_shadowing_widens_past_the_breakpoint():
    breakpoint_m = 2 * math.pi * 35 * 1.5 * 1e9 / REPORT_LIGHT_M_PER_S
    distance = np.array([0.99, 1.01, 0.99, 1.01]) * breakpoint_m
    sight = np.array([True, True, False, False])
    std = RMa().shadowing_std_db(distance, sight, 1e9, 35, 1.5)
    np.testing.assert_array_equal(std, [4, 6, 8, 8])


def test_log_distance_defaults_are_the_macrocell_of_36_942():
    """L = 40 (1 - 4e-3 h) lg R - 18 lg h + 21 lg f + 80 dB; R in km, h = 15 m, f = 2000 MHz."""
    law = LogDistance()
    distance = np.array([100.0, 1000.0, 3000.0])
    macrocell = (
        40 * (1 - 4e-3 * 15) * np.log10(distance / 1000)
        - 18 * math.log10(15)
        + 21 * math.log10(2000)
        + 80
    )
    # 128.15 dB, which the report rounds to 128.1.
    np.testing.assert_allclose(_path_loss_db(law, distance, False), macrocell, atol=0.06)
    np.testing.assert_array_equal(law.los_probability(distance, 25, 1.5), 0)
    assert law.rician_k_db is None


@given(
    intercept_db=st.floats(0, 200),
    reference_distance_m=st.floats(0.1, 1e4),
    exponent=st.floats(1, 6),
    decades=st.integers(-3, 3),
)
def test_log_distance_law(intercept_db, reference_distance_m, exponent, decades):
    law = LogDistance(intercept_db, reference_distance_m, exponent)
    loss = _path_loss_db(law, reference_distance_m * 10.0**decades, False)
    assert loss == pytest.approx(intercept_db + 10 * exponent * decades, abs=1e-9)


@pytest.mark.parametrize("field", ["reference_distance_m", "exponent", "decorrelation_m", "std_db"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_log_distance_rejects(field, value):
    with pytest.raises(ValueError, match=field):
        LogDistance(**{field: value})


def test_free_space():
    """The received power is that on the sphere through an isotropic antenna's aperture."""
    carrier_hz = 299792458.0  # a wavelength of 1 m, aperture 1/(4 pi) square metres
    loss = FreeSpace().path_loss_db(np.array([3.0, 30.0]), True, carrier_hz, 5, 1)
    sphere = 4 * math.pi * np.array([5.0**2, 30**2 + 4**2])
    np.testing.assert_allclose(loss, 10 * np.log10(sphere * 4 * math.pi), rtol=1e-13)
    # The handbook's 32.4 dB at 1 km and 1 MHz (32.45 more exactly).
    assert FreeSpace().path_loss_db(1000.0, True, 1e6, 2, 2) == pytest.approx(32.45, abs=0.01)
    assert FreeSpace().los_probability(1000.0, 2, 2) == 1
    assert FreeSpace().shadowing_std_db(1000.0, True, 1e9, 2, 2) == 0


def _deployment(name):
    environment = ENVIRONMENTS[name]()
    low, high = DISTANCES_M[name]
    return environment, {
        "carrier_hz": 2e9,
        "bs_height_m": environment.bs_height_m,
        "ut_height_m": environment.ut_height_m,
        "min_distance_m": low,
        "max_distance_m": high,
    }


@names
def test_defaults_are_within_the_ranges(name):
    environment, deployment = _deployment(name)
    environment.check(**deployment)


@names
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("carrier_hz", 0.1),
        ("carrier_hz", math.nan),
        ("bs_height_m", -1.0),
        ("ut_height_m", -1.0),
        ("min_distance_m", -10.0),
        ("min_distance_m", 1e5),
        ("max_distance_m", math.inf),
    ],
)
def test_deployments_out_of_range_name_the_field(name, field, value):
    environment, deployment = _deployment(name)
    with pytest.raises(ValueError, match=field):
        environment.check(**(deployment | {field: value}))


@pytest.mark.parametrize(
    ("environment", "height_m"),
    [(InHOpen(), 1.0), (InHMixed(), 1.0), (InFSL(), 1.5), (InFDL(), 1.5), (FreeSpace(), 1.5)],
)
def test_antennas_of_equal_height_must_not_touch(environment, height_m):
    _, deployment = _deployment(environment.name)
    deployment |= {"bs_height_m": height_m, "ut_height_m": height_m, "min_distance_m": 0.01}
    with pytest.raises(ValueError, match="min_distance_m"):
        environment.check(**deployment)


@pytest.mark.parametrize(
    ("environment", "field", "value"),
    [
        (UMa(), "min_distance_m", 9.0),
        (UMi(), "min_distance_m", 9.0),
        (RMa(), "min_distance_m", 9.0),
        (LogDistance(), "min_distance_m", 0.3),
        (UMa(), "carrier_hz", 101e9),
        (UMa(), "bs_height_m", 9.0),
        (UMa(), "ut_height_m", 22.6),
        (UMi(), "ut_height_m", 22.6),
        (UMa(), "max_distance_m", 5001.0),
        (UMi(), "bs_height_m", 25.0),
        (RMa(), "carrier_hz", 31e9),
        (RMa(), "ut_height_m", 11.0),
        (InHOpen(), "max_distance_m", 150.0),
        (InFSL(), "bs_height_m", 2.5),
        (InFDH(), "bs_height_m", 5.0),
        (InFDH(), "bs_height_m", 11.0),
        (InFDH(), "ut_height_m", 7.0),
        (InFSH(), "max_distance_m", 600.0),
    ],
)
def test_ranges_of_the_report(environment, field, value):
    _, deployment = _deployment(environment.name)
    with pytest.raises(ValueError, match=field):
        environment.check(**(deployment | {field: value}))


def test_blocked_ray_needs_clutter_between_the_antennas():
    with pytest.raises(ValueError, match="clutter_height_m"):
        InFSH().los_probability(10.0, 8.0, 2.0)
    with pytest.raises(ValueError, match="clutter_height_m"):
        InFSH().check(3.5e9, 8.0, 2.0, 10.0, 100.0)


@pytest.mark.parametrize(
    ("factory", "field", "value"),
    [
        (InFSL, "clutter_density", 0.4),
        (InFSL, "clutter_density", 0.0),
        (InFDL, "clutter_density", 0.39),
        (InFDH, "clutter_density", 1.0),
        (InFSH, "clutter_density", math.nan),
        (InFSL, "clutter_size_m", 0.0),
        (InFSL, "clutter_size_m", math.inf),
        (InFDL, "clutter_height_m", 10.0),
        (InFDL, "clutter_height_m", 0.0),
        (InFSL, "ceiling_height_m", 26.0),
        (InFDL, "ceiling_height_m", 16.0),
        (InFDH, "ceiling_height_m", 5.5),
        (RMa, "street_width_m", 4.0),
        (RMa, "building_height_m", 51.0),
    ],
)
def test_parameters_out_of_range_name_the_field(factory, field, value):
    with pytest.raises(ValueError, match=field):
        factory(**{field: value})
