"""Named random streams: addressing, golden values and statistics."""

import numpy as np
import pytest
from scipy import stats

from wireless import streams

DEVICES = np.arange(20_000)


def test_golden_values():
    # Frozen: a change here changes every simulation ever published with this package.
    assert streams.uniform(7, "shadowing", [0, 1, 2], 3).tolist() == [
        0.2853171979475516,
        0.5766512275444239,
        0.6305107451055899,
    ]
    assert streams.key(7, "data order", 4, 5) == 8416364424407739569


def test_value_depends_on_its_address_alone():
    grid = streams.uniform(3, "fading", np.arange(50)[:, None], np.arange(40))
    assert grid.shape == (50, 40)
    shuffled = np.random.default_rng(0).permutation(50)
    assert np.array_equal(streams.uniform(3, "fading", shuffled, 17), grid[shuffled, 17])
    assert streams.uniform(3, "fading", 31, 17) == grid[31, 17]
    assert streams.uniform(3, "fading", np.uint8(31), np.int64(17)) == grid[31, 17]


def test_scalars_and_no_counters_give_zero_dimensions():
    for draw in (streams.uniform, streams.normal, streams.exponential):
        assert draw(1, "a").shape == ()
        assert draw(1, "a", 2).shape == ()
        assert draw(1, "a", np.zeros((0,), int)).shape == (0,)


def test_addresses_differ_in_every_part():
    values = [
        streams.uniform(*address).item()
        for address in [
            (1, "a", 0),
            (2, "a", 0),
            (-1, "a", 0),
            (1, "b", 0),
            (1, "a", 1),
            (1, "a", -1),
            (1, "a"),
            (1, "a", 0, 0),
            (1, "a", 0, 1),
            (1, "a", 1, 0),
            (11, "a", 0),
            (1, "1:a", 0),
        ]
    ]
    assert len(set(values)) == len(values)


def test_no_collisions_on_a_grid_of_devices_and_dispatches():
    bits = streams.uniform(5, "collide", np.arange(1000)[:, None], np.arange(300))
    assert np.unique(bits).size == bits.size


@pytest.mark.parametrize(
    ("draw", "distribution"),
    [
        (streams.uniform, stats.uniform),
        (streams.normal, stats.norm),
        (streams.exponential, stats.expon),
    ],
)
def test_distribution(draw, distribution):
    for seed in (0, 1, 2**70):
        assert stats.kstest(draw(seed, "shape", DEVICES), distribution.cdf).pvalue > 0.001


def test_uniform_is_strictly_inside(monkeypatch):
    monkeypatch.setattr(streams, "_bits", lambda *_: np.array([0, 2**64 - 1], dtype=np.uint64))
    low, high = streams.uniform(0, "ends")
    assert 0 < low < high < 1
    assert np.isfinite(streams.normal(0, "ends")).all()
    assert (streams.exponential(0, "ends") > 0).all()


@pytest.mark.parametrize(
    ("seed", "purpose", "counters"),
    [
        (9, "base", (DEVICES + 1, 0)),
        (9, "base", (DEVICES, 1)),
        (9, "base", (DEVICES, 2**32)),
        (9, "base", (0, DEVICES)),
        (9, "base", (DEVICES,)),
        (10, "base", (DEVICES, 0)),
        (9, "base2", (DEVICES, 0)),
    ],
)
def test_neighbouring_streams_are_uncorrelated(seed, purpose, counters):
    base = streams.normal(9, "base", DEVICES, 0)
    other = streams.normal(seed, purpose, *counters)
    bound = 4 / np.sqrt(DEVICES.size)
    assert abs(np.corrcoef(base, other)[0, 1]) < bound
    assert abs(np.corrcoef(base**2, other**2)[0, 1]) < bound


def test_bits_are_balanced_and_pairwise_independent():
    keys = np.array([streams.key(1, "bits", n) for n in range(4000)], dtype=np.uint64)
    bits = (keys[:, None] >> np.arange(63, dtype=np.uint64)) & np.uint64(1)
    correlation = np.corrcoef(bits.astype(float).T) - np.eye(63)
    assert abs(bits.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(4000)
    assert abs(correlation).max() < 5.5 / np.sqrt(4000)


def test_key_is_a_63_bit_integer():
    keys = [streams.key(0, "key", n) for n in range(100)]
    assert all(type(key) is int and 0 <= key < 2**63 for key in keys)
    assert len(set(keys)) == 100


def test_counters_and_seed_must_be_integers():
    with pytest.raises(TypeError, match="integers"):
        streams.uniform(0, "a", 0.5)
    with pytest.raises(TypeError):
        streams.uniform(0.5, "a", 0)
    with pytest.raises(TypeError):
        streams.key(0, "a", 1.0)
