"""Joined links, and where links are linear over a band."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wireless.efficiency import FittedNr, LinkAdaptation, Shannon
from wireless.link import (
    CappedLink,
    ErgodicRayleighLink,
    FadedLink,
    LinearLink,
    PowerLimitedLink,
    join,
    linear_efficiency,
    linear_power,
    make_link,
)
from wireless.power_control import PowerControlledLink

A = np.array([3e4, 1e6, 2e6, 5e7, 1e9])
K_DB = np.array([np.nan, 9.2, -3.0, 21.0, np.nan])
RATE = A * 0.1


def rician(a, k_db, efficiency=None):
    return make_link(a, efficiency or FittedNr(), k_db, "rician")


KINDS = {
    "linear": lambda index: LinearLink(A[index] / 1e6),
    "power-limited": lambda index: PowerLimitedLink(A[index], 0.7),
    "ergodic": lambda index: ErgodicRayleighLink(A[index], 0.7),
    "capped": lambda index: CappedLink(PowerLimitedLink(A[index]), 3.0),
    # Each group has tables for its own Rician factors alone.
    "tabulated": lambda index: rician(A[index], K_DB[index]),
    "steps": lambda index: make_link(A[index], LinkAdaptation(), fading="none"),
    "power-controlled": lambda index: PowerControlledLink(
        CappedLink(rician(A[index], K_DB[index]), 3.0), A[index] / 30
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(groups=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=4).filter(any))
def test_a_device_is_the_same_in_any_company(kind, groups):
    """Rates, bandwidths, slopes, limits and powers to the last digit, also after `take`."""
    index = [np.array(group, dtype=np.intp) for group in groups]
    joined = join([KINDS[kind](group) for group in index])
    everyone = np.concatenate(index)
    whole = KINDS[kind](np.arange(5))
    assert type(joined) is type(whole)
    assert len(joined) == len(everyone)
    assert np.array_equal(joined.limit_bps, whole.limit_bps[everyone])
    for band in (0.0, 1e3, 1e5, 1e8):
        assert np.array_equal(joined.rate(band), whole.rate(band)[everyone])
        assert np.array_equal(
            joined.power_share(np.full(len(everyone), band)),
            whole.power_share(np.full(5, band))[everyone],
        )
    wanted = whole.bandwidth_and_slope(RATE)
    for found, values in zip(joined.bandwidth_and_slope(RATE[everyone]), wanted, strict=True):
        assert np.array_equal(found, values[everyone])
    back = joined.take(np.arange(len(everyone))[::-1])
    assert np.array_equal(back.rate(1e5), whole.rate(1e5)[everyone[::-1]])


def test_curves_are_not_kept_twice():
    parts = [rician(A[[n]], K_DB[[n]]) for n in (0, 1, 4, 1)]
    joined = join(parts)
    assert isinstance(joined, FadedLink)
    assert len(joined.curves) == 2
    assert join([joined, joined]).curves is joined.curves


def test_one_group_is_itself():
    link = PowerLimitedLink(A)
    assert join([link]) is link


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="one kind, got LinearLink and PowerLimitedLink"):
        join([LinearLink(A), PowerLimitedLink(A)])
    with pytest.raises(ValueError, match="share"):
        join([PowerLimitedLink(A), PowerLimitedLink(A, 0.5)])
    with pytest.raises(ValueError, match="efficiency_bps_hz"):
        join([CappedLink(PowerLimitedLink(A), 1.0), CappedLink(PowerLimitedLink(A), 2.0)])


BAND = 1e6


def test_linear_links_are_linear():
    link = LinearLink(A / 1e6)
    np.testing.assert_allclose(linear_efficiency(link, BAND), A / 1e6, rtol=1e-15)


@pytest.mark.parametrize("kind", ["power-limited", "ergodic"])
def test_links_of_limited_power_are_not(kind):
    assert np.isnan(linear_efficiency(KINDS[kind](np.arange(5)), BAND)).all()


def test_capped_links_are_linear_where_the_peak_holds_over_the_band():
    """log2(1 + a/B) >= 3 from a = 7 B on."""
    a = BAND * np.array([0.1, 6.9999, 7.0001, 100.0])
    link = CappedLink(PowerLimitedLink(a), 3.0)
    np.testing.assert_allclose(linear_efficiency(link, BAND), [np.nan, np.nan, 3, 3], rtol=1e-15)


def test_power_controlled_links_are_linear_up_to_the_knee_or_the_peak():
    """Beyond the knee only where the efficiency there is a peak that still holds."""
    a, knee = BAND * np.array([1.0, 1.0, 100.0, 7.0001]), BAND * np.array([1.1, 0.9, 0.1, 0.5])
    link = PowerControlledLink(CappedLink(PowerLimitedLink(a), 3.0), knee)
    wanted = [np.log2(1 + 1 / 1.1), np.nan, 3, 3]
    np.testing.assert_allclose(linear_efficiency(link, BAND), wanted, rtol=1e-14)
    # Power goes with the band up to the knee alone.
    wanted = [1 / (1.1 * BAND), np.nan, np.nan, np.nan]
    np.testing.assert_allclose(linear_power(link, BAND), wanted, rtol=1e-14)
    assert np.array_equal(linear_power(link.inner, BAND), np.zeros(4))


def test_link_adaptation_is_linear_within_the_reach_of_its_highest_step():
    adaptation = LinkAdaptation()
    threshold, level = adaptation.steps
    a = BAND * threshold[-1] * np.array([0.99, 1.01])
    link = make_link(a, adaptation, fading="none")
    found = linear_efficiency(link, BAND)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(level[-1], rel=1e-13)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    exponent=st.floats(3, 14),
    knee=st.floats(3, 9),
    peak=st.floats(0.1, 8),
    kind=st.sampled_from([Shannon(), FittedNr(), LinkAdaptation()]),
    fading=st.sampled_from(["none", "rayleigh"]),
    part=st.floats(1e-4, 1),
)
def test_a_rate_told_to_be_linear_is(exponent, knee, peak, kind, fading, part):
    """At any part of the band, whatever the link is made of."""
    inner = make_link(np.array([10**exponent]), kind, fading=fading)
    link = PowerControlledLink(CappedLink(inner, peak), np.array([10**knee]))
    for each in (inner, CappedLink(inner, peak), link):
        efficiency, power = linear_efficiency(each, BAND), linear_power(each, BAND)
        if not np.isnan(efficiency[0]):
            rate = each.rate(part * BAND)[0]
            assert rate == pytest.approx(efficiency[0] * part * BAND, rel=1e-11)
        if not np.isnan(power[0]):
            share = each.power_share(part * BAND)
            assert share == pytest.approx(power[0] * part * BAND if power[0] else 1.0, rel=1e-14)
