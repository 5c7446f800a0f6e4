"""What one device's round costs, as a function of its rank: traffic, arithmetic, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any, Self

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import ArrayLike, NDArray

_MEMORY = ("frozen_bytes", "training_bytes_fixed", "training_bytes_per_rank")


@dataclass(frozen=True, slots=True)
class AdapterCost:
    """Cost of training a rank-k sketch; every quantity is a line in k.

    Parameters
    ----------
    upload_bits_fixed, upload_bits_per_rank
        Bits one device uploads: fixed (heads) plus k times the other.
    download_bits_fixed, download_bits_per_rank
        Bits of a download, likewise: with the global rank of a broadcast, with a device's own of
        what it is sent alone.
    flops_fixed, flops_per_rank
        Floating-point operations that training on one example takes (a multiply-add counts two):
        coefficients of 1, L and L^2, and of 1 and L, where L is its length.
    frozen_bytes
        Memory of the frozen weights.
    training_bytes_fixed, training_bytes_per_rank
        Memory of the activations that one step of examples of full length saves, and of the
        adapter with its gradient and optimizer state.
    """

    upload_bits_fixed: float
    upload_bits_per_rank: float
    download_bits_fixed: float
    download_bits_per_rank: float
    flops_fixed: tuple[float, ...]
    flops_per_rank: tuple[float, ...]
    frozen_bytes: int
    training_bytes_fixed: int
    training_bytes_per_rank: int

    @classmethod
    def mean(cls, costs: Sequence[Self]) -> Self:
        """Mean over rounds that alternate between some costs; of memory the largest."""
        if len(costs) == 1:
            return costs[0]
        mean: dict[str, Any] = {}
        for field in fields(cls):
            values = np.array([getattr(each, field.name) for each in costs])
            if field.name in _MEMORY:
                mean[field.name] = values.max().item()
            else:
                value = values.mean(axis=0).tolist()
                mean[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**mean)

    def training_all(self, rank: int) -> Self:
        """The same for devices that are sent and train `rank` ranks, however many they send."""
        per_rank = zip_longest(self.flops_fixed, self.flops_per_rank, fillvalue=0.0)
        return replace(
            self,
            download_bits_fixed=float(self.download_bits(rank)),
            download_bits_per_rank=0.0,
            flops_fixed=tuple(fixed + rank * each for fixed, each in per_rank),
            flops_per_rank=(0.0,) * len(self.flops_per_rank),
            training_bytes_fixed=self.training_bytes(rank),
            training_bytes_per_rank=0,
        )

    def sending_all(self, rank: int, number_bits: int) -> Self:
        """The same for devices that send the numbers of all `rank` ranks two by two, zeros for
        those that they do not hold.
        """
        pairs = -(-self.upload_bits(rank) // (2 * number_bits))
        return replace(
            self, upload_bits_fixed=float(2 * number_bits * pairs), upload_bits_per_rank=0.0
        )

    def upload_bits(self, rank: ArrayLike) -> NDArray[np.float64]:
        """Upload in bits at the given ranks."""
        return self.upload_bits_fixed + np.asarray(rank) * float(self.upload_bits_per_rank)

    def download_bits(self, rank: ArrayLike) -> NDArray[np.float64]:
        """Download in bits at the given ranks."""
        return self.download_bits_fixed + np.asarray(rank) * float(self.download_bits_per_rank)

    def example_flops(self, rank: ArrayLike, length: ArrayLike) -> NDArray[np.float64]:
        """Floating-point operations of training on an example of `length` tokens, once."""
        fixed, per_rank = (
            polyval(np.asarray(length, dtype=np.float64), powers)
            for powers in (self.flops_fixed, self.flops_per_rank)
        )
        return np.asarray(fixed + np.asarray(rank) * per_rank)

    def flops(self, rank: ArrayLike, powers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for several examples, given the sums (3, ...) of 1, L and L^2 over them."""
        fixed, per_rank = (
            sum(each * power for each, power in zip(coefficients, powers, strict=False))
            for coefficients in (self.flops_fixed, self.flops_per_rank)
        )
        return np.asarray(fixed + np.asarray(rank) * per_rank)

    def training_bytes(self, rank: int) -> int:
        """Memory that one device's training takes beside the frozen weights."""
        return self.training_bytes_fixed + rank * self.training_bytes_per_rank

    def rank_cap(self, memory_bytes: ArrayLike, rank: int) -> NDArray[np.int64]:
        """Largest rank that fits into the memory, at most `rank`; 0 where not even 1 fits."""
        held = self.frozen_bytes + self.training_bytes_fixed
        spare = np.asarray(memory_bytes, dtype=np.float64) - held
        if self.training_bytes_per_rank == 0:
            return np.where(spare >= 0, rank, 0)
        fits = np.floor(spare / self.training_bytes_per_rank)
        return np.clip(fits, 0, rank).astype(np.int64)
