"""Lengths of what jobs train on, against the examples that training draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fslora.cost import AdapterCost
from fslora.lengths import Lengths
from fslora.local import LocalTraining
from fslora.methods import Job
from fslora.order import job_rows

COST = AdapterCost(0, 1, 0, 1, (7.0, 5e6, 3e3), (11.0, 2e5), 0, 0, 1)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    alike=st.booleans(),
    steps=st.integers(1, 9),
    batch=st.integers(1, 9),
    epochs=st.none() | st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_sums_are_those_over_the_drawn_examples(
    sizes: list[int], alike: bool, steps: int, batch: int, epochs: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    length = np.full(count, 12) if alike else rng.integers(1, 200, count)
    shards = tuple(np.split(rng.permutation(count), np.cumsum(sizes)[:-1]))
    local = LocalTraining(steps, batch, 0.1, epochs=epochs)
    lengths = Lengths.of(length, shards)
    assert lengths.samples.tolist() == sizes
    device = rng.integers(0, len(sizes), 8)
    key, rank = rng.integers(0, 2**63, 8), rng.integers(1, 17, 8)
    jobs = [Job(int(n), int(k), int(s)) for n, k, s in zip(device, rank, key, strict=True)]
    drawn = [length[job_rows(shards, length, local, job)] for job in jobs]
    wanted = [[each.size, each.sum(), (each**2).sum()] for each in drawn]
    found = lengths.drawn(device, key, np.array([each.size for each in drawn]))
    assert found.T.tolist() == wanted
    flops = [COST.example_flops(k, each).sum() for k, each in zip(rank, drawn, strict=True)]
    assert COST.flops(rank, found).tolist() == flops


def test_equal_lengths_are_lengths_that_are_equal() -> None:
    sizes = np.array([3, 1, 40])
    shards = tuple(np.split(np.arange(44), np.cumsum(sizes)[:-1]))
    one, other = Lengths.equal(sizes, 17), Lengths.of(np.full(44, 17), shards)
    assert one.powers.tolist() == other.powers.tolist()
    assert one.unlike == other.unlike == {}


@pytest.mark.parametrize("passes", [1, 4])
def test_whole_passes_do_not_depend_on_the_draw(passes: int) -> None:
    length = np.arange(1, 11)
    lengths = Lengths.of(length, (np.arange(10),))
    keys, count = np.arange(50), np.full(50, 10 * passes)
    sums = lengths.drawn(np.zeros(50, dtype=np.int64), keys, count)
    assert (sums == passes * np.array([[10], [55], [385]])).all()
