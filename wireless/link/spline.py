"""Monotone curves from values and slopes: rational quadratic splines with a closed-form inverse."""

from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

FloatArray = NDArray[np.float64]

#: Points per curve up to which all curves are searched as one; measured, of no effect on results.
_FEW = 200


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
        self.attained = limit is None
        self.limit = float(y[-1]) if limit is None else limit
        dx, dy = np.diff(x), np.diff(y)
        chord = dy / dx
        bend = (start_slope + end_slope) / chord - 2
        self._cells = np.array([x[:-1], dx, y[:-1], dy, start_slope / chord, bend])
        self._inner_x, self._inner_y = x[1:-1], y[1:-1]
        # Nothing lies beyond the end of a curve that keeps its last value.
        last = (np.inf, np.inf) if self.attained else (x[-1], y[-1])
        self._tail = np.array([*last, self.limit, end_slope[-1]])

    @classmethod
    def polygon(cls, x: FloatArray, y: FloatArray) -> Self:
        """Return the straight-line curve through nodes, which keeps its last value."""
        chord = np.diff(y) / np.diff(x)
        return cls(x, y, chord, chord)

    def value(self, x: FloatArray) -> FloatArray:
        """Return y of non-negative x, infinity included."""
        cell = self._inner_x.searchsorted(x, side="right")
        return _value(x, self._cells.take(cell, axis=1), self._tail)

    def invert(self, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return x and dx/dy of y in (0, limit), and of the limit where it is attained."""
        cell = self._inner_y.searchsorted(y, side="right")
        return _invert(y, self._cells.take(cell, axis=1), self._tail)


class CurveTable:
    """Several curves, evaluated at points that are each on one of them.

    A point's result does not depend on the others, to the last bit.

    Parameters
    ----------
    curves : sequence of MonotoneCurve
        The curves.

    Attributes
    ----------
    limit : ndarray, shape (len(curves),)
        Their values as x -> inf.
    attained : ndarray of bool, shape (len(curves),)
        Which of them reach it.
    """

    def __init__(self, curves: Sequence[MonotoneCurve]) -> None:
        self.limit = np.array([curve.limit for curve in curves])
        self.attained = np.array([curve.attained for curve in curves])
        self._curves = curves
        # Nobody's link has no curve at all.
        none = np.empty((6, 0))
        self._cells = np.concatenate([none, *(curve._cells for curve in curves)], axis=1)
        self._tail = np.array([curve._tail for curve in curves]).reshape(-1, 4).T
        number = np.repeat(
            np.arange(len(curves)), np.array([len(curve._inner_x) for curve in curves], np.intp)
        )
        inner_x = np.concatenate([none[0], *(curve._inner_x for curve in curves)])
        inner_y = np.concatenate([none[0], *(curve._inner_y for curve in curves)])
        self._inner_x, self._inner_y = _numbered(number, inner_x), _numbered(number, inner_y)

    def value(self, x: FloatArray, curve: NDArray[np.integer]) -> FloatArray:
        """Return y of non-negative x (..., N), infinity included, on the curves numbered (N,)."""
        if self._side_by_side(x):
            cell = self._cell(self._inner_x, x, curve)
            return _value(x, self._cells.take(cell, axis=1), self._tail.take(curve, axis=1))
        y = np.empty_like(x)
        for each, points in self._groups(curve):
            y[..., points] = each.value(x[..., points])
        return y

    def invert(self, y: FloatArray, curve: NDArray[np.integer]) -> tuple[FloatArray, FloatArray]:
        """Return x and dx/dy of y (..., N) on the curves numbered (N,): see `MonotoneCurve`."""
        if self._side_by_side(y):
            cell = self._cell(self._inner_y, y, curve)
            return _invert(y, self._cells.take(cell, axis=1), self._tail.take(curve, axis=1))
        x, slope = np.empty_like(y), np.empty_like(y)
        for each, points in self._groups(curve):
            x[..., points], slope[..., points] = each.invert(y[..., points])
        return x, slope

    def _side_by_side(self, points: FloatArray) -> bool:
        """Whether one search in all curves costs less than one in each, as it does for few."""
        return len(self._curves) != 1 and points.size <= _FEW * len(self._curves)

    @staticmethod
    def _cell(
        inner: NDArray[np.complex128], point: FloatArray, curve: NDArray[np.integer]
    ) -> NDArray[np.intp]:
        """Return each point's cell among those of all curves, of which each has one more."""
        return np.asarray(inner.searchsorted(_numbered(curve, point), side="right") + curve)

    def _groups(
        self, curve: NDArray[np.integer]
    ) -> Iterator[tuple[MonotoneCurve, NDArray[np.intp] | slice]]:
        """Points of each curve that has any."""
        if len(self._curves) == 1:
            yield self._curves[0], slice(None)
            return
        order = np.argsort(curve, kind="stable")
        count = np.bincount(curve, minlength=len(self._curves))
        groups = np.split(order, np.cumsum(count)[:-1])
        for each, points in zip(self._curves, groups, strict=True):
            if points.size:
                yield each, points


def _numbered(curve: NDArray[np.integer], point: FloatArray) -> NDArray[np.complex128]:
    """Return points as complex numbers, which sort by curve first, then along it."""
    key = np.empty(point.shape, np.complex128)
    key.real, key.imag = curve, point
    return key


def _value(x: FloatArray, cells: FloatArray, tail: FloatArray) -> FloatArray:
    """Return y of x, given each point's cell and the end of its curve."""
    x_0, dx, y_0, dy, start, bend = cells
    t = np.minimum((x - x_0) / dx, 1.0)
    both = t * (1 - t)
    y: FloatArray = y_0 + dy * ((t * t + start * both) / (1 + bend * both))
    beyond = x > tail[0]
    if beyond.any():
        last_x, last_y, limit, slope = _at(tail, beyond)
        rest = limit - last_y
        y[beyond] += rest * (1 - 1 / (1 + (x[beyond] - last_x) * (slope / rest)))
    return y


def _invert(y: FloatArray, cells: FloatArray, tail: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return x and dx/dy of y, given each point's cell and the end of its curve."""
    x_0, dx, y_0, dy, start, bend = cells
    part = np.minimum((y - y_0) / dy, 1.0)
    bent = part * bend
    middle = start - bent
    # Zero only where rounding makes the discriminant of a flat end negative.
    square = np.maximum(middle * middle + 4 * part * (1 - start + bent), 0.0)
    t = np.minimum(2 * part / (middle + np.sqrt(square)), 1.0)
    rest = 1 - t
    both = t * rest
    steep = (bend + 2 - start) * t * t + 2 * both + start * np.square(rest)
    steep /= np.square(1 + bend * both)
    x: FloatArray = x_0 + dx * t
    # A slope is infinite where the curve ends level, and at a limit that is not attained.
    with np.errstate(divide="ignore"):
        slope: FloatArray = dx / (dy * np.maximum(steep, 0.0))
        beyond = y > tail[1]
        if beyond.any():
            last_x, last_y, limit, end_slope = _at(tail, beyond)
            rest = limit - last_y
            left = np.maximum((limit - y[beyond]) / rest, 0.0)
            # Just beyond the last node the rest may round to all of it.
            outside = left < 1
            far = last_x + rest / end_slope * (1 / left - 1)
            x[beyond] = np.where(outside, far, x[beyond])
            slope[beyond] = np.where(outside, 1 / (end_slope * left) / left, slope[beyond])
    return x, slope


def _at(tail: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Return the ends of the chosen points' curves, of one curve or of each point's own."""
    return tail if tail.ndim == 1 else tail[:, np.nonzero(mask)[-1]]


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
