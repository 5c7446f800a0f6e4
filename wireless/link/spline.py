"""Monotone curves from values and slopes: rational quadratic splines with a closed-form inverse."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

FloatArray = NDArray[np.float64]


class MonotoneCurve:
    """An increasing curve through (0, 0), by cells between nodes.

    Parameters
    ----------
    x, y : ndarray, shape (C + 1,)
        Nodes, both increasing from zero.
    start_slope, end_slope : ndarray, shape (C,)
        Slopes dy/dx at both ends of each cell, the first positive, the second not negative. Two
        cells that meet may differ there, which makes a corner.
    limit : float, optional
        Value as x -> inf, above the last node's; the last node's itself if not given, which the
        curve then keeps.

    Notes
    -----
    Each cell is the rational quadratic that has its end values and slopes (Gregory and Delbourgo,
    "Piecewise rational quadratic interpolation to monotonic data", IMA J. Numer. Anal. 2, 1982);
    a cell whose slopes are its chord's is straight. Its inverse is the root of a quadratic, so
    curve and inverse agree to rounding. Beyond the last node towards a limit that is not attained
    the curve is the hyperbola with the last node's value and slope (own derivation).
    """

    def __init__(
        self,
        x: FloatArray,
        y: FloatArray,
        start_slope: FloatArray,
        end_slope: FloatArray,
        limit: float | None = None,
    ) -> None:
        self._x, self._y = x, y
        self._dx, self._dy = np.diff(x), np.diff(y)
        chord = self._dy / self._dx
        self._start = start_slope / chord
        self._bend = (start_slope + end_slope) / chord - 2
        self._end_slope = float(end_slope[-1])
        self.attained = limit is None
        self.limit = float(y[-1]) if limit is None else limit

    @classmethod
    def polygon(cls, x: FloatArray, y: FloatArray) -> Self:
        """Return the straight-line curve through nodes, which keeps its last value."""
        chord = np.diff(y) / np.diff(x)
        return cls(x, y, chord, chord)

    def value(self, x: FloatArray) -> FloatArray:
        """Return y of non-negative x, infinity included."""
        cell = np.searchsorted(self._x[1:-1], x, side="right")
        t = np.minimum((np.minimum(x, self._x[-1]) - self._x[cell]) / self._dx[cell], 1.0)
        both = t * (1 - t)
        part = (t * t + self._start[cell] * both) / (1 + self._bend[cell] * both)
        y: FloatArray = self._y[cell] + self._dy[cell] * part
        if not self.attained:
            rest = self.limit - self._y[-1]
            beyond = np.maximum(x - self._x[-1], 0.0) * (self._end_slope / rest)
            y += rest * (1 - 1 / (1 + beyond))
        return y

    def invert(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return x and dx/dy of y in (0, limit), and of the limit where it is attained."""
        cell = np.searchsorted(self._y[1:-1], y, side="right")
        part = np.minimum((y - self._y[cell]) / self._dy[cell], 1.0)
        start, bend = self._start[cell], self._bend[cell]
        middle = start - part * bend
        # Zero only where rounding makes the discriminant of a flat end negative.
        square = np.maximum(middle * middle + 4 * part * (1 - start + part * bend), 0.0)
        t = np.minimum(2 * part / (middle + np.sqrt(square)), 1.0)
        both = t * (1 - t)
        end = bend + 2 - start
        steep = (end * t * t + 2 * both + start * (1 - t) ** 2) / (1 + bend * both) ** 2
        x: FloatArray = self._x[cell] + self._dx[cell] * t
        # A slope is infinite where the curve ends level, and at a limit that is not attained.
        with np.errstate(divide="ignore"):
            slope: FloatArray = self._dx[cell] / (self._dy[cell] * np.maximum(steep, 0.0))
            if not self.attained:
                rest = self.limit - self._y[-1]
                left = (self.limit - y) / rest
                outside = left < 1
                left = np.where(outside, np.maximum(left, 0.0), 1.0)
                far = self._x[-1] + rest / self._end_slope * (1 / left - 1)
                x = np.where(outside, far, x)
                slope = np.where(outside, 1 / (self._end_slope * left) / left, slope)
        return x, slope


def envelope(x: FloatArray, y: FloatArray) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the corners of the least concave non-decreasing curve above points.

    Parameters
    ----------
    x, y : ndarray, shape (C + 1,)
        Points, x increasing, the first at (0, 0).

    Returns
    -------
    corner : ndarray of int, shape (V,)
        Numbers of the points where the envelope touches, the first and the highest included.
    bridge : ndarray of bool, shape (V - 1,)
        Whether the segment from a corner to the next passes over points in between.

    Notes
    -----
    The slopes of the least concave majorant are the isotonic regression of the chords' slopes,
    weighted by their widths (Barlow, Bartholomew, Bremner and Brunk, "Statistical inference under
    order restrictions", 1972).
    """
    highest = int(np.argmax(y))
    width = np.diff(x[: highest + 1])
    rise = np.diff(y[: highest + 1])
    fit = isotonic_regression(rise / width, weights=width, increasing=False)
    corner = np.asarray(fit.blocks, dtype=np.intp)
    return corner, np.diff(corner) > 1
