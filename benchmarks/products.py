"""How fast a sum of products is cut to r ranks: by its factors, against the matrix itself.

    python -m benchmarks.products

Seconds are medians of several, on one thread; the error is that of the product, in Frobenius norm
relative to the exact cut.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from fslora.products import Product

#: d, r and the number of devices, each of r ranks.
SIZES = ((256, 16, 10), (1024, 16, 10), (1024, 16, 60), (4096, 16, 10))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median of several."""
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def cut_matrix(product: Product, rank: int) -> torch.Tensor:
    """The nearest matrix of a rank by an SVD of the matrix itself."""
    u, s, vt = torch.linalg.svd(product.dense(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def main() -> None:
    """Print a row per size."""
    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(1)
    for d, r, devices in SIZES:
        parts = [
            (
                1 / devices,
                Product(torch.randn(d, r, generator=draws), torch.randn(r, d, generator=draws)),
            )
            for _ in range(devices + 1)
        ]
        stack = Product.sum(parts)

        by_factors = seconds(partial(stack.best, r), 5)
        by_matrix = seconds(partial(cut_matrix, stack, r), 1 if d > 2000 else 5)
        exact = cut_matrix(stack, r)
        error = float((stack.best(r).dense() - exact).norm() / exact.norm())
        print(
            f"d = {d}, r = {r}, {devices} devices: {1e3 * by_factors:.1f} ms by factors, "
            f"{1e3 * by_matrix:.0f} ms by the matrix, {by_matrix / by_factors:.0f} times; "
            f"difference {error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
