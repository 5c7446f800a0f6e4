"""Uploads of fewer bits: the largest changes only, rounded to few levels.

The changes of one rank of one factor, a row of A or a column of B, are a vector of d numbers.
Sparsified, its m = ceil(keep d) largest in size are sent with their places; rounded, each x becomes
one of the 2^b - 1 numbers i S / L, |i| <= L = 2^(b-1) - 1, with S the largest size in the vector,
up or down at random so that the mean is x (QSGD, arXiv 1610.02132, with the largest size in place
of the norm). Rounding is therefore unbiased, sparsifying is not. The rows of a core are such
vectors too. Heads are sent as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fslora.lora import Layout, is_core
from fslora.methods.base import Method, Part, Update

if TYPE_CHECKING:
    from torch import Generator, Tensor

#: Bits of the scale that goes with the rounded numbers of a vector.
_SCALE_BITS = 32


@dataclass(frozen=True, slots=True)
class Compression:
    """How uploads are made smaller.

    Parameters
    ----------
    keep
        Share of each vector that is sent, in (0, 1].
    value_bits
        Bits per number; None to leave the numbers as they are.
    """

    keep: float = 1.0
    value_bits: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether uploads are left alone."""
        return self.keep == 1.0 and self.value_bits is None

    def kept(self, length: int) -> int:
        """How many numbers of a vector are sent."""
        # A product just above a whole number by rounding is that number.
        return min(length, math.ceil(self.keep * length * (1 - 1e-12)))

    def vector_bits(self, length: int, number_bits: int) -> int:
        """Bits of a vector of so many numbers.

        Parameters
        ----------
        length
            d.
        number_bits
            Bits of a number that is not rounded further.
        """
        each = number_bits if self.value_bits is None else self.value_bits
        if self.keep < 1.0:
            each += max(1, math.ceil(math.log2(length)))
        scale = 0 if self.value_bits is None else _SCALE_BITS
        return self.kept(length) * each + scale

    def upload_bits(
        self, method: Method, layout: Layout, sketch_rank: int, phase: int, number_bits: int
    ) -> int:
        """Bits that a device of some rank uploads in a phase of a method, all included."""
        per_rank = sum(
            self.vector_bits(length, number_bits)
            for dims in layout.layers.values()
            for length in method.vectors_up(*dims, phase)
        )
        cores = 0
        if layout.core:
            cores = len(layout.layers) * layout.core * self.vector_bits(layout.core, number_bits)
        return sketch_rank * per_rank + layout.head_numbers * number_bits + cores

    def compress(self, update: Update, key: int, personal: Sequence[Part] = ()) -> Update:
        """What arrives of an update.

        Parameters
        ----------
        update
            What the device has.
        key
            Seed of its job.
        personal
            Factors that stay on the device as they are.
        """
        if self.nothing:
            return update
        import torch

        draws = torch.Generator().manual_seed(key)
        a, b = update.delta_a, update.delta_b
        if "a" not in personal:
            a = {name: self._rows(value, draws) for name, value in a.items()}
        if "b" not in personal:
            b = {name: self._rows(value.T, draws).T for name, value in b.items()}
        head = {
            name: self._rows(value, draws) if is_core(name) else value
            for name, value in update.delta_head.items()
        }
        return replace(update, delta_a=a, delta_b=b, delta_head=head)

    def _rows(self, value: Tensor, draws: Generator) -> Tensor:
        """Each row as it arrives."""
        import torch

        count = self.kept(value.shape[1])
        if count < value.shape[1]:
            largest = value.abs().topk(count, dim=1).indices
            value = torch.zeros_like(value).scatter(1, largest, value.gather(1, largest))
        if self.value_bits is None:
            return value
        levels = 2 ** (self.value_bits - 1) - 1
        scale = value.abs().amax(1, keepdim=True)
        steps = torch.where(scale > 0, value / scale * levels, 0.0)
        luck = torch.rand(value.shape, generator=draws, dtype=torch.float64).to(value)
        rounded: Tensor = (steps + luck).floor().clamp(-levels, levels)
        arrived: Tensor = rounded / levels * scale
        return arrived


#: Everything is sent as it is.
WHOLE = Compression()


def compressed(
    updates: Sequence[Update],
    keys: Sequence[int],
    compression: Compression,
    personal: Sequence[Part],
) -> list[Update]:
    """What arrives of several updates; see `Compression.compress`."""
    return [compression.compress(u, key, personal) for u, key in zip(updates, keys, strict=True)]
