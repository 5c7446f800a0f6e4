"""Products by their factors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fslora.products import Product


def some(seed: int, d_out: int, ranks: int, d_in: int) -> Product:
    """A random product in double precision."""
    draws = torch.Generator().manual_seed(seed)
    b = torch.randn(d_out, ranks, generator=draws, dtype=torch.float64)
    return Product(b, torch.randn(ranks, d_in, generator=draws, dtype=torch.float64))


sizes = st.integers(1, 12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, sizes, st.integers(0, 1000))
def test_best_is_that_of_the_svd(d_out: int, ranks: int, d_in: int, k: int, seed: int) -> None:
    product = some(seed, d_out, ranks, d_in)
    best = product.best(k)
    assert best.b.shape == (d_out, k)
    assert best.a.shape == (k, d_in)
    spectrum = torch.linalg.svdvals(product.dense())
    left = torch.linalg.norm(product.dense() - best.dense())
    torch.testing.assert_close(left, spectrum[k:].norm(), rtol=1e-9, atol=1e-9)
    # Singular values are on the side of B, falling; rows of A are orthonormal where there are any.
    lengths = best.b.norm(dim=0)
    torch.testing.assert_close(lengths[: len(spectrum)], spectrum[:k], rtol=1e-9, atol=1e-9)
    kept = min(k, ranks, d_in, d_out)
    gram = best.a[:kept] @ best.a[:kept].T
    torch.testing.assert_close(gram, torch.eye(kept, dtype=torch.float64), rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, st.integers(0, 1000))
def test_norm_is_that_of_the_matrix(d_out: int, ranks: int, d_in: int, seed: int) -> None:
    product = some(seed, d_out, ranks, d_in)
    assert product.norm() == pytest.approx(float(product.dense().norm()), rel=1e-9)


def test_sum_of_products() -> None:
    parts = [(0.5, some(1, 4, 2, 5)), (-2.0, some(2, 4, 3, 5)), (0.0, some(3, 4, 1, 5))]
    wanted = sum(w * part.dense() for w, part in parts)
    total = Product.sum(parts)
    assert total.rank == 6
    torch.testing.assert_close(total.dense(), wanted)


def test_what_cancels_has_no_norm() -> None:
    product = some(1, 4, 2, 5)
    assert Product.sum([(1.0, product), (-1.0, product)]).norm() < 1e-6
