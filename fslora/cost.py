"""What one device's round costs, as a function of its rank: traffic, arithmetic, memory.

Of a model that is cut, the device's costs are those of its part; what its local steps exchange with
the server, and the server's arithmetic, come on top, by the tokens of the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Any, Self

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import ArrayLike, NDArray

_MEMORY = ("frozen_bytes", "training_bytes_fixed", "training_bytes_per_rank")


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """What the local steps of M jobs exchange with a server that holds a part of the model.

    Parameters
    ----------
    up_bits, down_bits
        (M,) activations and labels that are sent, and gradients that come back.
    flops
        (M,) floating-point operations of the server.
    """

    up_bits: NDArray[np.float64]
    down_bits: NDArray[np.float64]
    flops: NDArray[np.float64]


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
    exchange_up_bits, exchange_down_bits
        Bits that go up and down where the model is cut, each time an example is trained on:
        coefficients of 1 and L; empty where it is not cut.
    server_flops_fixed, server_flops_per_rank
        Floating-point operations of the server's part, as `flops_fixed` and `flops_per_rank`.
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
    exchange_up_bits: tuple[float, ...] = ()
    exchange_down_bits: tuple[float, ...] = ()
    server_flops_fixed: tuple[float, ...] = ()
    server_flops_per_rank: tuple[float, ...] = ()

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

    def holding(self, rank: int, still: Sequence[Self] = ()) -> Self:
        """The same for devices that are sent and compute with `rank` ranks, whatever k is.

        Parameters
        ----------
        rank
            r.
        still
            Costs without the gradient of A, and without that of B, if a device has neither for
            ranks that are not among its k: of these it is spared both savings. Empty if it trains
            all ranks.
        """
        held_flops = np.array(self.flops_per_rank)
        held_bytes = self.training_bytes_per_rank
        for each in still:
            held_flops += np.array(each.flops_per_rank) - self.flops_per_rank
            held_bytes += each.training_bytes_per_rank - self.training_bytes_per_rank
        fixed = zip_longest(self.flops_fixed, held_flops.tolist(), fillvalue=0.0)
        return replace(
            self,
            download_bits_fixed=float(self.download_bits(rank)),
            download_bits_per_rank=0.0,
            flops_fixed=tuple(each + rank * more for each, more in fixed),
            flops_per_rank=tuple((np.array(self.flops_per_rank) - held_flops).tolist()),
            training_bytes_fixed=self.training_bytes_fixed + rank * held_bytes,
            training_bytes_per_rank=self.training_bytes_per_rank - held_bytes,
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
        return _line(self.flops_fixed, self.flops_per_rank, rank, powers)

    def exchange(self, rank: ArrayLike, powers: NDArray[np.float64]) -> Exchange:
        """What training on several examples exchanges with the server, given the same sums."""
        return Exchange(
            _total(self.exchange_up_bits, powers),
            _total(self.exchange_down_bits, powers),
            _line(self.server_flops_fixed, self.server_flops_per_rank, rank, powers),
        )

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


def _total(coefficients: Sequence[float], powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Value (...) of a polynomial, summed, by the sums (3, ...) of 1, L and L^2."""
    total = np.zeros(powers.shape[1:])
    for each, power in zip(coefficients, powers, strict=False):
        total = total + each * power
    return total


def _line(
    fixed: Sequence[float],
    per_rank: Sequence[float],
    rank: ArrayLike,
    powers: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The same of a polynomial whose coefficients are lines in the rank."""
    return np.asarray(_total(fixed, powers) + np.asarray(rank) * _total(per_rank, powers))
