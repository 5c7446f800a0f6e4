"""Sketches of the global factors: which ranks a device gets, cut out and added back.

With S = (r/k) sum_{j in I} e_j e_j^T, a device computes s B S A x (FSLoRA, arXiv 2501.19389). It
needs only the k rows A_I and columns B_I and the gain r/k, so the matrices here are true
submatrices: nothing is masked and nothing of full rank is copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def draw_indices(key: int, layers: int, rank: int, sketch_rank: int) -> NDArray[np.int64]:
    """Draw an index set per layer, uniform without replacement.

    The sets of one key grow with `sketch_rank`: the smaller is part of the larger, so plans that
    differ in rank face the same draws.

    Parameters
    ----------
    key
        Seed of this device and round.
    layers, rank, sketch_rank
        Number of layers, r, and k <= r.

    Returns
    -------
    array (layers, k)
        Ascending indices below r; A and B of a layer share its row.
    """
    order = np.random.default_rng(key).random((layers, rank)).argsort(axis=1)
    return np.sort(order[:, :sketch_rank], axis=1)


def cut_stack(a: Tensor, b: Tensor, indices: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Cut one layer's submatrices for M devices and pad them with zeros to the widest.

    Padding stays zero through training: where a row of A and the column of B are both zero, both
    gradients vanish.

    Parameters
    ----------
    a, b
        (r, d_in) and (d_out, r).
    indices
        Per device the ranks it gets, (k_m,).

    Returns
    -------
    tuple of tensors
        (M, k_max, d_in) and (M, d_out, k_max).
    """
    width = max(len(index) for index in indices)
    stack_a = a.new_zeros((len(indices), width, a.shape[1]))
    stack_b = b.new_zeros((len(indices), b.shape[0], width))
    for row_a, row_b, index in zip(stack_a, stack_b, indices, strict=True):
        ranks = torch.from_numpy(index).to(a.device)
        row_a[: len(index)] = a[ranks]
        row_b[:, : len(index)] = b[:, ranks]
    return stack_a, stack_b


def scatter_add(
    a: Tensor, b: Tensor, index: NDArray[np.int64], delta_a: Tensor, delta_b: Tensor, weight: float
) -> None:
    """Add a device's weighted change back into the rows of A and columns of B it came from.

    Parameters
    ----------
    a, b
        (r, d_in) and (d_out, r), changed in place; other ranks keep their bits.
    index
        (k,) ranks of the device.
    delta_a, delta_b
        (k, d_in) and (d_out, k).
    weight
        Aggregation weight v_n.
    """
    ranks = torch.from_numpy(index).to(a.device)
    a.index_add_(0, ranks, delta_a, alpha=weight)
    b.index_add_(1, ranks, delta_b, alpha=weight)
