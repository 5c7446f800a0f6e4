"""Fleets: geometry, link budget and distributions."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import exp1

from wireless.devices import preset
from wireless.fleet import RadioParameters, broadcast_rate_bps, draw_fleet
from wireless.link import ErgodicRayleighLink, PowerLimitedLink
from wireless.pathloss import uma_los_probability, uma_path_loss_db

PHONE = preset("phone-snapdragon-778g")
WIDE = {"bandwidth_hz": 20e6, "downlink_bandwidth_hz": 20e6, "bs_power_dbm": 46.0}
RADIO = RadioParameters(**WIDE)


@pytest.fixture(scope="module")
def fleet():
    return draw_fleet(1, 10_000, PHONE, 0.78, 0.3, RADIO)


def test_positions_are_uniform_in_the_disc(fleet):
    inner, outer = RADIO.min_distance_m, RADIO.cell_radius_m
    assert fleet.distance_m.min() >= inner
    assert fleet.distance_m.max() <= outer
    area = (fleet.distance_m**2 - inner**2) / (outer**2 - inner**2)
    turn = np.arctan2(fleet.y_m, fleet.x_m) / (2 * np.pi) + 0.5
    assert stats.kstest(area, "uniform").pvalue > 0.001
    assert stats.kstest(turn, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(area, turn)[0, 1]) < 0.04
    np.testing.assert_allclose(np.hypot(fleet.x_m, fleet.y_m), fleet.distance_m)


def test_a_device_is_the_same_whatever_the_fleet_size(fleet):
    small = draw_fleet(1, 7, PHONE, 0.78, 0.3, RADIO)
    assert len(small) == 7
    for field in fields(small):
        if field.name != "uplink":
            np.testing.assert_array_equal(
                getattr(small, field.name), getattr(fleet, field.name)[:7], err_msg=field.name
            )
    np.testing.assert_array_equal(small.uplink.rate(1e6), fleet.uplink.rate(1e6)[:7])


def test_seeds_draw_different_fleets(fleet):
    other = draw_fleet(2, 7, PHONE, 0.78, 0.3, RADIO)
    assert not np.isin(other.distance_m, fleet.distance_m).any()


def test_changing_the_radio_moves_nobody_and_slows_nobody(fleet):
    other = draw_fleet(1, 7, PHONE, 0.78, 0.3, RadioParameters(carrier_hz=28e9, fading="none"))
    np.testing.assert_array_equal(other.x_m, fleet.x_m[:7])
    np.testing.assert_array_equal(other.shadowing_db, fleet.shadowing_db[:7])
    np.testing.assert_array_equal(other.compute_flops, fleet.compute_flops[:7])


def test_speed_and_memory_are_log_normal(fleet):
    for values, median, sigma in (
        (fleet.compute_flops, PHONE.flops, 0.78),
        (fleet.memory_bytes, PHONE.memory_bytes, 0.3),
    ):
        standard = np.log(values / median) / sigma
        assert stats.kstest(standard, "norm").pvalue > 0.001
    logs = np.log(fleet.compute_flops), np.log(fleet.memory_bytes)
    assert abs(np.corrcoef(*logs)[0, 1]) < 0.04


def test_a_device_twice_as_slow_has_twice_the_overhead():
    slow_start = replace(PHONE, step_overhead_s=0.25)
    fleet = draw_fleet(1, 50, slow_start, 0.78, 0.3, RADIO)
    slowness = PHONE.flops / fleet.compute_flops
    np.testing.assert_allclose(fleet.step_overhead_s, 0.25 * slowness)
    none = draw_fleet(1, 50, PHONE, 0.78, 0.3, RADIO)
    assert not none.step_overhead_s.any()
    np.testing.assert_array_equal(none.compute_flops, fleet.compute_flops)


def test_no_spread_gives_the_preset():
    same = draw_fleet(1, 5, PHONE, 0, 0, RADIO)
    np.testing.assert_array_equal(same.compute_flops, PHONE.flops)
    np.testing.assert_array_equal(same.memory_bytes, PHONE.memory_bytes)


def test_line_of_sight_has_its_probability(fleet):
    probability = uma_los_probability(fleet.distance_m, RADIO.ut_height_m)
    error = (fleet.los - probability).sum() / np.sqrt((probability * (1 - probability)).sum())
    assert abs(error) < 3.5
    near = fleet.distance_m < 100
    assert fleet.los[near].mean() > 2 * fleet.los[~near].mean()


def test_shadowing_is_normal_with_the_deviation_of_its_state(fleet):
    for state, std in ((True, 4), (False, 6)):
        sample = fleet.shadowing_db[fleet.los == state] / std
        assert stats.kstest(sample, "norm").pvalue > 0.001


def test_link_budget_of_one_device_by_hand(fleet):
    n = int(np.flatnonzero(~fleet.los)[0])
    loss = uma_path_loss_db(fleet.distance_m[n], 3.5e9, 25, 1.5, False) + fleet.shadowing_db[n]
    # 23 dBm + 8 dBi - loss against -173.98 dBm/Hz + 73.01 dBHz + 5 dB.
    snr_db = 23 + 8 - loss - (-173.98 + 73.0103 + 5)
    assert fleet.snr_db[n] == pytest.approx(snr_db, abs=1e-4)
    downlink_snr_db = 46 + 8 - loss - (-173.98 + 73.0103 + 9)
    assert fleet.downlink_snr_db[n] == pytest.approx(downlink_snr_db, abs=1e-4)
    # P g / (N0 gap) in Hz.
    a = 10 ** ((23 + 8 - loss + 173.98 - 5 - 1.73) / 10)
    assert isinstance(fleet.uplink, ErgodicRayleighLink)
    assert fleet.uplink.snr_bandwidth_hz[n] == pytest.approx(a, rel=1e-4)


def test_extra_loss_lowers_both_directions():
    near, far = (
        draw_fleet(1, 5, PHONE, 0, 0, RadioParameters(extra_loss_db=loss)) for loss in (0, 20)
    )
    np.testing.assert_allclose(far.snr_db, near.snr_db - 20)
    np.testing.assert_allclose(far.downlink_snr_db, near.downlink_snr_db - 20)


def test_static_channel_has_the_shannon_rate_with_a_gap():
    radio = RadioParameters(**WIDE, fading="none")
    still = draw_fleet(1, 5, PHONE, 0, 0, radio)
    assert isinstance(still.uplink, PowerLimitedLink)
    snr = 10 ** ((still.snr_db - 1.73) / 10)
    np.testing.assert_allclose(still.uplink.rate(20e6), 20e6 * np.log2(1 + snr))
    worst = 10 ** ((still.downlink_snr_db.min() - 1.73) / 10)
    assert broadcast_rate_bps(still, radio) == pytest.approx(20e6 * np.log2(1 + worst))


def test_broadcast_is_ergodic_at_the_worst_receiver(fleet):
    snr = 10 ** ((fleet.downlink_snr_db.min() - 1.73) / 10)
    rate = 20e6 * np.exp(1 / snr) * exp1(1 / snr) / np.log(2)
    assert broadcast_rate_bps(fleet, RADIO) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth_hz", 0),
        ("downlink_bandwidth_hz", np.inf),
        ("carrier_hz", 1e8),
        ("cell_radius_m", 6000),
        ("min_distance_m", 5),
        ("min_distance_m", 500),
        ("bs_height_m", 0),
        ("ut_height_m", 23),
        ("bs_power_dbm", np.nan),
        ("bs_noise_figure_db", -1),
        ("extra_loss_db", -1),
        ("snr_gap_db", -1),
        ("fading", "rician"),
    ],
)
def test_radio_parameters_are_validated(name, value):
    with pytest.raises(ValueError, match=name):
        RadioParameters(**{name: value})


def test_fleet_arguments_are_validated():
    with pytest.raises(ValueError, match="devices"):
        draw_fleet(1, 0, PHONE, 0, 0, RADIO)
    with pytest.raises(ValueError, match="memory_spread_sigma"):
        draw_fleet(1, 1, PHONE, 0, -1, RADIO)


def test_import_stays_light():
    heavy = {"torch", "simpy", "pandas", "optimizer", "fslora", "sim"}
    code = f"import sys, wireless; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
