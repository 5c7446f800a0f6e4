"""Links: closed forms, inverses, limits."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import lambertw

from wireless.efficiency import FittedNr, LinkAdaptation, Shannon
from wireless.link import (
    CappedLink,
    ErgodicRayleighLink,
    FadedLink,
    LinearLink,
    PowerLimitedLink,
    make_link,
)

CURVED = [PowerLimitedLink, ErgodicRayleighLink]
ALL = [LinearLink, *CURVED]
DECADES = 10.0 ** np.arange(-12, 12.5, 0.25)
positive = st.floats(-12, 12).map(lambda exponent: 10.0**exponent)


def exact_rate(kind, x):
    """Rate over a with 60 spare digits, at bandwidth x a."""
    with mpmath.workdps(60 + 2 * int(abs(np.log10(float(x))))):
        x = mpmath.mpf(x)
        if kind is PowerLimitedLink:
            return x * mpmath.log(1 + 1 / x, 2)
        return x * mpmath.exp(x) * mpmath.e1(x) / mpmath.log(2)


@pytest.mark.parametrize("kind", CURVED)
def test_rate_is_exact_over_24_decades(kind):
    link = kind(np.full(DECADES.size, 1.0))
    exact = np.array([float(exact_rate(kind, x)) for x in DECADES])
    np.testing.assert_allclose(link.rate(DECADES), exact, rtol=4e-15)


@pytest.mark.parametrize("x", [1e-6, 1e-3, 0.1, 1.0, 3.9, 4.1, 30.0, 1e3])
def test_ergodic_rate_is_the_mean_over_rayleigh_fading(x):
    snr_bandwidth_hz = 3e6
    mean, _ = quad(
        lambda h: x * snr_bandwidth_hz * np.log1p(h / x) * np.exp(-h) / np.log(2),
        0,
        50,
        points=[min(x, 1), 1, 10],
        epsabs=0,
        epsrel=1e-11,
        limit=200,
    )
    link = ErgodicRayleighLink(np.array([snr_bandwidth_hz]))
    assert link.rate(x * snr_bandwidth_hz)[0] == pytest.approx(mean, rel=1e-8)


@pytest.mark.parametrize("kind", ALL)
def test_rate_of_bandwidth_of_rate(kind):
    link = kind(np.full(DECADES.size, 2e6))
    rate = link.rate(2e6 * DECADES)
    np.testing.assert_allclose(link.rate(link.bandwidth(rate)), rate, rtol=1e-14)
    # The inverse is well conditioned only where the rate still grows with bandwidth.
    broad = DECADES <= 10
    np.testing.assert_allclose(link.bandwidth(rate)[broad], (2e6 * DECADES)[broad], rtol=1e-13)


@pytest.mark.parametrize("kind", CURVED)
def test_bandwidth_is_exact_over_300_decades(kind):
    """The curves are well conditioned up to x of one or so, however small it is."""
    x = 10.0 ** np.arange(-298, 0.5, 0.01)
    link = kind(np.full(x.size, 1.0))
    np.testing.assert_allclose(link.bandwidth(link.rate(x)), x, rtol=1e-14)


def test_power_limited_bandwidth_against_lambert():
    share = np.array([1e-6, 1e-3, 0.1, 0.5, 0.9])
    link = PowerLimitedLink(np.full(5, 1e6))
    rate = share * link.limit_bps
    closed = -rate * np.log(2) / (lambertw(-share * np.exp(-share), -1).real + share)
    np.testing.assert_allclose(link.bandwidth(rate), closed, rtol=1e-10)


def test_power_limited_bandwidth_near_the_limit():
    # x = a/b = 2 e + 8 e^2 / 3 + ... solves ln(1 + x) = (1 - e) x.
    e = np.array([1e-4, 1e-6, 1e-9, 1e-12])
    link = PowerLimitedLink(np.full(4, 1e6))
    rate = (1 - e) * link.limit_bps
    e = 1 - rate / link.limit_bps
    series = 1e6 / (2 * e + 8 * e**2 / 3 + 28 * e**3 / 9)
    np.testing.assert_allclose(link.bandwidth(rate), series, rtol=1e-11)


@pytest.mark.parametrize("kind", CURVED)
def test_slope_against_high_precision_derivative(kind):
    x = 10.0 ** np.arange(-9, 3.5, 0.5)
    link = kind(np.ones(x.size))
    slope = link.bandwidth_and_slope(link.rate(x))[1]
    for value, point in zip(slope, x, strict=True):
        with mpmath.workdps(80):
            step = mpmath.mpf(point) * mpmath.mpf("1e-20")
            exact = (exact_rate(kind, point + step) - exact_rate(kind, point - step)) / (2 * step)
        assert value * float(exact) == pytest.approx(1, rel=1e-11)


@pytest.mark.parametrize("kind", ALL)
def test_bandwidth_and_slope_agree_with_the_separate_calls(kind):
    link = kind(np.array([1e5, 1e6, 1e7]))
    rate = np.array([[1e4, 1e5, 1e6], [0.0, 1e3, 1e9]])
    bandwidth, slope = link.bandwidth_and_slope(rate)
    assert bandwidth.shape == slope.shape == (2, 3)
    assert np.array_equal(bandwidth, link.bandwidth(rate))
    assert np.array_equal(bandwidth[1], link.bandwidth(rate[1]))
    assert np.array_equal(slope[1], link.bandwidth_and_slope(rate[1])[1])


@pytest.mark.parametrize("kind", CURVED)
def test_limits(kind):
    link = kind(np.array([1e3, 1e6]))
    np.testing.assert_allclose(link.limit_bps, np.array([1e3, 1e6]) / np.log(2))
    np.testing.assert_allclose(link.rate(1e15), link.limit_bps, rtol=1e-8)
    assert np.array_equal(link.rate(np.inf), link.limit_bps)
    assert np.array_equal(link.rate(0), [0, 0])
    assert np.array_equal(link.bandwidth(0), [0, 0])
    assert np.array_equal(link.bandwidth(link.limit_bps), [np.inf, np.inf])
    assert np.array_equal(link.bandwidth([2e3, 1e6])[:1], [np.inf])
    assert np.isfinite(link.bandwidth([2e3, 1e6])[1])
    assert np.array_equal(link.bandwidth_and_slope(2 * link.limit_bps)[1], [np.inf, np.inf])


def test_linear_link():
    link = LinearLink(np.array([0.5, 2.0]))
    assert np.array_equal(link.rate(10), [5, 20])
    assert np.array_equal(link.bandwidth([5, 20]), [10, 10])
    assert np.array_equal(link.bandwidth_and_slope([1, 1])[1], [2, 0.5])
    assert np.array_equal(link.limit_bps, [np.inf, np.inf])


def test_fading_costs_rate():
    # Jensen: log is concave, so fading about the same mean can only lose.
    a = np.full(DECADES.size, 1e6)
    loss = ErgodicRayleighLink(a).rate(1e6 * DECADES) / PowerLimitedLink(a).rate(1e6 * DECADES)
    assert (loss[DECADES < 1e6] < 1).all()
    assert loss.min() > 0.82
    # At high SNR the loss is the Euler constant: ln(1 + snr) - gamma.
    x = 1e-12
    expected = (-np.log(x) - np.euler_gamma) / -np.log(x)
    assert loss[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ALL)
def test_take(kind):
    link = kind(np.array([1e5, 1e6, 1e7]))
    assert len(link) == 3
    mask = np.array([True, False, True])
    assert np.array_equal(link.take(mask).rate(1e6), link.rate(1e6)[mask])
    repeated = link.take(np.array([2, 2, 0]))
    assert isinstance(repeated, kind)
    assert np.array_equal(repeated.rate(1e6), link.rate(1e6)[[2, 2, 0]])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (LinearLink, "efficiency_bps_hz"),
        (PowerLimitedLink, "snr_bandwidth_hz"),
        (ErgodicRayleighLink, "snr_bandwidth_hz"),
    ],
)
@pytest.mark.parametrize("value", [[1.0, 0.0], [-1.0], [np.nan], [np.inf], 1.0, [[1.0]]])
def test_fields_are_validated(kind, name, value):
    with pytest.raises(ValueError, match=name):
        kind(np.array(value))


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=60)
@given(a=positive, b=positive, c=positive)
def test_rate_is_increasing_concave_and_homogeneous(kind, a, b, c):
    link = kind(np.array([a]))
    low, high = min(b, c), max(b, c)
    rate_low, rate_high = link.rate(low)[0], link.rate(high)[0]
    assert rate_low <= rate_high * (1 + 1e-14) <= link.limit_bps[0] * (1 + 1e-13)
    assert rate_high / high <= rate_low / low * (1 + 1e-14)
    # Twice the power over twice the band is twice the rate.
    if kind is not LinearLink:
        assert kind(np.array([2 * a])).rate(2 * b)[0] == pytest.approx(
            2 * link.rate(b)[0], rel=1e-14
        )


@pytest.mark.parametrize("kind", CURVED)
@settings(max_examples=60)
@given(a=positive, share=st.floats(1e-9, 1 - 1e-9))
def test_inverse_over_the_whole_range_of_rates(kind, a, share):
    link = kind(np.array([a]))
    rate = share * link.limit_bps
    bandwidth = link.bandwidth(rate)
    assert link.rate(bandwidth)[0] == pytest.approx(rate[0], rel=1e-13)
    assert link.bandwidth(rate * (1 + 1e-9))[0] > bandwidth[0]


A = np.array([3e4, 1e6, 2e6, 5e7, 1e9])
K_DB = np.array([np.nan, 9.2, -3.0, 21.0, np.nan])
MODELS = [
    pytest.param(efficiency, fading, id=f"{type(efficiency).__name__}-{fading}")
    for efficiency in (Shannon(), FittedNr(), LinkAdaptation(), LinkAdaptation("cqi-64qam", 0.01))
    for fading in ("none", "rayleigh", "rician")
]


def made(efficiency, fading, a=A, k_db=K_DB):
    return make_link(a, efficiency, k_db, fading)


def test_the_simplest_exact_class_is_made():
    assert isinstance(made(Shannon(), "none"), PowerLimitedLink)
    assert isinstance(made(Shannon(), "rayleigh"), ErgodicRayleighLink)
    assert isinstance(made(FittedNr(), "none"), CappedLink)
    assert isinstance(made(LinkAdaptation(), "none"), FadedLink)


def test_gap_divides_the_snr():
    gap = 10**0.173
    for kind, fading in ((PowerLimitedLink, "none"), (ErgodicRayleighLink, "rayleigh")):
        link = made(Shannon(1.73), fading)
        np.testing.assert_allclose(link.rate(1e6), kind(A / gap).rate(1e6), rtol=1e-14)


def test_tabulated_agrees_with_the_exact_rayleigh_mean():
    # Out of sight, or with a ray too weak to count, a device fades as Rayleigh.
    a = np.full(DECADES.size, 1e6)
    exact = make_link(a, Shannon(0.0), fading="rayleigh").rate(DECADES * 1e6)
    for k_db in (np.nan, -30.0):
        link = make_link(a, Shannon(0.0), np.full(a.size, k_db), "rician")
        np.testing.assert_allclose(link.rate(DECADES * 1e6), exact, rtol=1e-9)


@pytest.mark.parametrize("efficiency", [Shannon(), FittedNr(), LinkAdaptation()])
def test_a_device_does_not_depend_on_the_others(efficiency):
    link = made(efficiency, "rician")
    for device in range(5):
        alone = made(efficiency, "rician", A[[device]], K_DB[[device]])
        assert alone.rate(1e6)[0] == link.rate(1e6)[device]


def test_without_fading_the_rate_is_band_times_efficiency():
    band = 10.0 ** np.arange(2, 12, 0.1)[:, None]
    for efficiency in (Shannon(), FittedNr(), FittedNr(share=0.3)):
        link = made(efficiency, "none")
        np.testing.assert_allclose(link.rate(band), band * efficiency.bps_hz(A / band), rtol=1e-12)


def test_link_adaptation_uses_no_more_band_than_its_lowest_step_bears():
    adaptation = LinkAdaptation()
    threshold, level = adaptation.steps
    link = made(adaptation, "none")
    # The best of all bandwidths, and none needed beyond it.
    best = (A * (level / threshold).max()).copy()
    np.testing.assert_allclose(link.limit_bps, best, rtol=1e-14)
    widest = link.bandwidth(link.limit_bps)
    assert (widest <= A / threshold[0] * (1 + 1e-12)).all()
    assert np.array_equal(link.rate(np.inf), link.limit_bps)
    assert np.array_equal(link.rate(10 * widest), link.limit_bps)
    # At the widest band of a step that is a corner the rate is the step's own.
    corner = A / threshold[0]
    assert (link.rate(corner) >= corner * level[0] * (1 - 1e-14)).all()
    # Within reach of the highest step the efficiency is its own.
    band = 0.9 * A / threshold[-1]
    np.testing.assert_allclose(link.rate(band), band * level[-1], rtol=1e-13)


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_inverse_over_ten_decades(efficiency, fading):
    link = made(efficiency, fading)
    # Bandwidths from 1e-8 to 100 times a, then rates from 1e-10 of the limit up to 1e-9 below it.
    part = np.concatenate((10.0 ** np.arange(-10, -0.2, 0.25), 1 - 10.0 ** np.arange(-1, -9.5, -1)))
    for rate in (
        link.rate(A * 10.0 ** np.arange(-8, 2.25, 0.25)[:, None]),
        link.limit_bps * part[:, None],
    ):
        bandwidth, slope = link.bandwidth_and_slope(rate)
        assert np.isfinite(bandwidth).all()
        assert (bandwidth > 0).all()
        assert (slope > 0).all()
        np.testing.assert_allclose(link.rate(bandwidth), rate, rtol=1e-12)
        assert np.array_equal(bandwidth, link.bandwidth(rate))


@pytest.mark.parametrize("kind", CURVED)
def test_exact_classes_keep_their_digits_near_the_limit(kind):
    link = kind(np.full(12, 1e6), share=0.7)
    rate = (1 - 10.0 ** -np.arange(1.0, 13)) * link.limit_bps
    np.testing.assert_allclose(link.rate(link.bandwidth(rate)), rate, rtol=1e-12)


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_no_rate_beyond_the_limit(efficiency, fading):
    link = made(efficiency, fading)
    limit = link.limit_bps
    above, slope = link.bandwidth_and_slope(limit * (1 + 1e-12))
    assert np.isinf(above).all()
    assert np.isinf(slope).all()
    at = link.bandwidth(limit)
    attained = isinstance(efficiency, LinkAdaptation)
    assert np.isfinite(at).all() if attained else np.isinf(at).all()
    if attained:
        np.testing.assert_allclose(link.rate(at), limit, rtol=1e-14)
    np.testing.assert_allclose(link.rate(1e20), limit, rtol=1e-9)
    assert np.array_equal(link.rate(0.0), np.zeros(5))
    assert np.array_equal(link.bandwidth(0.0), np.zeros(5))
    assert not np.isnan(link.bandwidth_and_slope(0.0)[1]).any()


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_every_model_is_concave_and_homogeneous(efficiency, fading):
    link = made(efficiency, fading)
    band = A * 10.0 ** np.arange(-7, 3, 0.02)[:, None]
    rate = link.rate(band)
    assert (np.diff(rate, axis=0) >= -1e-14 * rate[1:]).all()
    chord = np.diff(rate, axis=0) / np.diff(band, axis=0)
    # Chords of nodes 5 % apart carry the table's 1e-9 of the rate, twentyfold, and of a rate per
    # band that falls along the curve.
    assert (np.diff(chord, axis=0) <= 1e-7 * (rate / band)[:-2]).all()
    double = made(efficiency, fading, 2 * A)
    np.testing.assert_allclose(double.rate(2 * band), 2 * rate, rtol=1e-14)


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_share_scales_rates(efficiency, fading):
    whole, part = made(efficiency, fading), made(replace(efficiency, share=0.4), fading)
    np.testing.assert_allclose(part.rate(1e6), 0.4 * whole.rate(1e6), rtol=1e-13)
    np.testing.assert_allclose(part.limit_bps, 0.4 * whole.limit_bps, rtol=1e-13)
    np.testing.assert_allclose(part.bandwidth(4e3), whole.bandwidth(1e4), rtol=1e-9)


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_slope_is_the_derivative(efficiency, fading):
    link = made(efficiency, fading)
    rate = link.rate(np.array([1e-4, 0.013, 0.17])[:, None] * A)
    _, slope = link.bandwidth_and_slope(rate)
    step = 1e-5 * rate
    change = (link.bandwidth(rate + step) - link.bandwidth(rate - step)) / (2 * step)
    # Within a cell the difference is exact to the step squared; over a node of the table or a
    # corner it takes the mean of both sides, so a corner may make one of these differ.
    error = np.abs(change / slope - 1)
    assert np.sort(error.ravel())[:-2].max() < 1e-4


@pytest.mark.parametrize(("efficiency", "fading"), MODELS)
def test_permutation_and_take(efficiency, fading):
    link = made(efficiency, fading)
    order = np.array([3, 0, 4, 4, 1])
    chosen = link.take(order)
    again = made(efficiency, fading, A[order], K_DB[order])
    for band in (1e3, 1e6, 1e9):
        assert np.array_equal(chosen.rate(band), link.rate(band)[order])
        assert np.array_equal(again.rate(band), link.rate(band)[order])
    assert np.array_equal(link.take(A > 1e6).bandwidth(1e4), link.bandwidth(1e4)[A > 1e6])
    batch = link.bandwidth(np.array([[1e3] * 5, [1e4] * 5]))
    assert np.array_equal(batch[1], link.bandwidth(1e4))


@pytest.mark.parametrize("efficiency", [Shannon(), FittedNr(), LinkAdaptation()])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([1, 7, 300, 3000]))
def test_tabulated_links_do_not_depend_on_their_company(efficiency, seed, size):
    """Not to the last bit, in cohorts searched together and in fleets taken curve by curve."""
    rng = np.random.default_rng(seed)
    link = make_link(10 ** rng.uniform(4, 9, size), efficiency, rng.normal(0, 2, size), "rician")
    part = rng.uniform(0, 1.1, (2, size))
    part[0, rng.random(size) < 0.1] = 1.0
    band, rate = part * 1e6, part * link.limit_bps
    chosen = rng.integers(0, size, 40)
    few = link.take(chosen)
    assert np.array_equal(few.limit_bps, link.limit_bps[chosen])
    assert np.array_equal(few.rate(band[:, chosen]), link.rate(band)[:, chosen])
    for apart, together in zip(
        few.bandwidth_and_slope(rate[:, chosen]), link.bandwidth_and_slope(rate), strict=True
    ):
        assert np.array_equal(apart, together[:, chosen])


def test_links_of_nobody():
    link = make_link(np.zeros(0), FittedNr(), np.zeros(0), "rician")
    assert len(link.rate(np.zeros(0))) == len(link.bandwidth(np.zeros(0))) == 0
    assert len(link.take(np.zeros(0, np.intp)).limit_bps) == 0


def test_rician_factor_to_the_whole_decibel():
    a = np.full(6, 1e6)
    link = make_link(a, Shannon(), np.array([9.0, 9.4, 8.6, 30.0, 55.0, np.nan]), "rician")
    rate = link.rate(1e6)
    assert rate[0] == rate[1] == rate[2] < rate[3] == rate[4]
    assert rate[5] < rate[0]


def test_choices_are_validated():
    with pytest.raises(ValueError, match="fading must be"):
        make_link(A, Shannon(), None, "nakagami")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k_factor_db"):
        make_link(A, Shannon(), None, "rician")
    with pytest.raises(ValueError, match="snr_bandwidth_hz"):
        make_link(np.array([-1.0]), Shannon())
    with pytest.raises(ValueError, match="share"):
        PowerLimitedLink(A, share=0.0)
    with pytest.raises(ValueError, match="efficiency_bps_hz"):
        CappedLink(PowerLimitedLink(A), 0.0)
    curves = made(LinkAdaptation(), "none").curves
    for curve in (np.zeros(4, np.intp), np.ones(5, np.intp), np.zeros(5)):
        with pytest.raises(ValueError, match="curve must"):
            FadedLink(A, curve, curves)
