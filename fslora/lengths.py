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
        differ = np.minimum.reduceat(held, first) < np.maximum.reduceat(held, first)
        unlike = {n: length[shards[n]] for n in np.flatnonzero(differ).tolist()}
        return cls(samples, _powers(held, first), unlike)

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
        if not self.unlike:
            return np.asarray(powers * passes + rest)
        jobs = [m for m in np.flatnonzero(left).tolist() if int(device[m]) in self.unlike]
        if jobs:
            last = [
                _last_pass(self.unlike[int(device[m])], int(key[m]), int(count[m])) for m in jobs
            ]
            rest[:, jobs] = _powers(np.concatenate(last), np.cumsum(left[jobs]) - left[jobs])
        return np.asarray(powers * passes + rest)


def _last_pass(own: NDArray[np.int64], key: int, count: int) -> NDArray[np.int64]:
    *_, last = shuffled_passes(own, key, count)
    return last


def _powers(length: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums (3, ...) of 1, L and L^2 over stretches that begin at places `first`."""
    each = length.astype(np.float64)
    return np.array([np.add.reduceat(each**power, first) for power in range(3)])
