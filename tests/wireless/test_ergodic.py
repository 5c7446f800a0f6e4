"""Mean efficiency over fading against quadrature, and its concave envelope."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import i0e
from scipy.stats import ncx2

from wireless.efficiency import FittedNr, LinkAdaptation, Shannon
from wireless.link.ergodic import mean_curve

K_DB = [-math.inf, -10.0, 0.0, 9.0, 15.0, 22.0, 30.0]
#: Error that `mean_curve` promises, doubled for the reference's own.
ACCURACY = 2e-9


def density(h, k):
    """Power of a Rician channel, from the density of its amplitude."""
    root = math.sqrt(h)
    far = math.exp(-((math.sqrt(k) - math.sqrt(1 + k) * root) ** 2))
    return (1 + k) * far * i0e(2 * math.sqrt(k * (1 + k)) * root)


def mean(efficiency, k, snr):
    """Mean of a logarithmic efficiency by adaptive quadrature over ln h."""
    scale, gap, peak = efficiency.log_form

    def integrand(v):
        h = math.exp(v)
        return min(peak, scale * math.log1p(snr * h / gap) / math.log(2)) * density(h, k) * h

    high = 2 * math.log((math.sqrt(k) + 7) / math.sqrt(1 + k))
    cuts = [-45, -20, -10, -5, -2, -1, -0.5, -0.25, -0.12, -0.06, 0, 0.06, 0.12, 0.25, 0.5, 1, high]
    if math.isfinite(peak):
        cuts.append(math.log(gap * math.expm1(peak * math.log(2) / scale) / snr))
    cuts = sorted(cut for cut in set(cuts) if -45 <= cut <= high)
    parts = [
        quad(integrand, low, up, epsabs=0, epsrel=1e-11, limit=200)[0] for low, up in pairwise(cuts)
    ]
    return sum(parts)


@pytest.mark.parametrize("efficiency", [Shannon(0.0), Shannon(3.0, 0.5), FittedNr()])
@pytest.mark.parametrize("k_db", K_DB)
def test_logarithmic_efficiency_against_quadrature(efficiency, k_db):
    curve = mean_curve(efficiency, k_db)
    k = 10 ** (k_db / 10)
    for snr_db in (-45.0, -13.0, 1.0, 12.3, 17.0, 19.1, 22.0, 60.0):
        snr = 10 ** (snr_db / 10)
        value = snr * curve.value(np.array([1 / snr]))[0]
        assert value == pytest.approx(mean(efficiency, k, snr), rel=ACCURACY)


@pytest.mark.parametrize("k_db", K_DB)
def test_steps_against_the_non_central_chi_square(k_db):
    adaptation = LinkAdaptation()
    threshold, level = adaptation.steps
    curve, k = mean_curve(adaptation, k_db), 10 ** (k_db / 10)
    x = np.geomspace(1e-5, 8, 3000)
    z = threshold * x[:, None]
    survival = np.exp(-z) if k == 0 else ncx2.sf(2 * (1 + k) * z, 2, 2 * k)
    psi = x * (survival @ np.diff(level, prepend=0.0))
    value = curve.value(x)
    # The envelope lies above everywhere ...
    assert (psi <= value * (1 + ACCURACY)).all()
    # ... and is least: where psi is its own envelope they are equal.
    chord = np.diff(np.append(0.0, psi)) / np.diff(np.append(0.0, x))
    concave = np.minimum.accumulate(chord) == chord
    later = np.maximum.accumulate(chord[::-1])[::-1] <= chord
    touching = concave & later & (chord > 0)
    if k < 20:
        assert touching.sum() > 2000
    np.testing.assert_allclose(value[touching][1:-1], psi[touching][1:-1], rtol=5e-6)
    # The highest point of all, found once more around where the curve ends.
    top = curve.invert(np.array([curve.limit]))[0] * np.linspace(0.98, 1.02, 401)
    z = threshold * top[:, None]
    survival = np.exp(-z) if k == 0 else ncx2.sf(2 * (1 + k) * z, 2, 2 * k)
    highest = (top * (survival @ np.diff(level, prepend=0.0))).max()
    # Points 1e-4 apart miss a maximum of relative curvature up to 3 k by some 1e-9 (1 + k).
    assert curve.limit == pytest.approx(highest, rel=4e-9 * (1 + k))


def test_steps_without_fading_are_a_polygon():
    adaptation = LinkAdaptation()
    threshold, level = adaptation.steps
    curve = mean_curve(adaptation, math.inf)
    x = np.append(np.geomspace(1e-4, 20, 4000), 1 / threshold)
    psi = x * adaptation.bps_hz((1 / x) * (1 + 1e-15))
    value = curve.value(x)
    assert (psi <= value * (1 + 1e-13)).all()
    # The most that can be had is that of some step over the widest band that it bears.
    assert curve.limit == pytest.approx((level / threshold).max())
    assert curve.attained
    # While all is above the highest step, the peak; beyond the widest band, the limit.
    assert curve.value(np.array([0.5 / threshold[-1]]))[0] == pytest.approx(
        0.5 / threshold[-1] * level[-1]
    )
    assert (curve.value(np.array([1e3, np.inf])) == curve.limit).all()


@pytest.mark.parametrize("efficiency", [Shannon(0.0), FittedNr(), LinkAdaptation()])
@pytest.mark.parametrize("k_db", K_DB)
def test_curve_is_concave(efficiency, k_db):
    curve = mean_curve(efficiency, k_db)
    y = curve.limit * np.linspace(1e-6, 1 - 1e-6, 20001)
    steep = 1 / curve.invert(y)[1]
    # Slopes fall; a part in a million of the curve's mean slope is left to interpolation.
    assert (np.diff(steep) <= 1e-6 * steep[:-1]).all()


@pytest.mark.parametrize("efficiency", [Shannon(0.0), FittedNr(), LinkAdaptation()])
def test_strong_ray_approaches_no_fading(efficiency):
    # At K = 30 dB the gain has a variance of 0.2 %; by the second-order expansion the mean of a
    # smooth concave function shifts by at most half of that times u^2 |eta''| <= 0.36 eta. Steps
    # feel its standard deviation of 4.5 % at their edges.
    x = np.geomspace(1e-4, 1e2, 200)
    faded = mean_curve(efficiency, 30.0).value(x)
    if isinstance(efficiency, LinkAdaptation):
        static, tolerance = mean_curve(efficiency, math.inf).value(x), 0.12
    else:
        static, tolerance = x * efficiency.bps_hz(1 / x), 0.02
    np.testing.assert_allclose(faded, static, rtol=tolerance)


def test_weaker_ray_lowers_the_mean_of_a_concave_efficiency():
    # A smaller K spreads the gain about the same mean (in the convex order).
    x = np.geomspace(1e-6, 1e4, 500)
    for efficiency in (Shannon(0.0), FittedNr()):
        means = np.array([mean_curve(efficiency, k_db).value(x) for k_db in K_DB])
        assert (np.diff(means, axis=0) >= -ACCURACY * means[1:]).all()
