"""Uplink power control: the standard's rule, the knee, and links under it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wireless.efficiency import LinkAdaptation
from wireless.link import ErgodicRayleighLink, LinearLink, PowerLimitedLink, make_link
from wireless.power_control import PowerControlledLink, headroom_db, knee_hz, power_dbm

A = np.array([1e5, 3e6, 2e8])
KNEE = np.array([1e5, 1e6, 1e7])


def inner(kind):
    if kind == "steps":
        return make_link(A, LinkAdaptation(), fading="rayleigh")
    return kind(A)


KINDS = [LinearLink, PowerLimitedLink, ErgodicRayleighLink, "steps"]


def test_power_by_hand():
    # -80 dBm wanted after 0.8 x 110 dB: 8 dBm in one block, 18 in ten, capped at 23 in a hundred.
    loss = np.full(3, 110.0)
    band = np.array([1, 10, 100]) * 180e3
    np.testing.assert_allclose(power_dbm(23, -80, 0.8, loss, band), [8, 18, 23], rtol=1e-14)
    np.testing.assert_allclose(headroom_db(23, -80, 0.8, loss, band), [15, 5, -5], rtol=1e-13)
    assert power_dbm(23, -80, 0.8, 110.0, 0.0) == -np.inf


def test_received_density_does_not_depend_on_the_loss_under_full_compensation():
    loss = np.array([70.0, 90.0, 100.0])
    received = power_dbm(23, -85, 1.0, loss, 180e3) - loss
    np.testing.assert_allclose(received, -85, rtol=1e-14)


@settings(max_examples=60)
@given(
    p0=st.floats(-110, -60),
    alpha=st.floats(0, 1),
    loss=st.floats(60, 160),
    band=st.floats(1e3, 1e9),
)
def test_knee_is_where_full_power_begins(p0, alpha, loss, band):
    knee = knee_hz(23, p0, alpha, loss)
    assert headroom_db(23, p0, alpha, loss, knee) == pytest.approx(0, abs=1e-9)
    power = power_dbm(23, p0, alpha, loss, band)
    assert power <= 23
    # Constant density below the knee.
    if band < knee:
        assert power - 10 * np.log10(band / knee) == pytest.approx(23, abs=1e-9)
    else:
        assert power == pytest.approx(23, abs=1e-9)


def test_alpha_is_validated():
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="alpha"):
            knee_hz(23, -80, alpha, 100.0)


@pytest.mark.parametrize("kind", KINDS)
def test_rate_below_the_knee_has_the_efficiency_of_the_knee(kind):
    link, full = PowerControlledLink(inner(kind), KNEE), inner(kind)
    at_knee = full.rate(KNEE)
    for part in (0.0, 1e-6, 0.3, 1.0):
        np.testing.assert_allclose(link.rate(part * KNEE), part * at_knee, rtol=1e-14)
    for factor in (1.0, 2.0, 1e3):
        np.testing.assert_allclose(link.rate(factor * KNEE), full.rate(factor * KNEE), rtol=1e-14)
    assert (link.rate(KNEE / 7) <= full.rate(KNEE / 7) * (1 + 1e-14)).all()
    assert np.array_equal(link.limit_bps, full.limit_bps)


def test_lower_power_lowers_the_snr_not_the_band():
    # By definition: at density p the SNR is that of full power over the knee.
    band = 3e4
    link = PowerControlledLink(PowerLimitedLink(A), KNEE)
    np.testing.assert_allclose(link.rate(band), band * np.log2(1 + A / KNEE), rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_over_ten_decades(kind):
    link = PowerControlledLink(inner(kind), KNEE)
    band = KNEE * 10.0 ** np.arange(-5, 5.25, 0.25)[:, None]
    rate = link.rate(band)
    # Far beyond the knee the rate is a rounding below its limit or at it.
    inside = rate < link.limit_bps
    needed, slope = link.bandwidth_and_slope(np.where(inside, rate, 1.0))
    np.testing.assert_allclose(link.rate(needed)[inside], rate[inside], rtol=1e-12)
    assert np.array_equal(needed, link.bandwidth(np.where(inside, rate, 1.0)))
    assert (slope > 0).all()
    low = band < 0.99 * KNEE
    np.testing.assert_allclose(slope[low], (band / rate)[low], rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_concave_and_increasing(kind):
    link = PowerControlledLink(inner(kind), KNEE)
    band = KNEE * 10.0 ** np.arange(-3, 3, 0.02)[:, None]
    rate = link.rate(band)
    chord = np.diff(rate, axis=0) / np.diff(band, axis=0)
    # Chords of nodes 5 % apart have 14 digits of the rate left, and the tabulated curve nine.
    assert (chord >= -1e-12 * rate[1:] / band[1:]).all()
    assert (np.diff(chord, axis=0) <= 1e-8 * chord[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_power_share_is_that_of_the_rule(kind):
    full = inner(kind)
    assert np.array_equal(full.power_share(np.array([0.0, 1.0, 1e9])), [0, 1, 1])
    loss = np.array([90.0, 105.0, 120.0])
    link = PowerControlledLink(full, knee_hz(23, -90, 0.8, loss))
    for band in (2e4, 1e6, 1e8):
        below_db = power_dbm(23, -90, 0.8, loss, band) - 23
        share = link.power_share(np.full(3, band))
        np.testing.assert_allclose(10 * np.log10(share), below_db, rtol=0, atol=1e-12)
    assert np.array_equal(link.power_share(link.knee_hz), np.ones(3))
    assert np.array_equal(link.power_share(np.zeros(3)), np.zeros(3))


@pytest.mark.parametrize("kind", KINDS)
def test_limits(kind):
    link = PowerControlledLink(inner(kind), KNEE)
    above = np.where(np.isfinite(link.limit_bps), link.limit_bps * 1.01, np.inf)
    bandwidth, slope = link.bandwidth_and_slope(above)
    assert np.isinf(bandwidth).all()
    if kind is not LinearLink:
        assert np.isinf(slope).all()
    assert np.array_equal(link.bandwidth(0.0), np.zeros(3))


@pytest.mark.parametrize("kind", KINDS)
def test_take(kind):
    link = PowerControlledLink(inner(kind), KNEE)
    chosen = link.take(np.array([2, 2, 0]))
    assert len(chosen) == len(link) == 3
    for band in (1e3, 1e6, 1e8):
        assert np.array_equal(chosen.rate(band), link.rate(band)[[2, 2, 0]])
    mask = np.array([True, False, True])
    assert np.array_equal(link.take(mask).bandwidth(1e4), link.bandwidth(1e4)[mask])


@pytest.mark.parametrize("bad", [[1.0, 1.0, 0.0], [1.0, 1.0, np.inf], [1.0, 1.0], 1.0])
def test_knee_is_validated(bad):
    with pytest.raises(ValueError, match="knee_hz"):
        PowerControlledLink(PowerLimitedLink(A), np.array(bad))
