"""Links: closed forms, inverses, limits."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import lambertw

from wireless.link import ErgodicRayleighLink, LinearLink, PowerLimitedLink

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
@settings(max_examples=60, derandomize=True, deadline=None)
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
@settings(max_examples=60, derandomize=True, deadline=None)
@given(a=positive, share=st.floats(1e-9, 1 - 1e-9))
def test_inverse_over_the_whole_range_of_rates(kind, a, share):
    link = kind(np.array([a]))
    rate = share * link.limit_bps
    bandwidth = link.bandwidth(rate)
    assert link.rate(bandwidth)[0] == pytest.approx(rate[0], rel=1e-13)
    assert link.bandwidth(rate * (1 + 1e-9))[0] > bandwidth[0]
