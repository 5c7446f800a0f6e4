"""Sketches of the global factors: which ranks a device gets, cut out and added back.

With S = (r/k) sum_{j in I} e_j e_j^T, a device computes s B S A x (FSLoRA, arXiv 2501.19389). It
needs only the k rows A_I and columns B_I and the gain r/k, so the matrices here are true
submatrices: nothing is masked and nothing of full rank is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from fslora.lora import Adapter
    from fslora.methods.base import Update


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


def pad_indices(indices: Sequence[NDArray[np.int64]], width: int) -> tuple[Tensor, Tensor]:
    """Bring the index sets of M devices to one width.

    Parameters
    ----------
    indices
        Per device (layers, k_m).
    width
        k_max.

    Returns
    -------
    tuple of tensors
        Indices (layers, M, k_max), zero where a device has no more ranks, and a boolean mask
        (M, k_max) of where it has.
    """
    import torch

    layers = len(indices[0])
    padded = np.zeros((layers, len(indices), width), dtype=np.int64)
    real = np.zeros((len(indices), width), dtype=bool)
    for device, index in enumerate(indices):
        padded[:, device, : index.shape[1]] = index
        real[device, : index.shape[1]] = True
    return torch.from_numpy(padded), torch.from_numpy(real)


def cut_stack(a: Tensor, b: Tensor, index: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Cut one layer's submatrices for M devices, zero where `real` is not set.

    Padding stays zero through training: where a row of A and the column of B are both zero, both
    gradients vanish.

    Parameters
    ----------
    a, b
        (r, d_in) and (d_out, r).
    index, real
        (M, k_max) ranks each device gets, and which of them it does get.

    Returns
    -------
    tuple of tensors
        (M, k_max, d_in) and (M, d_out, k_max).
    """
    rows, columns = a[index], b[:, index].transpose(0, 1)
    return (
        rows.masked_fill(~real.unsqueeze(2), 0.0),
        columns.masked_fill(~real.unsqueeze(1), 0.0),
    )


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
    import torch

    ranks = torch.from_numpy(index).to(a.device)
    a.index_add_(0, ranks, delta_a, alpha=weight)
    b.index_add_(1, ranks, delta_b, alpha=weight)


def add_changes(adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
    """Add sum of v_n delta_n to the ranks and heads that the changes belong to, in place."""
    for update, v in zip(updates, weight, strict=True):
        for layer, name in enumerate(adapter.a):
            scatter_add(
                adapter.a[name],
                adapter.b[name],
                update.slice.indices[layer],
                update.delta_a[name],
                update.delta_b[name],
                v * update.factor_gain,
            )
    add_heads(adapter, updates, weight)


def add_heads(adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
    """Add sum of v_n delta_n to the heads, in place."""
    for update, v in zip(updates, weight, strict=True):
        for name, delta in update.delta_head.items():
            adapter.head[name].add_(delta, alpha=v)
