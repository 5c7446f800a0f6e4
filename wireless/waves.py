"""Cosines of phases counted in turns and their sums: the inner loop of sums of sinusoids."""

import math

import numpy as np
from numpy.typing import NDArray

# Taylor coefficients of sin(pi w / 2) / w in w^2; the first one left out is 3e-16 at |w| = 1.
_SINE = tuple(
    (-1) ** order * (math.pi / 2) ** (2 * order + 1) / math.factorial(2 * order + 1)
    for order in range(10)
)


def cosine(turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cos(2 pi t) of phases t in turns.

    Parameters
    ----------
    turns : ndarray, any shape
        Phases in turns, finite. Whole turns are removed exactly, so that a phase of 1e6 turns
        loses no digits beyond those of its own representation.

    Returns
    -------
    ndarray, shape of the phases
        Cosines, within 1e-15.

    Notes
    -----
    cos(2 pi t) = sin(pi w / 2) with w = 1 - 4 |t| and t within half a turn. It consists of sums
    and products alone: several times faster than the cosine of the C library, and the same to the
    last bit whatever the machine, the length of the array and the place in it.
    """
    w: NDArray[np.float64] = np.rint(turns)
    np.subtract(turns, w, out=w)
    np.abs(w, out=w)
    w *= -4
    w += 1
    square = w * w
    series: NDArray[np.float64] = square * _SINE[-1]
    for coefficient in _SINE[-2:0:-1]:
        series += coefficient
        series *= square
    series += _SINE[0]
    series *= w
    return series


def total(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add up the rows of an array by halves, in an order that no column count changes.

    Parameters
    ----------
    terms : ndarray, shape (2^n, M)
        Terms; overwritten.

    Returns
    -------
    ndarray, shape (M,)
        Sums over the rows. numpy's own sum adds a single column in another order than many,
        which would let the last bit of a value depend on its company.
    """
    rows = len(terms)
    while rows > 1:
        rows //= 2
        terms[:rows] += terms[rows : 2 * rows]
    sums: NDArray[np.float64] = terms[0]
    return sums
