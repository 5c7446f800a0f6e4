"""Distribution of the fading power, and the fading process in time."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import exp1, i0e, j0

from wireless import fading

FACTORS = [0.0, 0.1, 1.0, 8.0, 100.0]
DEVICES = np.arange(60_000)


def _mixture_moment(order, threshold, k):
    """E[H^order; H >= t] as the Poisson mixture of gamma distributions, in 30 digits."""
    with mpmath.workdps(30):
        scaled, factor = (mpmath.mpf(k) + 1) * mpmath.mpf(threshold), mpmath.mpf(k)
        weight, total = mpmath.exp(-factor), mpmath.mpf(0)
        for j in range(int(k + 15 * k**0.5) + 40):
            total += weight * mpmath.gammainc(j + 1 + order, scaled) / mpmath.factorial(j)
            weight *= factor / (j + 1)
        return float(total / (factor + 1) ** order)


# Distribution


def test_rayleigh_closed_forms():
    t = np.array([1e-12, 1e-3, 0.5, 3.0, 40.0])
    np.testing.assert_allclose(fading.outage_probability(t), -np.expm1(-t), rtol=1e-15)
    np.testing.assert_allclose(fading.truncated_moment(0, t), np.exp(-t), rtol=1e-14)
    np.testing.assert_allclose(fading.truncated_moment(1, t), (1 + t) * np.exp(-t), rtol=1e-14)
    np.testing.assert_allclose(fading.truncated_moment(-1, t), exp1(t), rtol=1e-14)
    inverse_square = np.exp(-t) / t - exp1(t)  # by parts; cancels for large t
    np.testing.assert_allclose(fading.truncated_moment(-2, t), inverse_square, rtol=1e-10)
    np.testing.assert_allclose(fading.quantile([0, 0.5]), [0, np.log(2)], rtol=1e-15)


@pytest.mark.parametrize("k", FACTORS)
def test_outage_is_the_noncentral_chi_square(k):
    t = np.array([1e-3, 0.1, 0.5, 1.0, 2.0, 5.0])
    expected = stats.ncx2.cdf(2 * (k + 1) * t, 2, 2 * k) if k else -np.expm1(-t)
    probable = expected > 1e-10  # scipy's own digits end below
    ours = fading.outage_probability(t, k)
    np.testing.assert_allclose(ours[probable], expected[probable], rtol=1e-9)
    # The documented accuracy is that of a mixture in 30 digits.
    exact = 1 - _mixture_moment(0, 0.5, k)
    assert fading.outage_probability(0.5, k) == pytest.approx(exact, rel=1e-12, abs=2e-16)


@pytest.mark.parametrize("order", [-2, -1, -0.5, 1, 2])
@pytest.mark.parametrize("k", [0.1, 8.0, 100.0])
def test_truncated_moments_are_mixtures_of_gammas(order, k):
    thresholds = np.array([1e-9, 1e-3, 0.5, 3.0])
    exact = [_mixture_moment(order, each, k) for each in thresholds]
    np.testing.assert_allclose(fading.truncated_moment(order, thresholds, k), exact, rtol=1e-11)


@pytest.mark.parametrize("k", FACTORS)
def test_moments_without_threshold(k):
    assert fading.truncated_moment(0, 0.0, k) == pytest.approx(1, rel=1e-11)
    assert fading.truncated_moment(1, 0.0, k) == pytest.approx(1, rel=1e-11)
    # Variance of |s + z|^2 / (K + 1): (2 K + 1) / (K + 1)^2.
    second = 1 + (2 * k + 1) / (k + 1) ** 2
    assert fading.truncated_moment(2, 0.0, k) == pytest.approx(second, rel=1e-11)
    with mpmath.workdps(30):
        root = mpmath.gamma(0.1) * mpmath.hyp1f1(0.9, 1, -k) * mpmath.mpf(k + 1) ** 0.9
    assert fading.truncated_moment(-0.9, 0.0, k) == pytest.approx(float(root), rel=1e-11)
    assert fading.truncated_moment(-1, 0.0, k) == np.inf


@given(
    k=st.floats(0, 1000),
    t=st.floats(1e-9, 30),
    p=st.floats(1e-12, 1, exclude_max=True),
)
@settings(max_examples=60)
def test_conservation_and_inverse(k, t, p):
    # Probability is conserved, and the quantile undoes the distribution: rounding alone.
    below, above = fading.outage_probability(t, k), fading.truncated_moment(0, t, k)
    assert below + above == pytest.approx(1, rel=1e-12)
    h = fading.quantile(p, k)
    assert fading.outage_probability(h, k) == pytest.approx(p, rel=1e-11)
    tail = fading.truncated_moment(0, h, k)
    assert tail == pytest.approx(1 - p, rel=1e-10, abs=1e-15)


def test_arrays_agree_with_single_devices():
    k = np.array([0.0, 0.1, 8.0, 0.0, 300.0])
    t = np.array([0.1, 0.0, 0.5, 2.0, 0.9])
    for function in (
        fading.outage_probability,
        lambda t, k: fading.truncated_moment(2, t, k),
        lambda t, k: fading.quantile(t / 3, k),
        lambda t, k: fading.truncated_mean(np.sqrt, t, k),
    ):
        together = function(t, k)
        assert together.shape == (5,)
        singly = [function(*each).item() for each in zip(t, k, strict=True)]
        # The exponential of numpy may round differently at the end of an array.
        np.testing.assert_allclose(together, singly, rtol=1e-14)


def test_monte_carlo_of_rician_powers():
    """Means over 1e6 direct draws of |s + z|^2, within four standard errors."""
    rng, k, threshold = np.random.default_rng(6), 3.0, 0.4
    z = rng.normal(scale=0.5**0.5, size=(2, 1_000_000))
    h = ((k**0.5 + z[0]) ** 2 + z[1] ** 2) / (k + 1)
    kept = h >= threshold
    for sample, exact in (
        (~kept, fading.outage_probability(threshold, k)),
        (kept * h**-1.0, fading.truncated_moment(-1, threshold, k)),
        (kept * h**2, fading.truncated_moment(2, threshold, k)),
        (1 / np.log2(1 + 5 * h[kept]), None),
    ):
        value = (
            exact
            if exact is not None
            else fading.truncated_mean(lambda g: 1 / np.log2(1 + 5 * g), threshold, k)
        )
        assert abs(sample.mean() - value) < 4 * sample.std() / sample.size**0.5


@pytest.mark.parametrize("threshold", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("snr", [0.01, 1.0, 1e6])
def test_mean_time_per_bit_against_adaptive_quadrature(threshold, snr):
    def integrand(log_h):
        h = np.exp(log_h)
        return h * np.exp(threshold - h) / np.log1p(snr * h)

    cuts = np.linspace(np.log(threshold), np.log(threshold + 40), 9)
    exact = sum(
        integrate.quad(integrand, *cut, epsabs=0, epsrel=1e-10)[0] for cut in pairwise(cuts)
    )
    mean = fading.truncated_mean(lambda h: 1 / np.log1p(snr * h), threshold)
    assert mean == pytest.approx(exact, rel=1e-9)  # the documented accuracy


def test_truncated_mean_of_powers_and_of_several_functions():
    t, k = np.array([1e-3, 0.3, 2.0]), np.array([0.0, 1.0, 20.0])
    means = fading.truncated_mean(lambda h: np.stack([np.ones_like(h), h, 1 / h]), t, k)
    kept = fading.truncated_moment(0, t, k)
    expected = [fading.truncated_moment(order, t, k) / kept for order in (0, 1, -1)]
    np.testing.assert_allclose(means, expected, rtol=1e-11)
    # Memoryless: far out in the tail, where the probability underflows, the mean is t + 1.
    assert fading.truncated_mean(lambda h: h, 1e4) == pytest.approx(10_001, rel=1e-12)


@pytest.mark.parametrize("k", [0.0, 2.0, 60.0])
def test_breaks_make_tables_exact(k):
    switch, rate = np.array([0.2, 0.7, 1.1, 30.0]), np.array([1.0, 2.0, 3.5, 9.0, 11.0])
    exceeded = [1.0, *(fading.truncated_moment(0, max(each, 0.1), k) for each in switch), 0.0]
    exceeded[0] = fading.truncated_moment(0, 0.1, k)
    exact = np.dot(-np.diff(np.array(exceeded, float)), rate) / exceeded[0]

    def table(h):
        return rate[np.searchsorted(switch, h, side="right")]

    mean = fading.truncated_mean(table, 0.1, k, breaks=list(switch))
    assert mean == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("k", FACTORS)
def test_a_jump_needs_its_break(k):
    """The mean of a unit step is a probability; without the break, 0.133 off at the worst."""
    jump = np.linspace(0.5, 2, 3000)
    threshold = np.full(jump.shape, 0.01)
    scaled = [2 * (k + 1) * each for each in (jump, threshold)]
    exact = np.divide(
        *(stats.ncx2.sf(each, 2, 2 * k) if k else np.exp(-each / 2) for each in scaled)
    )

    def step(h):
        return (h >= jump) * 1.0

    with_break = fading.truncated_mean(step, threshold, k, breaks=[jump])
    # Above 0.01 the tail function of scipy holds some ten digits.
    np.testing.assert_allclose(with_break[exact > 0.01], exact[exact > 0.01], rtol=1e-9)
    error = np.abs(fading.truncated_mean(step, threshold, k) - with_break).max()
    largest_weight = 37**0.5 * np.polynomial.legendre.leggauss(40)[1].max()
    assert error <= largest_weight / (2 * np.pi**0.5) <= 0.133
    if k == 100:
        assert error > 0.125  # the bound is no idle one


def _adaptive_mean(function, threshold, k, bend):
    """E[f(H) | H >= t] by adaptive quadrature over the amplitude, split at a bend."""

    def density(r):
        return 2 * r * np.exp(-((r - k**0.5) ** 2)) * i0e(2 * k**0.5 * r)

    low, middle = ((k + 1) * np.array([threshold, bend])) ** 0.5
    cuts = [*np.linspace(low, middle, 4), *np.linspace(middle, max(middle, k**0.5) + 7, 6)[1:]]

    def integral(integrand):
        return sum(
            integrate.quad(integrand, *cut, epsabs=0, epsrel=1e-12)[0] for cut in pairwise(cuts)
        )

    return integral(lambda r: density(r) * function(r**2 / (k + 1))) / integral(density)


@pytest.mark.parametrize(("k", "bend"), [(0.0, 1.0), (8.0, 0.5), (60.0, 1.03)])
@pytest.mark.parametrize("snr", [0.01, 1e2])
def test_a_capped_rate_needs_the_break_of_its_cap(k, bend, snr):
    def bit_s(h):
        return 1 / np.log2(1 + snr * np.minimum(h, bend))

    exact = _adaptive_mean(bit_s, 0.01, k, bend)
    with_break = fading.truncated_mean(bit_s, 0.01, k, breaks=[bend])
    assert with_break == pytest.approx(exact, rel=1e-9)  # the documented accuracy
    assert fading.truncated_mean(bit_s, 0.01, k) == pytest.approx(exact, rel=3e-3)
    assert fading.truncated_mean(bit_s, 0.01, k) != pytest.approx(exact, rel=1e-6)


def test_meaningless_arguments_are_refused():
    with pytest.raises(ValueError, match=r"threshold must be finite and not negative, got -1"):
        fading.truncated_moment(1, [0.1, -1.0])
    with pytest.raises(ValueError, match=r"k_factor must be finite and not negative, got nan"):
        fading.outage_probability(0.1, np.nan)
    with pytest.raises(ValueError, match=r"order must be from -2 to 4, got 5"):
        fading.truncated_moment(5, 0.1)
    with pytest.raises(ValueError, match=r"probability must be below 1, got 1"):
        fading.quantile(1.0)
    with pytest.raises(ValueError, match=r"time_s must be finite, got inf"):
        fading.power(1, 0, np.inf, 1.0)
    with pytest.raises(ValueError, match=r"carrier_hz must be finite and positive, got 0"):
        fading.doppler_hz(1.0, 0.0)


# Process


@pytest.mark.parametrize("time_s", [0.0, 12.345, 1e6])
def test_rayleigh_power_is_exponential_at_all_times(time_s):
    power = fading.power(3, np.arange(150_000), time_s, 70.0)
    # 64 rays shift the distribution function by 0.0018; at 150 000 draws a p of 0.001 is 0.005.
    assert stats.kstest(power, "expon").pvalue > 0.001
    assert power.mean() == pytest.approx(1, abs=4 / 150_000**0.5)
    # E|h|^4 = 2 - 1/64; |h|^4 has standard deviation sqrt(20).
    assert np.mean(power**2) == pytest.approx(2 - 1 / 64, abs=4 * (20 / 150_000) ** 0.5)


@pytest.mark.parametrize("k", [0.5, 8.0, 100.0])
def test_rician_power_has_the_distribution(k):
    power = fading.power(4, DEVICES, 3.3, 40.0, k)
    assert stats.kstest(power, lambda h: fading.outage_probability(h, k)).pvalue > 0.001


@pytest.mark.parametrize("start_s", [0.0, 1e5])
def test_autocorrelation_is_bessel(start_s):
    """J0(2 pi f_D tau) from any start, through its zero at 2.405.

    The real part of h(t) h*(t + tau) has variance at most 1, so four standard errors over 60 000
    devices are 0.0163; 2 pi x 10 Hz x 1e5 s are a million turns.
    """
    argument = np.array([0.5, 2.404825557695773, 3.8317, 7.0, 40.0])
    here = fading.gain(5, DEVICES, start_s, 10.0)
    for each, expected in zip(argument, j0(argument), strict=True):
        there = fading.gain(5, DEVICES, start_s + each / (20 * np.pi), 10.0)
        product = np.mean(here * there.conj())
        assert abs(product.real - expected) < 0.0163
        assert abs(product.imag) < 0.0163
        relation = np.mean(here * there)  # circular: no correlation without the conjugate
        assert abs(relation) < 0.024


def test_digits_survive_a_million_turns():
    """The mean square slope of h is (2 pi f_D)^2 / 2, found from steps of 1e-4 turns.

    After 1e6 turns a phase holds 1e-10 turns, a 1e-6th of the step; the mean over 20 000 devices of
    a square of relative variance 1 has the standard error 0.007.
    """
    device = DEVICES[:20_000]
    start = 1e6
    step = (start + 1e-4) - start
    change = fading.gain(6, device, start + step, 1.0) - fading.gain(6, device, start, 1.0)
    slope = np.mean(np.abs(change / step) ** 2)
    assert slope == pytest.approx((2 * np.pi) ** 2 / 2, rel=0.03)


def test_mean_power_of_each_device_over_time_is_one():
    """4000 times over 5e5 turns: the deviation of a device is about 1/sqrt(4000) = 0.016."""
    times = np.sort(np.random.default_rng(8).uniform(0, 5e4, 4000))
    power = fading.power(9, np.arange(20)[:, None], times, 10.0)
    np.testing.assert_allclose(power.mean(axis=1), 1, atol=5 / 4000**0.5)


def test_devices_and_seeds_fade_independently():
    gains = [
        fading.gain(1, DEVICES, 2.0, 10.0),
        fading.gain(1, DEVICES + len(DEVICES), 2.0, 10.0),
        fading.gain(2, DEVICES, 2.0, 10.0),
    ]
    products = np.corrcoef(gains)
    # Standard error 1/sqrt(60 000) = 0.004.
    assert np.abs(products - np.eye(3)).max() < 0.02
    neighbours = np.corrcoef(gains[0][:-1], gains[0][1:])[0, 1]
    assert abs(neighbours) < 0.02


def test_gain_has_one_value_in_whatever_company():
    time, shift = DEVICES[:2000] * 0.37, DEVICES[:2000] % 90 * 1.0
    k = np.where(DEVICES[:2000] % 3, 0.0, 5.0)
    together = fading.gain(1, DEVICES[:2000], time, shift, k)
    for pick in (0, 511, 512, 1999):
        alone = fading.gain(1, pick, time[pick], shift[pick], k[pick])
        assert alone.shape == ()
        assert alone == together[pick]
    backwards = fading.gain(1, DEVICES[:2000][::-1], time[::-1], shift[::-1], k[::-1])
    np.testing.assert_array_equal(backwards[::-1], together)
    assert fading.power(1, DEVICES[:5], np.zeros((3, 1)), 1.0).shape == (3, 5)


def test_still_devices_do_not_fade_and_strong_sight_hardly_fades():
    still = [fading.power(1, DEVICES[:100], time, 0.0, 3.0) for time in (0.0, 1e3)]
    np.testing.assert_array_equal(*still)
    # The power deviates by sqrt(2 / K) = 1.4e-3 of its mean.
    np.testing.assert_allclose(fading.power(1, DEVICES[:100], 5.0, 9.0, 1e6), 1, atol=0.01)


def test_doppler_of_a_car():
    # 108 km/h at 2.99792458 GHz: 30 m/s over 10 cm.
    assert fading.doppler_hz(30.0, 2.99792458e9) == pytest.approx(300, rel=1e-12)
