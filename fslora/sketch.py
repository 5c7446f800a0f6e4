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

#: Share of a rank's chance of being drawn that does not depend on its norm.
UNIFORM = 0.2

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


def rolling_indices(
    round_index: int, layers: int, rank: int, sketch_rank: int
) -> NDArray[np.int64]:
    """A window of ranks that moves on by one every round, the same for all (arXiv 2212.01548).

    Over r rounds every rank is in it k times.

    Parameters
    ----------
    round_index
        1, 2, ...
    layers, rank, sketch_rank
        Number of layers, r, and k <= r.

    Returns
    -------
    array (layers, k)
        Ascending indices.
    """
    window = np.sort((round_index - 1 + np.arange(sketch_rank)) % rank)
    return np.tile(window, (layers, 1))


def rank_norms(adapter: Adapter) -> NDArray[np.float64]:
    """Norms |b_j| |a_j| of what each rank adds to the product, (layers, r)."""
    norms = [
        (adapter.b[name].norm(dim=0) * a.norm(dim=1)).double().cpu().numpy()
        for name, a in adapter.a.items()
    ]
    return np.array(norms)


def top_indices(norms: NDArray[np.float64], sketch_rank: int) -> NDArray[np.int64]:
    """The k ranks of largest norm per layer, ascending; of equal ones the first."""
    order = np.argsort(-norms, axis=1, kind="stable")
    return np.sort(order[:, :sketch_rank], axis=1)


def inclusion(norms: NDArray[np.float64], sketch_rank: int) -> NDArray[np.float64]:
    """Chances (layers, r) of being among k ranks, in proportion to their norms as far as they can.

    A share `UNIFORM` of each chance is k/r for all, so that none is too small; the rest is in
    proportion to the norms, and at most 1. They add up to k. In proportion to the norms they
    make the variance of the sketched product least but for what different ranks have in common
    (own derivation).
    """
    rank = norms.shape[1]
    # A layer without norms is drawn from evenly.
    size = np.where(norms.sum(1, keepdims=True) > 0, norms, 1.0)
    certain = np.zeros_like(size, dtype=np.bool_)
    while True:
        rest = np.where(certain, 0.0, size)
        mass = rest.sum(1, keepdims=True)
        # Where all that are left have no norm, they share evenly.
        rest = np.where(mass > 0, rest, ~certain)
        mass = np.maximum(rest.sum(1, keepdims=True), np.finfo(np.float64).tiny)
        chance = rest / mass * (sketch_rank - certain.sum(1, keepdims=True))
        over = ~certain & (chance >= 1.0)
        if not over.any():
            break
        certain |= over
    chance = np.where(certain, 1.0, chance)
    return np.asarray(UNIFORM * sketch_rank / rank + (1 - UNIFORM) * chance)


def draw_unequal(key: int, chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw k ranks per layer with given chances that add up to k: systematic sampling.

    The ranks lie on a line in random order, each as long as its chance; those are taken that meet
    u, u + 1, ... for a uniform u (Madow, "On the theory of systematic sampling, II", Annals of
    Mathematical Statistics 20, 1949).

    Parameters
    ----------
    key
        Seed of this device and dispatch.
    chance
        (layers, r).

    Returns
    -------
    array (layers, k)
        Ascending indices.
    """
    draws = np.random.default_rng(key)
    count = round(float(chance[0].sum()))
    chosen = np.empty((len(chance), count), dtype=np.int64)
    for layer, row in enumerate(chance):
        order = draws.permutation(len(row))
        ends = np.cumsum(row[order])
        # The last end is k but for a rounding.
        ends[-1] = count
        chosen[layer] = np.sort(order[np.searchsorted(ends, draws.random() + np.arange(count))])
    return chosen


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


def add_holder_means(adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
    """Add the mean change of each rank over those who hold it, with the weight of everybody.

    X_j <- X_j + (sum_n v_n) sum_{n holds j} v_n dX_nj / sum_{n holds j} v_n, in place; a rank that
    nobody holds keeps its bits. Heads as in `add_heads`.
    """
    import torch

    total = sum(weight)
    for layer, name in enumerate(adapter.a):
        held = torch.zeros(len(adapter.a[name]), dtype=torch.float64)
        for update, v in zip(updates, weight, strict=True):
            held[update.slice.indices[layer]] += v
        # Ranks without holders are divided by nothing, as nothing is added to them.
        factor = (total / torch.where(held > 0, held, 1.0)).to(adapter.a[name])
        for update, v in zip(updates, weight, strict=True):
            own = factor[update.slice.indices[layer]]
            scatter_add(
                adapter.a[name],
                adapter.b[name],
                update.slice.indices[layer],
                update.delta_a[name] * own.unsqueeze(1),
                update.delta_b[name] * own,
                v * update.factor_gain,
            )
    add_heads(adapter, updates, weight)


def add_heads(adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
    """Add sum of v_n delta_n to the heads, in place."""
    for update, v in zip(updates, weight, strict=True):
        for name, delta in update.delta_head.items():
            adapter.head[name].add_(delta, alpha=v)
