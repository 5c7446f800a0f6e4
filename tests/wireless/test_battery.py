"""Batteries: conservation, and when they are empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireless.battery import Battery

CAPACITY_J = np.array([100.0, 50.0, np.inf])

energies = st.floats(0, 80)
payments = st.lists(st.tuples(st.integers(0, 2), energies), max_size=12)


def split(pairs):
    """Device numbers and joules."""
    return np.array([d for d, _ in pairs], dtype=int), np.array([e for _, e in pairs])


@given(payments)
def test_what_is_spent_and_what_is_left_make_the_capacity(pairs):
    battery = Battery(CAPACITY_J).spend(*split(pairs))
    np.testing.assert_allclose(battery.spent_j[:2] + battery.left_j[:2], CAPACITY_J[:2])
    asked = np.array([sum(e for d, e in pairs if d == device) for device in range(3)])
    np.testing.assert_allclose(battery.spent_j, np.minimum(asked, CAPACITY_J))
    assert not battery.empty[2]
    assert battery.left_j[2] == np.inf


@given(payments, payments)
def test_paying_at_once_or_one_by_one_is_the_same(first, second):
    together = Battery(CAPACITY_J).spend(*split(first + second))
    apart = Battery(CAPACITY_J).spend(*split(first)).spend(*split(second))
    np.testing.assert_allclose(together.spent_j, apart.spent_j)


def test_a_state_never_changes():
    battery = Battery(CAPACITY_J)
    battery.spend([0], [70.0])
    np.testing.assert_array_equal(battery.left_j, CAPACITY_J)


def test_empty_is_what_has_nothing_left():
    battery = Battery(CAPACITY_J).spend([0, 1, 2], [99.0, 50.0, 1e12])
    assert battery.empty.tolist() == [False, True, False]
    assert battery.spend([0], [1.0]).empty[0]


def test_a_million_devices():
    battery = Battery(np.full(1_000_000, 5.0)).spend(np.arange(0, 1_000_000, 2), 5.0)
    assert len(battery) == 1_000_000
    assert battery.empty.sum() == 500_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Battery(np.array([1.0, 0.0])), "capacity_j must be above 0, got 0"),
        (lambda: Battery(np.array([[1.0]])), "capacity_j must have one dimension"),
        (lambda: Battery(CAPACITY_J, np.array([101.0, 0, 0])), "spent_j must be from 0 to"),
        (lambda: Battery(CAPACITY_J, np.array([0, 0, np.inf])), "spent_j must be from 0 to"),
        (lambda: Battery(CAPACITY_J, np.zeros(2)), "spent_j must have the shape"),
        (lambda: Battery(CAPACITY_J).spend([3], [1.0]), "device must be from 0 to 2, got 3"),
        (lambda: Battery(CAPACITY_J).spend([-1], [1.0]), "device must be from 0 to 2, got -1"),
        (lambda: Battery(CAPACITY_J).spend([0.0], [1.0]), "device must hold integers"),
        (lambda: Battery(CAPACITY_J).spend([0], [-1.0]), "joules must be finite and at least 0"),
        (lambda: Battery(CAPACITY_J).spend([0], [np.nan]), "joules must be finite"),
    ],
)
def test_impossible_states_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
