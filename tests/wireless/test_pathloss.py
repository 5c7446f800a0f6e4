"""3GPP TR 38.901 urban macrocell."""

import numpy as np
import pytest

from wireless.pathloss import uma_los_probability, uma_path_loss_db, uma_shadowing_std_db

CARRIER_HZ, BS_HEIGHT_M, UT_HEIGHT_M = 5e9, 25, 1.5


@pytest.mark.parametrize(
    ("los", "distance_2d_m", "path_loss_db"),
    [
        (True, 10, 72.938),
        (True, 100, 86.2362),
        (True, 1000, 109.7252),
        (True, 5000, 137.6794),
        (False, 10, 82.5131),
        (False, 100, 106.1356),
        (False, 1000, 144.7641),
        (False, 5000, 172.0753),
    ],
)
def test_path_loss_as_published_with_ns3(los, distance_2d_m, path_loss_db):
    computed = uma_path_loss_db(distance_2d_m, CARRIER_HZ, BS_HEIGHT_M, UT_HEIGHT_M, los)
    assert computed == pytest.approx(path_loss_db, abs=0.05)


def test_path_loss_grows_with_distance_and_is_no_less_out_of_sight():
    distance = np.linspace(10, 5000, 2000)
    los, nlos = (
        uma_path_loss_db(distance, 3.5e9, BS_HEIGHT_M, UT_HEIGHT_M, sight)
        for sight in (True, False)
    )
    assert (np.diff(los) > 0).all()
    assert (np.diff(nlos) > 0).all()
    assert (nlos >= los).all()


def test_path_loss_is_continuous_at_the_breakpoint():
    breakpoint_m = 4 * 24 * 0.5 * CARRIER_HZ / 3e8
    sides = breakpoint_m * np.array([1 - 1e-9, 1 + 1e-9])
    near, far = uma_path_loss_db(sides, CARRIER_HZ, BS_HEIGHT_M, UT_HEIGHT_M, True)
    assert far == pytest.approx(near, abs=1e-6)


def test_los_probability():
    np.testing.assert_array_equal(uma_los_probability([1, 10, 18], 1.5), 1)
    # 18/63 + (1 - 18/63)/e, the second factor of the table being 1 up to 13 m.
    expected = 18 / 63 + (1 - 18 / 63) / np.e
    assert uma_los_probability(63, 1.5) == pytest.approx(expected)
    assert uma_los_probability(63, 13) == pytest.approx(expected)
    # C' of 23 m is 1.
    lift = 1 + 5 / 4 * 0.63**3 * np.exp(-63 / 150)
    assert uma_los_probability(63, 23) == pytest.approx(expected * lift)


def test_los_probability_is_a_probability():
    distance = np.linspace(0, 5000, 20001)
    for height in (1.5, 13, 18, 23):
        probability = uma_los_probability(distance, height)
        assert ((probability > 0) & (probability <= 1)).all()
    with pytest.raises(ValueError, match="ut_height_m"):
        uma_los_probability(100, 24)


def test_shadowing_std():
    np.testing.assert_array_equal(uma_shadowing_std_db([True, False]), [4, 6])
