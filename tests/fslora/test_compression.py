"""Uploads of fewer bits."""

import numpy as np
import pytest
import torch

from fslora.compression import Compression
from fslora.methods import Slice, Update


def update(rows: int = 3, d_in: int = 10, d_out: int = 7, seed: int = 1) -> Update:
    """An update of one layer."""
    draws = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, d_in, generator=draws, dtype=torch.float64)
    b = torch.randn(d_out, rows, generator=draws, dtype=torch.float64)
    return Update(0, Slice(np.arange(rows)[None], 1.0), {"x": a}, {"x": b}, {}, 1.0)


def test_nothing_to_do_leaves_the_update_alone() -> None:
    sent = update()
    assert Compression().compress(sent, 5) is sent


@pytest.mark.parametrize("keep", [0.01, 0.25, 0.3, 0.85])
def test_the_largest_of_each_rank_arrive_as_they_are(keep: float) -> None:
    sent = update()
    arrived = Compression(keep).compress(sent, 5)
    for one, other in (
        (sent.delta_a["x"], arrived.delta_a["x"]),
        (sent.delta_b["x"].T, arrived.delta_b["x"].T),
    ):
        count = int(np.ceil(keep * one.shape[1]))
        for whole, part in zip(one, other, strict=True):
            there = part != 0
            assert int(there.sum()) == count
            assert torch.equal(part[there], whole[there])
            assert whole[there].abs().min() >= whole[~there].abs().max()


@pytest.mark.parametrize("bits", [8, 4])
def test_rounding_is_unbiased_and_no_further_than_a_step(bits: int) -> None:
    sent, count = update(), 4000
    total = torch.zeros_like(sent.delta_a["x"])
    levels = 2 ** (bits - 1) - 1
    step = sent.delta_a["x"].abs().amax(1, keepdim=True) / levels
    for key in range(count):
        arrived = Compression(value_bits=bits).compress(sent, key).delta_a["x"]
        assert ((arrived - sent.delta_a["x"]).abs() <= step * (1 + 1e-9)).all()
        whole = arrived / step
        torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-9)
        total += arrived
    # A value is a step off at most, so the mean of many is within five of its deviations.
    assert ((total / count - sent.delta_a["x"]).abs() <= 5 * step / 2 / count**0.5).all()


def test_the_same_key_rounds_the_same() -> None:
    one, other = (Compression(value_bits=4).compress(update(), 3) for _ in range(2))
    assert torch.equal(one.delta_b["x"], other.delta_b["x"])
    third = Compression(value_bits=4).compress(update(), 4)
    assert not torch.equal(one.delta_b["x"], third.delta_b["x"])


def test_ranks_without_change_stay_without() -> None:
    still = update()
    still.delta_a["x"][1] = 0
    assert not Compression(0.5, 8).compress(still, 1).delta_a["x"][1].any()


@pytest.mark.parametrize(
    ("compression", "bits"),
    [
        (Compression(), 320),
        (Compression(0.25), 3 * (32 + 4)),
        (Compression(0.3), 3 * (32 + 4)),
        (Compression(value_bits=8), 10 * 8 + 32),
        (Compression(0.5, 4), 5 * (4 + 4) + 32),
    ],
)
def test_bits_of_a_vector_of_ten(compression: Compression, bits: int) -> None:
    """Places among ten take four bits, a scale 32."""
    assert compression.vector_bits(10, 32) == bits
