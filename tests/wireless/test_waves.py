"""Cosines of phases in turns."""

import mpmath
import numpy as np

from wireless.waves import cosine, total


def test_against_forty_digits():
    turns = np.random.default_rng(1).uniform(-3, 3, 1000)
    with mpmath.workdps(40):
        exact = [float(mpmath.cospi(2 * mpmath.mpf(float(each)))) for each in turns]
    # Each of the ten steps of the series rounds once: a few units of 1.1e-16.
    np.testing.assert_allclose(cosine(turns), exact, rtol=0, atol=1e-15)


def test_quarters_of_a_turn_and_whole_turns():
    quarters = np.array([0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(cosine(quarters), [1, 0, -1, 0, 1], rtol=0, atol=4e-16)
    # Both phases are representable, so the whole turns must vanish without a trace.
    eighth = np.array([0.125, 0.375])
    np.testing.assert_array_equal(cosine(eighth + 2.0**40), cosine(eighth))
    np.testing.assert_array_equal(cosine(-eighth), cosine(eighth))


def test_argument_is_left_alone():
    turns = np.array([0.1, 7.3])
    cosine(turns)
    np.testing.assert_array_equal(turns, [0.1, 7.3])


def test_total_of_a_column_does_not_depend_on_the_others():
    terms = np.random.default_rng(2).normal(size=(64, 33))
    sums = total(terms.copy())
    np.testing.assert_allclose(sums, terms.sum(axis=0), rtol=0, atol=1e-13)
    for width in (1, 2, 32):
        np.testing.assert_array_equal(total(terms[:, :width].copy()), sums[:width])
