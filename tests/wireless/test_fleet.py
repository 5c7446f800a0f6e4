"""Fleets: geometry and distributions."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from wireless.devices import preset
from wireless.fleet import draw_fleet
from wireless.radio import RadioParameters

PHONE = preset("phone-snapdragon-778g")
WIDE = {"bandwidth_hz": 20e6, "downlink_bandwidth_hz": 20e6, "bs_power_dbm": 46.0}
RADIO = RadioParameters(**WIDE)


@pytest.fixture(scope="module")
def fleet():
    return draw_fleet(1, 10_000, PHONE, 0.78, 0.3, RADIO)


def test_positions_are_uniform_in_the_disc(fleet):
    inner, outer = RADIO.min_distance_m, RADIO.cell_radius_m
    assert fleet.channel.start.distance_m.min() >= inner
    assert fleet.channel.start.distance_m.max() <= outer
    area = (fleet.channel.start.distance_m**2 - inner**2) / (outer**2 - inner**2)
    turn = np.arctan2(fleet.channel.start.y_m, fleet.channel.start.x_m) / (2 * np.pi) + 0.5
    assert stats.kstest(area, "uniform").pvalue > 0.001
    assert stats.kstest(turn, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(area, turn)[0, 1]) < 0.04
    np.testing.assert_allclose(
        np.hypot(fleet.channel.start.x_m, fleet.channel.start.y_m), fleet.channel.start.distance_m
    )


def test_a_device_is_the_same_whatever_the_fleet_size(fleet):
    small = draw_fleet(1, 7, PHONE, 0.78, 0.3, RADIO)
    assert len(small) == 7
    for mine, other in ((small, fleet), (small.channel.start, fleet.channel.start)):
        for field in fields(mine):
            if isinstance(getattr(mine, field.name), np.ndarray):
                np.testing.assert_array_equal(
                    getattr(mine, field.name), getattr(other, field.name)[:7], err_msg=field.name
                )
    start, first = small.channel.start, fleet.channel.start
    np.testing.assert_array_equal(start.uplink.rate(1e6), first.uplink.rate(1e6)[:7])


def test_seeds_draw_different_fleets(fleet):
    other = draw_fleet(2, 7, PHONE, 0.78, 0.3, RADIO)
    assert not np.isin(other.channel.start.distance_m, fleet.channel.start.distance_m).any()


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


def test_kinds_keep_to_their_shares_and_bring_their_figures():
    kinds = [PHONE, preset("jetson-nano")]
    mixed = draw_fleet(1, 20_000, kinds, 0, 0, RADIO, share=[3.0, 1.0])
    error = (mixed.kind.mean() - 0.25) / np.sqrt(0.25 * 0.75 / len(mixed))
    assert abs(error) < 3.5
    for number, kind in enumerate(kinds):
        of_kind = mixed.kind == number
        np.testing.assert_array_equal(mixed.compute_flops[of_kind], kind.flops)
        np.testing.assert_array_equal(mixed.battery_j[of_kind], kind.battery_j)
    assert np.isinf(mixed.battery_j[mixed.kind == 1]).all()


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
