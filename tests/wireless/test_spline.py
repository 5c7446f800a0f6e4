"""Monotone curves: known functions, exact inverses, envelopes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wireless.link import spline
from wireless.link.spline import CurveTable, MonotoneCurve, envelope

X = np.append(0.0, np.geomspace(1e-3, 10, 400))


def saturating(x=X):
    """1 - exp(-x), with its slope and limit."""
    slope = np.exp(-x)
    return MonotoneCurve(x, -np.expm1(-x), slope[:-1], slope[1:], 1.0)


def test_interpolation_is_of_fourth_order():
    # Twice as many nodes divide the error by 16.
    x = np.linspace(1e-2, 9, 5000)
    error = [
        np.abs(saturating(np.append(0.0, np.geomspace(1e-3, 10, nodes))).value(x) + np.expm1(-x))
        for nodes in (201, 401)
    ]
    assert error[0].max() / error[1].max() == pytest.approx(16, rel=0.1)
    assert error[1].max() < 1e-8


def test_a_hyperbola_is_reproduced_exactly():
    # Rational quadratics contain x / (1 + x), tail included.
    slope = 1 / (1 + X) ** 2
    curve = MonotoneCurve(X, X / (1 + X), slope[:-1], slope[1:], 1.0)
    x = np.geomspace(1e-6, 1e9, 2000)
    np.testing.assert_allclose(curve.value(x), x / (1 + x), rtol=1e-12)
    y = np.linspace(0.01, 0.999, 100)
    inverse, slope = curve.invert(y)
    # Near the limit the inverse magnifies the rounding of y a thousandfold, twice in the slope.
    np.testing.assert_allclose(inverse, y / (1 - y), rtol=1e-11)
    np.testing.assert_allclose(slope, 1 / (1 - y) ** 2, rtol=1e-10)


@settings(max_examples=100)
@given(share=st.floats(1e-12, 1 - 1e-12))
def test_inverse(share):
    curve = saturating()
    x, _ = curve.invert(np.array([share]))
    assert curve.value(x)[0] == pytest.approx(share, rel=1e-14)


def test_slope_is_the_derivative_of_the_inverse():
    curve = saturating()
    y = np.array([1e-4, 0.1, 0.5, 0.99, 0.99999])
    x, slope = curve.invert(y)
    step = 1e-5 * x
    # A central difference of relative step 1e-5 is exact to about 1e-9, beside rounding of 1e-16
    # of the value over its change.
    change = (curve.value(x + step) - curve.value(x - step)) / (2 * step)
    np.testing.assert_allclose(slope * change, 1, rtol=1e-6)


def test_ends():
    curve = saturating()
    assert not curve.attained
    assert curve.value(np.array([0.0, np.inf])).tolist() == [0, 1]
    polygon = MonotoneCurve.polygon(np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 3.0]))
    assert polygon.attained
    assert polygon.limit == 3
    assert polygon.value(np.array([0.5, 1.0, 2.0, 3.0, 9.0, np.inf])).tolist() == [
        1,
        2,
        2.5,
        3,
        3,
        3,
    ]
    x, slope = polygon.invert(np.array([0.0, 1.0, 2.5, 3.0]))
    assert x.tolist() == [0, 0.5, 2, 3]
    assert slope.tolist() == [0.5, 0.5, 2, 2]


def test_envelope_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    corner, bridge = envelope(x, np.array([0.0, 2.0, 1.0, 3.1, 3.5, 3.4]))
    assert corner.tolist() == [0, 1, 3, 4]
    assert bridge.tolist() == [False, True, False]


@settings(max_examples=100)
@given(heights=st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_envelope_is_the_least_concave_rising_majorant(heights):
    x = np.arange(len(heights) + 1.0)
    y = np.append(0.0, heights)
    corner, _ = envelope(x, y)
    top = np.interp(x, x[corner], y[corner])
    assert (top >= y - 1e-12).all()
    chord = np.diff(y[corner]) / np.diff(x[corner])
    assert (chord > 0).all()
    assert (np.diff(chord) <= 1e-9).all()
    assert top[-1] == max(heights)


def random_curve(rng, attained):
    """A curve with its nodes: straight cells, corners, level ends; maybe one cell only."""
    cells = rng.integers(1, 30)
    x = np.append(0.0, np.cumsum(rng.lognormal(0, 2, cells)))
    chord = np.sort(rng.lognormal(0, 2, cells))[::-1]
    y = np.append(0.0, np.cumsum(chord * np.diff(x)))
    straight = rng.random(cells) < 0.3
    start = np.where(straight, chord, chord * rng.uniform(1, 3, cells))
    end = np.where(straight, chord, chord * rng.uniform(0, 1, cells))
    if attained:
        return MonotoneCurve(x, y, start, end), x, y
    end[-1] = chord[-1] * rng.uniform(0.1, 1)
    return MonotoneCurve(x, y, start, end, y[-1] * (1 + rng.lognormal(-3, 2))), x, y


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    kinds=st.lists(st.booleans(), min_size=1, max_size=6),
    devices=st.integers(0, 40),
    few=st.sampled_from([0, 10**6]),
)
def test_a_table_has_the_bits_of_its_curves(seed, kinds, devices, few):
    """Whether searched together or curve by curve, and whatever points there are beside."""
    rng = np.random.default_rng(seed)
    curves, x_nodes, y_nodes = zip(*(random_curve(rng, each) for each in kinds), strict=True)
    table, number = CurveTable(curves), rng.integers(0, len(curves), devices)
    limit = table.limit[number]
    assert limit.tolist() == [curves[c].limit for c in number]
    # Nodes themselves, both ends, and points beyond the last node among the others.
    x = rng.lognormal(0, 5, (3, devices))
    y = limit * rng.uniform(0, 1, (3, devices)) ** rng.choice([0.01, 1, 5], (3, devices))
    for device, c in enumerate(number):
        node = rng.integers(0, len(x_nodes[c]))
        x[1, device], y[1, device] = x_nodes[c][node], y_nodes[c][node]
    x[2, ::3], x[2, 1::3] = 0.0, np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spline, "_FEW", few)
        value, (inverse, slope) = table.value(x, number), table.invert(y, number)
        order = rng.permutation(devices)
        assert np.array_equal(table.value(x[1][order], number[order]), value[1][order])
    for device, c in enumerate(number):
        assert np.array_equal(value[:, device], curves[c].value(x[:, device]))
        alone = curves[c].invert(y[:, device])
        assert np.array_equal(np.stack((inverse[:, device], slope[:, device])), np.stack(alone))
