"""Device presets and mixtures of kinds."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from benchmarks.device_presets.published import flops_per_token, predict
from benchmarks.device_presets.steps import LLAMA_2_7B, LLAMA_3_1_8B, MISTRAL_7B, PUBLISHED_STEPS
from wireless.compute import speed_from_tokens
from wireless.devices import PRESETS, DevicePreset, draw_kinds, preset

#: Presets whose speed is that of a fitted family, by device and software of the family.
FITTED = {
    "phone-snapdragon-778g": ("Snapdragon 778G (CPU)", "MobileFineTuner"),
    "jetson-nano": ("Jetson Nano", "MobileFineTuner"),
    "phone-mali-g715": ("Mali-G715", "llama.cpp fork, Q8_0"),
    "phone-snapdragon-8-elite": ("Adreno 830 (Snapdragon 8 Elite)", "llama.cpp fork, Q8_0"),
    "phone-iphone-16": ("iPhone 16", "llama.cpp fork, Q8_0"),
    "laptop-m3-pro": ("Apple M3 Pro", "llama.cpp fork, Q8_0"),
    "server-a100": ("A100 80GB", "PyTorch, FlashAttention 2"),
    "server-h100": ("H100 (DGX)", "NeMo, FP8"),
}


def test_presets_are_keyed_by_their_names():
    for name, device in PRESETS.items():
        assert preset(name) is device
        assert device.name == name
        assert device.flops >= 1e9
        assert device.memory_bytes >= 1e9
        assert device.compute_power_w > 0
        assert device.step_overhead_s == 0


@pytest.mark.parametrize("device", PRESETS.values(), ids=PRESETS)
def test_every_figure_is_cited_or_called_an_estimate(device):
    cites = re.search(r"arXiv \d{4}\.\d{5}|\w+\.(com|io)/", device.source)
    assert "estimate" in device.source or cites
    if "measured" in device.source.split(";")[0]:
        assert cites
    else:
        assert device.source.startswith("estimate")


def test_measured_speeds():
    assert preset("phone-snapdragon-778g").flops == 3.2e9
    assert preset("jetson-nano").flops == 4.5e10


@pytest.mark.parametrize(("name", "family"), FITTED.items(), ids=FITTED)
def test_measured_presets_have_the_speed_of_their_published_step(name, family):
    """Two significant digits are kept: 2.5 % covers rounding and 3.2 for 3.26 GFLOP/s."""
    speed = {(p.step.device, p.step.software): p.speed_flops for p in predict(PUBLISHED_STEPS)}
    assert preset(name).flops == pytest.approx(speed[family], rel=0.025)


@pytest.mark.parametrize(
    ("name", "tokens_per_s", "counts"),
    [
        ("jetson-agx-orin", 550 / 7.9, LLAMA_2_7B.counts(8, "qv")),
        ("laptop-m1-max", 250, MISTRAL_7B.counts(8, "qv", top_layers=4)),
        ("workstation-rtx-4090", 3083, LLAMA_3_1_8B.counts(8, "qvo")),
    ],
)
def test_presets_measured_in_tokens_per_second(name, tokens_per_s, counts):
    """Attention aside, which the sources do not tell; two digits are kept."""
    speed = speed_from_tokens(tokens_per_s, flops_per_token(counts, 0))
    assert preset(name).flops == pytest.approx(float(speed), rel=0.025)


def test_estimates_are_the_shares_that_they_name():
    assert preset("jetson-tx2").flops == pytest.approx(0.19 * 665e9, rel=0.03)
    assert preset("jetson-xavier-nx").flops == pytest.approx(0.19 * 845e9, rel=0.03)
    assert preset("jetson-orin-nano").flops == pytest.approx(0.19 * 2 * 1024 * 625e6, rel=0.03)
    assert preset("jetson-nano").flops == pytest.approx(0.19 * 2 * 128 * 921e6, rel=0.03)
    assert preset("phone-low-end").flops == pytest.approx(0.015 * 4 * 8 * (2.4e9 + 1.9e9), rel=0.03)
    assert preset("server-t4").flops == pytest.approx(0.48 * 65e12, rel=0.03)
    assert preset("server-l4").flops == pytest.approx(0.48 * 121e12, rel=0.03)
    assert preset("server-a100").flops == pytest.approx(0.48 * 312e12, rel=0.03)


def test_batteries():
    for name, device in PRESETS.items():
        carried = name.startswith(("phone", "laptop"))
        assert (device.battery_wh is not None) == carried
        assert math.isfinite(device.battery_j) == carried
    # 4000 mAh at 3.85 V.
    assert preset("phone-snapdragon-778g").battery_j == pytest.approx(4.0 * 3.85 * 3600, rel=1e-9)


def test_presets_need_no_battery():
    assert DevicePreset("a", 1e9, 1e9, 1.0, 23.0, "estimate").battery_j == math.inf


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'toaster'.*jetson-nano.*laptop"):
        preset("toaster")


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["toaster"] = PRESETS["laptop"]


def test_kinds_come_in_their_shares():
    """Chi-square at the 0.1 % level over 100,000 devices and four kinds, one of them absent."""
    share = {"phone-low-end": 5, "laptop": 0, "jetson-nano": 2, "server-t4": 1}
    count = np.bincount(draw_kinds(7, np.arange(100_000), share), minlength=4)
    assert count[1] == 0
    assert chisquare(count[[0, 2, 3]], 100_000 * np.array([5, 2, 1]) / 8).pvalue > 1e-3


@given(
    seed=st.integers(0, 2**32),
    small=st.integers(0, 50),
    more=st.integers(0, 50),
    share=st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
)
def test_more_devices_change_nobody(seed, small, more, share):
    whole = draw_kinds(seed, np.arange(small + more), share)
    np.testing.assert_array_equal(draw_kinds(seed, np.arange(small), share), whole[:small])
    order = np.arange(small + more)[::-1]
    np.testing.assert_array_equal(draw_kinds(seed, order, share), whole[::-1])
    assert ((whole >= 0) & (whole < len(share))).all()


def test_only_the_proportions_of_the_shares_count():
    device = np.arange(1000)
    named = draw_kinds(1, device, {"a": 0.25, "b": 0.75})
    np.testing.assert_array_equal(named, draw_kinds(1, device, [2, 6]))
    # A kind that is added at the end with no share changes nobody either.
    np.testing.assert_array_equal(named, draw_kinds(1, device, [2, 6, 0]))


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({}, "share must be a row"),
        ([0, 0], "positive sum"),
        ([[1, 2]], "share must be a row"),
        ([1, -1], "share must be finite and at least 0, got -1"),
        ([1, np.nan], "share must be finite"),
        ([1, np.inf], "share must be finite"),
    ],
)
def test_shares_that_are_none_are_refused(share, message):
    with pytest.raises(ValueError, match=message):
        draw_kinds(0, [0, 1], share)
