"""Exact curves behind the Shannon links: g(x) of x = b/a, rate = (a / ln 2) g(b/a).

One table per curve inverts the links of every device (own derivation): x is nearly the odds
g / (1 - g), and their ratio so smooth in the logarithm of the odds that polynomials on cells of
equal width, which need no search, have it to machine precision. Unlike the Lambert W form of the
power-limited inverse, this loses no digits near the limit.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
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


# Cells of s = u / (64 + |u|), u = ln(g / (1 - g)), a 2048th wide: narrow where the ratio bends,
# wide where it follows 1 / |u|. Beyond the range of u, g rounds to 1 or cannot be told from 0.
_SCALE, _CELLS, _RANGE = 64.0, 2048, (-700.0, 37.5)
# Degree of the polynomials, and points of a cell that they are fitted to: more than they need, so
# that roundings average out.
_DEGREE, _NODES = 6, 14


class ExactCurve:
    """An increasing concave curve g from (0, inf) onto (0, 1), with its inverse.

    Parameters
    ----------
    evaluate : callable
        g and its derivatives at an array of positive numbers.
    """

    def __init__(self, evaluate: Callable[[NDArray[np.float64]], Point]) -> None:
        self.evaluate = evaluate
        first, last = (math.floor(_CELLS * u / (_SCALE + abs(u))) for u in _RANGE)
        node = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
        s = (np.arange(first, last + 1) + 0.5 + node[:, None] / 2) / _CELLS
        u = _SCALE * s / (1 - np.abs(s))
        fit = chebyshev.chebfit(node, self._ratio(u), _DEGREE)
        power = [
            np.append(chebyshev.cheb2poly(row), np.zeros(_DEGREE))[: _DEGREE + 1]
            for row in np.eye(_DEGREE + 1)
        ]
        self._first = first
        # Powers of the distance from the middle of the cell, in cells, rather than in halves.
        self._coefficient = (np.transpose(power) @ fit) * 2.0 ** np.arange(_DEGREE + 1)[:, None]

    def _ratio(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x over the odds whose logarithm is u, by Newton's method on u against ln x."""
        value, rest = 1 / (1 + np.exp(-u)), 1 / (1 + np.exp(u))
        x = np.exp(u) / (2 + np.maximum(-u, 0.0))
        # Both curves are nearly straight in these coordinates; the error is squared by each step.
        for _ in range(7):
            point = Point(*(part.reshape(u.shape) for part in self.evaluate(x.ravel())))
            # Whichever of g and 1 - g is small carries the digits.
            miss = np.where(u < 0, point.value - value, rest - point.rest)
            odds = np.log1p(np.maximum(miss / (value * point.rest), -0.9))
            x = x * np.exp(-odds * point.value * point.rest / (x * point.slope))
        return np.asarray(x * (rest / value))

    def invert(self, value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x with g(x) = value in (0, 1), and dx/dvalue."""
        rest = 1 - value
        odds = value / rest
        u = np.maximum(np.log(odds), _RANGE[0])
        narrow = 1 / (_SCALE + np.abs(u))
        place = _CELLS * u * narrow
        cell = np.floor(place)
        part = place - (cell + 0.5)
        cell = cell.astype(np.intp) - self._first
        ratio, slope = self._coefficient[-1][cell], np.zeros_like(part)
        for row in self._coefficient[-2::-1]:
            slope = slope * part + ratio
            ratio = ratio * part + row[cell]
        return odds * ratio, (ratio + slope * (_CELLS * _SCALE) * narrow**2) / rest**2
