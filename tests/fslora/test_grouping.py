"""Stacks hold every device once, fit into memory, and do not pad for nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fslora.grouping import TokenCost, plan_stacks

SMALL_ADAPTER = TokenCost(base=1e6, rank=1e3)


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 16), st.integers(1, 20)),
        min_size=1,
        max_size=60,
    ),
    at_once=st.integers(1, 70),
    rank_cost=st.floats(1.0, 1e6),
)
def test_every_device_once_and_no_stack_too_large(
    shapes: list[tuple[int, int, int]], at_once: int, rank_cost: float
) -> None:
    rank, batch, steps = (np.array(column) for column in zip(*shapes, strict=True))
    stacks = plan_stacks(rank, batch, steps, 32, TokenCost(1e6, rank_cost), at_once)
    assert sorted(np.concatenate(stacks).tolist()) == list(range(len(shapes)))
    for stack in stacks:
        assert 1 <= len(stack) <= at_once
        assert (np.diff(steps[stack]) <= 0).all()


def test_like_devices_share_one_stack() -> None:
    rank = np.arange(30) % 16 + 1
    stacks = plan_stacks(rank, np.full(30, 4), np.full(30, 5), 128, SMALL_ADAPTER, 64)
    assert len(stacks) == 1


def test_pieces_of_a_large_cohort_are_even() -> None:
    even = np.ones(65, dtype=np.int64)
    stacks = plan_stacks(even, even, even, 128, SMALL_ADAPTER, 64)
    assert sorted(len(stack) for stack in stacks) == [32, 33]


def test_ranks_part_where_padding_costs_more_than_a_pass() -> None:
    # A rank costs as much as the base: one wide device would make 29 others pay for 63 ranks.
    rank = np.array([64] + [1] * 29)
    stacks = plan_stacks(rank, np.full(30, 4), np.full(30, 5), 128, TokenCost(1e6, 1e6), 64)
    assert [sorted(rank[stack].tolist()) for stack in stacks] == [[64], [1] * 29]


def test_the_widest_rank_is_found_wherever_it_stands() -> None:
    # The wide device has the smallest batch and so comes last.
    rank, batch = np.array([1] * 29 + [64]), np.array([4] * 29 + [3])
    stacks = plan_stacks(rank, batch, np.full(30, 5), 128, TokenCost(1e6, 1e6), 64)
    assert sorted(sorted(set(rank[stack].tolist())) for stack in stacks) == [[1], [64]]


def test_batches_part_where_padding_costs_more_than_a_pass() -> None:
    batch = np.array([64] + [1] * 29)
    stacks = plan_stacks(np.full(30, 4), batch, np.full(30, 5), 128, SMALL_ADAPTER, 64)
    assert [sorted(batch[stack].tolist()) for stack in stacks] == [[64], [1] * 29]
