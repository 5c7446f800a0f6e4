"""Mean efficiency over fading, as the curve of a link: psi(x) = x E eta(h/x), x = b/a.

A device with a = P g / N0 hertz that sends over b of them has the mean SNR a/b, so its rate is
b E eta(h a/b) = a psi(b/a) over the fading power h of mean one. What the device gets out of a band
is the upper concave envelope of psi: it may leave band unused, and divide its time between two
bands. The envelope matters only for an efficiency of steps; logarithmic ones are concave.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import i0e

from wireless.efficiency import Efficiency, LinkAdaptation
from wireless.link.spline import MonotoneCurve, envelope

FloatArray = NDArray[np.float64]

#: Beyond this many units of exp(-t^2) from its ray the fading power has no mass left.
_REACH = 6.5


class _Fading:
    """Power h of mean one of a ray with K times the power of all others; K = 0 is Rayleigh.

    sqrt(h) is Rice distributed: density (1+K) exp(-K - (1+K) h) I0(2 sqrt(K (1+K) h)) of h.
    """

    def __init__(self, k_factor: float) -> None:
        self._ray, self._spread = math.sqrt(k_factor), math.sqrt(1 + k_factor)
        #: Relative width of the distribution, which the nodes of a curve must resolve.
        self.width = 1 / self._spread
        self.high = ((self._ray + _REACH) / self._spread) ** 2
        # The lowest power below which a mass of some 1e-17 is dropped.
        power = np.geomspace(1e-17, 1.0, 2000)
        self.low = float(power[power * self.density(power) <= 1e-17].max(initial=1e-17))
        # Gauss-Legendre over ln h: 40 nodes resolve a narrow peak, four more each unit of its foot.
        nodes = 40 + math.ceil(4 * math.log(self.high / self.low))
        self.rule = np.polynomial.legendre.leggauss(nodes)
        # Survival over sqrt(h), where it has one scale; the cell integrals of a smooth density by
        # Gauss-Legendre, interpolated with the density as slope, to 1e-13.
        root = np.linspace(math.sqrt(self.low), math.sqrt(self.high), 6001)
        node, weight = np.polynomial.legendre.leggauss(4)
        half = (root[1] - root[0]) / 2
        inner = root[:-1, None] + half * (1 + node)
        mass = (2 * inner * self.density(inner**2)) @ weight * half
        survival = np.append(np.cumsum(mass[::-1])[::-1], 0.0)
        self._root = root
        self._survival = CubicHermiteSpline(root, survival, -2 * root * self.density(root**2))

    def density(self, h: FloatArray) -> FloatArray:
        """Return the density at h."""
        root = np.sqrt(h)
        tail = np.exp(-((self._ray - self._spread * root) ** 2))
        density: FloatArray = self._spread**2 * tail * i0e(2 * self._ray * self._spread * root)
        return density

    def survival(self, h: FloatArray) -> FloatArray:
        """Return the probability of a power above h."""
        root = np.clip(np.sqrt(h), self._root[0], self._root[-1])
        return np.asarray(self._survival(root), dtype=np.float64)


def _spread(first: float, last: float, step: float) -> FloatArray:
    """Nodes from first to last whose logarithms are at most a step apart."""
    return np.geomspace(first, last, math.ceil(math.log(last / first) / step) + 1)


def _log_curve(scale: float, gap: float, peak: float, fading: _Fading) -> MonotoneCurve:
    """Return psi of eta(u) = min(peak, scale log2(1 + u/gap)).

    With z = gap x, w = ln(1 + h/z) and its value w' at the peak,
    E eta = (scale / ln 2) E(w; w < w') + peak P(w > w') and
    psi' = E eta(u) - u eta'(u) = (scale / ln 2) E(w - 1 + e^-w; w < w') + peak P(w > w'),
    both free of cancellation (own derivation).
    """
    capped = math.isfinite(peak)
    top = peak * math.log(2) / scale
    node, weight = fading.rule
    # Up to where the mean is within 1e-6 of its limit; nodes are closest where part of the fading
    # is above the peak.
    last = 1e6 / gap
    if capped:
        knee = 1 / (gap * math.expm1(top))
        first, middle = max(1e-3, fading.low) * knee, fading.high * knee
        x = np.append(
            _spread(first, middle, min(0.02, 0.08 * fading.width))[:-1],
            _spread(middle, last, 0.025),
        )
        z = gap * x[:, None]
        low = np.minimum(np.log1p(fading.low / z), top)
        high = np.minimum(np.log1p(fading.high / z), top)
        w = low + (high - low) / 2 * (1 + node)
        mass = weight * (high - low) / 2 * fading.density(z * np.expm1(w)) * z * np.exp(w)
    else:
        x = _spread(1e-18 / gap, last, 0.025)  # from an SNR of 180 dB
        half = math.log(fading.high / fading.low) / 2
        h = fading.low * np.exp(half * (1 + node))
        w = np.log1p(h / (gap * x[:, None]))
        mass = weight * half * fading.density(h) * h
    factor = scale / math.log(2)
    mean = factor * (mass * w).sum(axis=1)
    excess = np.where(w < 1e-3, w * w * (0.5 - w / 6 + w * w / 24), w + np.expm1(-w))
    slope = factor * (mass * excess).sum(axis=1)
    if capped:
        best = peak * fading.survival(x / knee)
        mean, slope = mean + best, slope + best
    y = x * mean
    # Without a peak the slope at zero is infinite; the chord stands for it.
    start = peak if capped else y[0] / x[0]
    end = slope[0] if capped else start
    return MonotoneCurve(
        np.append(0.0, x),
        np.append(0.0, y),
        np.append(start, slope[:-1]),
        np.append(end, slope[1:]),
        factor / gap,
    )


def _step_curve(threshold: FloatArray, rise: FloatArray, fading: _Fading) -> MonotoneCurve:
    """Return the envelope of psi for eta(u) = sum of the rises whose threshold is at most u.

    psi(x) = x sum_m rise_m P(h > threshold_m x), whose slope is the same sum over
    P(h > z) - z f(z) with z = threshold_m x and the density f (own derivation).
    """

    def psi(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        z = threshold * x[:, None]
        survival = fading.survival(z)
        return x * (survival @ rise), (survival - z * fading.density(z)) @ rise

    first, last = max(1e-3, fading.low) / threshold.max(), 2 / threshold.min()
    x = np.append(0.0, _spread(first, last, min(0.01, 0.03 * fading.width)))
    y, slope = psi(x)
    corner, bridge = envelope(x, y)
    # Eight times closer nodes, four times over, around the maximum, where the slope vanishes, and
    # the ends of the bridges, to find the tangents.
    for _ in range(4):
        ends = np.concatenate((corner[:-1][bridge], corner[1:][bridge], corner[-1:]))
        around = ends[:, None] + np.arange(-4, 4)
        cells = np.unique(np.clip(around, 1, len(x) - 2))
        part = np.arange(1, 8) / 8
        extra = (x[cells, None] + np.diff(x)[cells, None] * part).ravel()
        extra_y, extra_slope = psi(extra)
        x = np.append(x, extra)
        order = np.argsort(x)
        x = x[order]
        y, slope = np.append(y, extra_y)[order], np.append(slope, extra_slope)[order]
        corner, bridge = envelope(x, y)
    x, y, slope = x[corner], y[corner], slope[corner]
    chord = np.diff(y) / np.diff(x)
    start = np.where(bridge, chord, np.maximum(slope[:-1], chord))
    end = np.where(bridge, chord, np.clip(slope[1:], 0.0, chord))
    return MonotoneCurve(x, y, start, end)


@lru_cache(maxsize=256)
def mean_curve(efficiency: Efficiency, k_factor_db: float) -> MonotoneCurve:
    """Return psi of an efficiency under Rician fading.

    Parameters
    ----------
    efficiency : Efficiency
        Bit/s/Hz that an SNR buys, its share included.
    k_factor_db : float
        Rician factor in dB: ``-inf`` is Rayleigh, ``inf`` (of `LinkAdaptation` alone) no fading.

    Returns
    -------
    MonotoneCurve
        Within 1e-9 of the mean, relatively.

    Notes
    -----
    Without fading, an efficiency of steps gives a polygon: with threshold s_m of the m-th step,
    b eta(a/b) rises in proportion to b as far as b_m = a/s_m, the widest band over which step m
    still works, and falls there; so the envelope has its corners among the points
    (b_m, b_m eta_m), and the last of them, the highest, is never left (own derivation).
    """
    if not isinstance(efficiency, LinkAdaptation):
        return _log_curve(*efficiency.log_form, _Fading(10 ** (k_factor_db / 10)))
    threshold, level = efficiency.steps
    if k_factor_db == math.inf:
        x = np.append(0.0, 1 / threshold[::-1])
        y = np.append(0.0, (level / threshold)[::-1])
        corner, _ = envelope(x, y)
        return MonotoneCurve.polygon(x[corner], y[corner])
    rise = np.diff(level, prepend=0.0)
    return _step_curve(threshold, rise, _Fading(10 ** (k_factor_db / 10)))
