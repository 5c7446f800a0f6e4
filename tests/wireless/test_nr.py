"""NR grid: published rates, guard bands, whole resource blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wireless.nr import (
    OVERHEAD,
    block_hz,
    peak_rate_bps,
    resource_blocks,
    slot_s,
    subcarrier_spacing_hz,
    whole_blocks,
)


@pytest.mark.parametrize(
    ("layers", "bits", "channel_mhz", "numerology", "direction", "mbps"),
    [
        (4, 8, 100, 1, "downlink", 2337.0),
        (1, 6, 100, 1, "uplink", 468.76),
        (1, 6, 20, 0, "uplink", 91.00),
    ],
)
def test_published_peak_rates(layers, bits, channel_mhz, numerology, direction, mbps):
    blocks = resource_blocks(channel_mhz * 1e6, numerology)
    rate = peak_rate_bps(layers, bits, blocks, numerology, OVERHEAD["FR1", direction])
    assert rate / 1e6 == pytest.approx(mbps, abs=0.1)


def test_numerologies():
    assert [subcarrier_spacing_hz(mu) for mu in range(4)] == [15e3, 30e3, 60e3, 120e3]
    assert [slot_s(mu) * 1e3 for mu in range(4)] == [1, 0.5, 0.25, 0.125]
    assert [block_hz(mu) for mu in range(4)] == [180e3, 360e3, 720e3, 1440e3]
    for call in (subcarrier_spacing_hz, slot_s, block_hz):
        with pytest.raises(ValueError, match="numerology must be"):
            call(4)


FR1_MHZ = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100)


@pytest.mark.parametrize(
    ("frequency_range", "numerology", "channels_mhz", "guards_khz"),
    [
        # TS 38.101-1 and 38.101-2, table 5.3.3-1: minimum guard bands.
        (
            "FR1",
            0,
            FR1_MHZ[:10],
            (242.5, 312.5, 382.5, 452.5, 522.5, 592.5, 572.5, 552.5, 712.5, 692.5),
        ),
        (
            "FR1",
            1,
            FR1_MHZ,
            (505, 665, 645, 805, 785, 945, 925, 905, 1065, 1045, 825, 965, 925, 885, 845),
        ),
        (
            "FR1",
            2,
            FR1_MHZ[1:],
            (1010, 990, 1330, 1310, 1290, 1630, 1610, 1590, 1570, 1530, 1490, 1450, 1410, 1370),
        ),
        ("FR2", 2, (50, 100, 200), (1210, 2450, 4930)),
        ("FR2", 3, (50, 100, 200, 400), (1900, 2420, 4900, 9860)),
    ],
)
def test_blocks_leave_the_published_guard_bands(
    frequency_range, numerology, channels_mhz, guards_khz
):
    for mhz, guard_khz in zip(channels_mhz, guards_khz, strict=True):
        blocks = resource_blocks(mhz * 1e6, numerology, frequency_range)
        free = mhz * 1e6 - blocks * block_hz(numerology)
        # The standard's guards leave out half a subcarrier at each edge.
        guard = (free - subcarrier_spacing_hz(numerology)) / 2
        assert guard / 1e3 == pytest.approx(guard_khz, abs=1e-6)


def test_channels_that_a_spacing_lacks():
    for mhz, numerology in ((60, 0), (5, 2)):
        with pytest.raises(ValueError, match="channel_hz must be one of"):
            resource_blocks(mhz * 1e6, numerology)


def test_errors_name_what_is_accepted():
    with pytest.raises(ValueError, match="channel_hz must be one of"):
        resource_blocks(12e6, 1)
    with pytest.raises(ValueError, match="numerology must give one of"):
        resource_blocks(20e6, 3)
    with pytest.raises(ValueError, match="frequency_range"):
        resource_blocks(20e6, 0, "FR3")  # type: ignore[arg-type]
    good = {"layers": 1, "modulation_bits": 6, "blocks": 1, "numerology": 0, "overhead": 0.1}
    for name, bad in (
        ("layers", 0),
        ("modulation_bits", 3),
        ("blocks", 0),
        ("numerology", 7),
        ("overhead", 1.0),
        ("scaling", 0.0),
        ("code_rate", math.nan),
    ):
        with pytest.raises(ValueError, match=name):
            peak_rate_bps(**(good | {name: bad}))


def test_whole_blocks_by_hand():
    # 10 blocks to shares 4.6, 3.3, 2.1: nine by rounding down, the tenth to the largest rest.
    assert list(whole_blocks([4.6, 3.3, 2.1], 10, 1)) == [5, 3, 2]
    # 0.2 is lifted to one; nine blocks remain for 6.8 and 3: 6.24 and 2.76.
    assert list(whole_blocks([0.2, 6.8, 3.0], 10, 1)) == [1, 6, 3]
    assert list(whole_blocks([0.0, 6.0, 4.0], 10, 1)) == [0, 6, 4]
    assert list(whole_blocks([1e-9, 1e-9, 10.0], 3, 1)) == [1, 1, 1]
    assert list(whole_blocks([2.5, 2.5], 5, 1)) == [3, 2]
    assert whole_blocks([], 5, 1).shape == (0,)


@settings(max_examples=200)
@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=1, max_size=40),
    blocks=st.integers(40, 273),
)
def test_whole_blocks_keep_the_band(weights, blocks):
    band, width = blocks * 180e3, 180e3
    weights = np.array(weights)
    wanted = weights / max(weights.sum(), 1e-9) * band
    whole = whole_blocks(wanted, band, width)
    counts = whole / width
    np.testing.assert_allclose(counts, np.rint(counts), rtol=0, atol=1e-9)
    assert ((whole > 0) == (wanted > 0)).all()
    assert round(counts.sum()) == (blocks if wanted.any() else 0)
    # Nobody above one block gets more than the next whole number, nobody gains over a larger one.
    assert (counts <= np.maximum(np.ceil(wanted / width + 1e-9), 1)).all()
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(counts[order]) >= -1).all()


def test_whole_blocks_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="6 devices send over 5 blocks of 1 Hz: have fewer"):
        whole_blocks(np.ones(6), 5, 1)
    with pytest.raises(ValueError, match="bandwidth_hz must be finite"):
        whole_blocks([-1.0], 5, 1)
    with pytest.raises(ValueError, match="block_hz"):
        whole_blocks([1.0], 5, 0)
    with pytest.raises(ValueError, match="one dimension"):
        whole_blocks([[1.0]], 5, 1)
