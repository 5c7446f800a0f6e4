"""Which examples a device sees, and how they are put side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fslora.batches import Batches
from fslora.local import LocalTraining
from fslora.order import data_order
from tests.fslora.conftest import small_dataset

SHARD = np.arange(100, 123)


@given(
    key=st.integers(0, 2**63),
    steps=st.integers(1, 20),
    batch=st.integers(1, 23),
    seed=st.integers(0, 9),
)
def test_every_pass_sees_every_example_once(key: int, steps: int, batch: int, seed: int) -> None:
    length = np.random.default_rng(seed).integers(1, 40, 200)
    rows = data_order(SHARD, length, key, steps, batch)
    assert rows.shape == (steps, batch)
    drawn = rows.ravel()
    for start in range(0, len(drawn), len(SHARD)):
        one_pass = drawn[start : start + len(SHARD)]
        assert len(set(one_pass)) == len(one_pass)
        assert set(one_pass) <= set(SHARD)
        assert (np.diff(length[one_pass]) <= 0).all()


def test_which_examples_are_drawn_does_not_depend_on_their_length() -> None:
    rng = np.random.default_rng(1)
    for key in range(20):
        drawn = [
            set(data_order(SHARD, rng.integers(1, 40, 200), key, 2, 4).ravel()) for _ in range(3)
        ]
        assert drawn[0] == drawn[1] == drawn[2]


def test_like_lengths_come_together() -> None:
    length = np.random.default_rng(2).integers(1, 129, 200)
    order = data_order(SHARD, length, 3, 5, 4)
    shuffled = np.random.default_rng(3).permutation(order.ravel()).reshape(order.shape)
    assert length[order].max(axis=1).sum() < length[shuffled].max(axis=1).sum()


def test_a_device_without_an_example_has_length_zero_there() -> None:
    examples = small_dataset("causal-lm", padded=True).train
    rows = [np.array([[4, 9], [2, 7]]), np.array([[5]])]
    batches = Batches.gather(examples, rows)
    assert batches.tokens.shape == (2, 2, 2, 12)
    assert batches.steps.tolist() == [2, 1]
    assert batches.length[0].tolist() == examples.length[rows[0]].tolist()
    assert batches.length[1].tolist() == [[examples.length[5], 0], [0, 0]]


def test_rising_numbers_of_steps_are_refused() -> None:
    examples = small_dataset("causal-lm", padded=False).train
    with pytest.raises(ValueError, match="falling"):
        Batches.gather(examples, [np.array([[1]]), np.array([[2], [3]])])


def test_steps_follow_from_data_or_are_given() -> None:
    held = [1, 3, 4, 9, 23]
    given = LocalTraining(5, 4, 0.1)
    assert given.steps_of(held).tolist() == [5] * 5
    assert given.batch_of(held).tolist() == [1, 3, 4, 4, 4]
    passes = LocalTraining(5, 4, 0.1, epochs=3)
    assert passes.steps_of(held).tolist() == [3, 3, 3, 7, 18]
