"""Device presets and energy."""

import pytest

from wireless.devices import PRESETS, preset
from wireless.energy import compute_energy_j, uplink_energy_j


def test_presets_are_keyed_by_their_names_and_sourced():
    for name, device in PRESETS.items():
        assert preset(name) is device
        assert device.name == name
        assert "measured" in device.source or "estimate" in device.source
        assert device.flops >= 1e9
        assert device.memory_bytes >= 1e9
        assert device.compute_power_w > 0
        assert device.step_overhead_s == 0


def test_measured_speeds():
    assert preset("phone-snapdragon-778g").flops == 3.2e9
    assert preset("jetson-nano").flops == 4.5e10


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'toaster'.*jetson-nano.*laptop"):
        preset("toaster")


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["toaster"] = PRESETS["laptop"]


def test_energy():
    # 30 dBm is one watt, 23 dBm a fifth of it.
    assert uplink_energy_j([30, 23], 10).tolist() == pytest.approx([10, 1.9953], rel=1e-4)
    assert compute_energy_j([4, 10], [3, 2]).tolist() == [12, 20]
