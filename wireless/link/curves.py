"""Exact curves behind the Shannon links: g(x) of x = b/a, rate = (a / ln 2) g(b/a).

One table per curve inverts the links of every device (own derivation): in the coordinates
(ln x, logit g) both curves are nearly straight over all x, so linear interpolation lands within
1e-6 and a single Newton step reaches machine precision. Unlike the Lambert W form of the
power-limited inverse, this loses no digits near the limit.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1


class Point(NamedTuple):
    """A curve g at x: value, 1 - value without cancellation, first and second derivative."""

    value: NDArray[np.float64]
    rest: NDArray[np.float64]
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


def awgn(x: NDArray[np.float64]) -> Point:
    """Evaluate g(x) = x ln(1 + 1/x), x > 0."""
    y = 1 / x
    log = np.log1p(y)
    # y - ln(1+y) cancels for small y; with s = y/(2+y), ln(1+y) = 2 artanh(s) gives
    # y - ln(1+y) = s y - 2 (s^3/3 + s^5/5 + ...), ten terms of which suffice up to y = 0.3.
    s = np.minimum(y, 0.3) / (2 + np.minimum(y, 0.3))
    series = np.zeros_like(s)
    for power in range(21, 1, -2):
        series = series * s**2 + 1 / power
    excess = s * y - 2 * s**3 * series
    small = y < 0.3
    return Point(
        value=x * log,
        rest=np.where(small, x * excess, 1 - x * log),
        slope=np.where(small, y * (y / (1 + y)) - excess, log - 1 / (1 + x)),
        curvature=-1 / (x * (1 + x) ** 2),
    )


def rayleigh(x: NDArray[np.float64]) -> Point:
    """Evaluate g(x) = x e^x E1(x), x > 0.

    For small x from E1 itself. For large x, where e^x overflows and 1 - g and g' cancel, from the
    continued fraction e^x E1(x) = 1/(x + 1 - c), c = 1/(x + 3 - d), d = 4/(x + 5 - 9/(x + 7 - ...))
    (the even part of DLMF 6.9.1), in which g, 1 - g, g' and g'' are products without cancellation.
    """
    value, rest, slope, curvature = (np.empty_like(x) for _ in range(4))
    near = x < 4
    z = x[near]
    scaled = np.exp(z) * exp1(z)
    value[near] = z * scaled
    rest[near] = 1 - z * scaled
    slope[near] = scaled * (1 + z) - 1
    curvature[near] = scaled * (2 + z) - 1 - 1 / z
    z = x[~near]
    d = np.zeros_like(z)
    for k in range(32, 1, -1):
        d = k**2 / (z + (2 * k + 1) - d)
    c = 1 / (z + 3 - d)
    scaled = 1 / (z + 1 - c)
    value[~near] = z * scaled
    rest[~near] = (1 - c) * scaled
    slope[~near] = c * scaled
    curvature[~near] = -c * scaled * (2 - d) / z
    return Point(value, rest, slope, curvature)


class ExactCurve:
    """An increasing concave curve g from (0, inf) onto (0, 1), with its inverse.

    Parameters
    ----------
    evaluate : callable
        g and its derivatives at an array of positive numbers.
    """

    def __init__(self, evaluate: Callable[[NDArray[np.float64]], Point]) -> None:
        self.evaluate = evaluate
        # ln x from -700 to 37, beyond which g rounds to 1. The bend of logit g against ln x dies
        # off like 1/(ln x)^2, hence knots that spread out away from the middle.
        self._log_x = 4 * np.sinh(np.linspace(np.arcsinh(-700 / 4), np.arcsinh(37 / 4), 8000))
        point = evaluate(np.exp(self._log_x))
        self._logit = np.log(point.value) - np.log(point.rest)

    def invert(self, value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x with g(x) = value in (0, 1), and dx/dvalue."""
        rest = 1 - value
        start = np.exp(np.interp(np.log(value) - np.log(rest), self._logit, self._log_x))
        point = self.evaluate(start)
        # Newton on logit g against ln x; whichever of g and 1 - g is small carries the digits.
        miss = np.where(value < 0.5, point.value - value, rest - point.rest)
        odds = np.log1p(miss / (value * point.rest))
        step = start * np.expm1(-odds * point.value * point.rest / (start * point.slope))
        return start + step, 1 / (point.slope + point.curvature * step)
