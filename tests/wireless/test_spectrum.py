"""Equal finish: closed forms, independent root finding, bounds and symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from wireless.efficiency import FittedNr, LinkAdaptation
from wireless.link import ErgodicRayleighLink, LinearLink, PowerLimitedLink, make_link
from wireless.spectrum import equal_finish, equal_finish_time, solo_finish_time

BAND = 20e6
KINDS = [LinearLink, PowerLimitedLink, ErgodicRayleighLink]


def cohort(kind, size, seed=0):
    """Starts, bits and links of a random cohort."""
    rng = np.random.default_rng(seed)
    a = 10 ** rng.uniform(5, 9, size)
    link = LinearLink(rng.uniform(0.2, 6, size)) if kind is LinearLink else kind(a)
    return rng.lognormal(2, 1, size), rng.uniform(1, 50, size) * 1e6, link


def by_brentq(start, bits, link):
    """Finish time by a bracketing root finder."""
    low = solo_finish_time(start, bits, link, BAND).max()
    return brentq(
        lambda t: link.bandwidth(bits / (t - start)).sum() / BAND - 1,
        low * (1 + 1e-12),
        start.max() + (solo_finish_time(start, bits, link, BAND) - start).sum() * (1 + 1e-9),
        xtol=1e-300,
        rtol=1e-15,
        maxiter=500,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_one_device_has_the_band_to_itself(kind):
    start, bits, link = cohort(kind, 1)
    solo = start[0] + bits[0] / link.rate(BAND)[0]
    assert equal_finish_time(start, bits, link, BAND) == pytest.approx(solo, rel=1e-14)
    allocation = equal_finish(start, bits, link, BAND)
    assert allocation.finish_s == pytest.approx(solo, rel=1e-14)
    assert allocation.bandwidth_hz[0] == pytest.approx(BAND, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_two_identical_devices_halve_the_band(kind):
    _, _, link = cohort(kind, 1)
    pair = link.take(np.array([0, 0]))
    finish = 3 + 7e6 / pair.rate(BAND / 2)[0]
    allocation = equal_finish([3, 3], [7e6, 7e6], pair, BAND)
    assert allocation.finish_s == pytest.approx(finish, rel=1e-13)
    np.testing.assert_allclose(allocation.bandwidth_hz, BAND / 2, rtol=1e-12)


def test_equal_starts_on_linear_links_take_the_total_work():
    _, bits, link = cohort(LinearLink, 9)
    work = (bits / link.efficiency_bps_hz).sum()
    finish = equal_finish_time(np.full(9, 5.0), bits, link, BAND)
    assert finish == pytest.approx(5 + work / BAND, rel=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [2, 3, 10, 60])
def test_against_brentq(kind, size):
    for seed in range(5):
        start, bits, link = cohort(kind, size, seed)
        finish = equal_finish_time(start, bits, link, BAND)
        assert finish == pytest.approx(by_brentq(start, bits, link), rel=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_allocation_fills_the_band_and_everybody_ends_together(kind):
    for seed in range(20):
        start, bits, link = cohort(kind, 12, seed)
        allocation = equal_finish(start, bits, link, BAND)
        finish = start + bits / link.rate(allocation.bandwidth_hz)
        assert BAND * (1 - 1e-9) < allocation.bandwidth_hz.sum() <= BAND * (1 + 1e-12)
        np.testing.assert_allclose(finish, allocation.finish_s, rtol=1e-12)
        assert finish.max() <= allocation.finish_s * (1 + 1e-15)
        assert allocation.finish_s == pytest.approx(
            equal_finish_time(start, bits, link, BAND), rel=1e-11
        )


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_one_by_one(kind):
    start, bits, link = cohort(kind, 15)
    rng = np.random.default_rng(1)
    present = rng.random((3, 20, 15)) < 0.3
    present[0, 0] = False
    bits = bits * rng.integers(0, 2, (20, 15))
    finish = equal_finish_time(start, bits, link, BAND, present)
    assert finish.shape == (3, 20)
    for row in np.ndindex(3, 20):
        mask = present[row]
        alone = equal_finish_time(start[mask], bits[row[1]][mask], link.take(mask), BAND)
        assert finish[row] == alone


@pytest.mark.parametrize("efficiency", [FittedNr(), LinkAdaptation()])
@pytest.mark.parametrize("band", [1e4, 1e6, 1e8])
def test_batch_equals_one_by_one_on_tabulated_links(efficiency, band):
    # The widest band takes some links to their limit.
    rng = np.random.default_rng(2)
    link = make_link(10 ** rng.uniform(4, 8, 40), efficiency, rng.normal(5, 5, 40), "rician")
    start, bits = rng.exponential(1, 40) - 0.5, rng.lognormal(14, 1, 40)
    present = rng.random((30, 40)) < rng.random((30, 1))
    finish = equal_finish_time(start, bits, link, band, present)
    for mask, together in zip(present, finish, strict=True):
        alone = start[mask], bits[mask], link.take(mask), band
        assert equal_finish_time(*alone) == together
        assert equal_finish_time(*alone, cell=np.zeros(mask.sum(), int)) == together


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_present_ends_at_zero(kind):
    start, bits, link = cohort(kind, 4)
    assert equal_finish_time(start, bits, link, BAND, np.zeros(4, bool)) == 0
    nobody = link.take(np.zeros(0, int))
    assert equal_finish_time([], [], nobody, BAND) == 0
    allocation = equal_finish([], [], nobody, BAND)
    assert allocation.finish_s == 0
    assert allocation.bandwidth_hz.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_without_bits_is_only_waited_for(kind):
    start, bits, link = cohort(kind, 5)
    bits[2] = 0
    rest = np.array([0, 1, 3, 4])
    alone = equal_finish_time(start[rest], bits[rest], link.take(rest), BAND)
    early, late = start.copy(), start.copy()
    early[2], late[2] = 0, 2 * alone
    assert equal_finish_time(early, bits, link, BAND) == alone
    assert equal_finish_time(late, bits, link, BAND) == 2 * alone
    allocation = equal_finish(late, bits, link, BAND)
    assert allocation.finish_s == pytest.approx(2 * alone, rel=1e-12)
    assert allocation.bandwidth_hz[2] == 0
    assert allocation.bandwidth_hz.sum() < BAND
    assert equal_finish([1, 4], [0, 0], link.take(rest[:2]), BAND).finish_s == 4


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_all_times_scales_the_finish(kind):
    # Starts and bits times s: at the same bandwidths everything lasts s times as long.
    start, bits, link = cohort(kind, 8)
    finish = equal_finish_time(start, bits, link, BAND)
    scaled = equal_finish_time(3.7 * start, 3.7 * bits, link, BAND)
    assert scaled == pytest.approx(3.7 * finish, rel=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_devices_permutes_the_allocation(kind):
    start, bits, link = cohort(kind, 8)
    order = np.random.default_rng(2).permutation(8)
    straight = equal_finish(start, bits, link, BAND)
    permuted = equal_finish(start[order], bits[order], link.take(order), BAND)
    assert permuted.finish_s == pytest.approx(straight.finish_s, rel=1e-13)
    np.testing.assert_allclose(permuted.bandwidth_hz, straight.bandwidth_hz[order], rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_shifting_all_starts_shifts_the_finish(kind):
    start, bits, link = cohort(kind, 8)
    finish = equal_finish_time(start, bits, link, BAND)
    assert equal_finish_time(start - finish, bits, link, BAND) == pytest.approx(
        0, abs=1e-13 * finish
    )


@pytest.mark.parametrize("kind", KINDS)
def test_another_member_never_helps(kind):
    start, bits, link = cohort(kind, 10)
    present = np.tril(np.ones((10, 10), bool))
    assert (np.diff(equal_finish_time(start, bits, link, BAND, present)) > 0).all()


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(1e-3, 1e9), st.floats(0.01, 10)),
        min_size=1,
        max_size=12,
    )
)
def test_bounds_on_linear_links(devices):
    start, bits, efficiency = np.array(devices).T
    work = bits / efficiency
    finish = equal_finish_time(start, bits, LinearLink(efficiency), BAND)
    mean_start = (work * start).sum() / work.sum()
    slack = 1e-12 * finish
    assert mean_start + work.sum() / BAND <= finish + slack
    assert finish <= start.max() + work.sum() / BAND + slack
    assert (start + work / BAND <= finish + slack).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e9), st.floats(1e-9, 1e12), st.floats(-12, 15)),
        min_size=1,
        max_size=6,
    )
)
def test_extreme_cohorts_stay_feasible(kind, devices):
    start, bits, exponent = np.array(devices).T
    link = kind(10**exponent)
    allocation = equal_finish(start, bits, link, BAND)
    solo = solo_finish_time(start, bits, link, BAND)
    assert allocation.bandwidth_hz.sum() <= BAND * (1 + 1e-12)
    assert (allocation.bandwidth_hz >= 0).all()
    assert np.isfinite(allocation.finish_s)
    assert allocation.finish_s >= solo.max() - 1e-12 * abs(solo.max())
    # Beyond weeks the last digit of a time hides transfers of milliseconds.
    if np.ptp(start) < 1e6:
        finish = equal_finish_time(start, bits, link, BAND)
        assert allocation.finish_s == pytest.approx(finish, rel=1e-12, abs=1e-12)


def test_values_without_meaning_are_refused():
    link = LinearLink(np.ones(2))
    for function in (equal_finish_time, equal_finish, solo_finish_time):
        with pytest.raises(ValueError, match="bits"):
            function([0, 0], [1, -1], link, BAND)
        with pytest.raises(ValueError, match="start_s"):
            function([0, np.nan], [1, 1], link, BAND)
        with pytest.raises(ValueError, match="bandwidth_hz"):
            function([0, 0], [1, 1], link, 0)
    with pytest.raises(ValueError, match="one cohort"):
        equal_finish([[0, 0]], [[1, 1]], link, BAND)
