"""How long the examples are that devices train on: all of the data that their arithmetic needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fslora.data.partition import Shards
from fslora.order import shuffled_passes


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths L of the examples of N devices.

    Parameters
    ----------
    samples
        (N,) examples that each device holds.
    powers
        (3, N) sums of 1, L and L^2 over them.
    unlike
        Lengths of the examples of those devices whose examples are not all of one length.
    """

    samples: NDArray[np.int64]
    powers: NDArray[np.float64]
    unlike: Mapping[int, NDArray[np.int64]]

    @classmethod
    def equal(cls, samples: NDArray[np.int64], length: int) -> Self:
        """Every example is `length` tokens long."""
        return cls(samples, np.multiply.outer([1.0, length, length**2], samples), {})

    @classmethod
    def of(cls, length: NDArray[np.int64], shards: Shards) -> Self:
        """Device n holds examples `shards[n]`, at least one, of the `length` of all."""
        samples = np.array([len(shard) for shard in shards], dtype=np.int64)
        first = np.cumsum(samples) - samples
        held = length[np.concatenate(shards)]
        powers = [np.add.reduceat(held.astype(np.float64) ** p, first) for p in range(3)]
        differ = np.minimum.reduceat(held, first) < np.maximum.reduceat(held, first)
        unlike = {n: length[shards[n]] for n in np.flatnonzero(differ).tolist()}
        return cls(samples, np.array(powers), unlike)

    def drawn(
        self, device: NDArray[np.int64], key: NDArray[np.int64], count: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Sums (3, M) of 1, L and L^2 over the examples that jobs train on.

        Parameters
        ----------
        device, key
            (M,) whose job it is, and the seed of this device and dispatch.
        count
            (M,) examples that it trains on, as often as it trains on them: H b.
        """
        samples, powers = self.samples[device], self.powers[:, device]
        # Whole passes see every example, whatever is drawn; the rest matters where lengths differ.
        passes, left = np.divmod(count, samples)
        rest = powers / samples * left
        for m in np.flatnonzero(left) if self.unlike else ():
            own = self.unlike.get(int(device[m]))
            if own is not None:
                *_, last = shuffled_passes(own, int(key[m]), int(count[m]))
                rest[:, m] = len(last), last.sum(), (last * last).sum()
        return np.asarray(powers * passes + rest)
