"""The examples that a cohort trains on, as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fslora.data.dataset import Examples


@dataclass(frozen=True, slots=True)
class Batches:
    """Data of M devices, most steps first.

    Parameters
    ----------
    tokens
        (M, H, b, L): H is the largest number of steps, b the largest batch.
    length, prompt, label
        (M, H, b): tokens that are not padding, leading tokens that are not predicted, class. An
        example that a device does not have is of length 0.
    steps
        (M,) steps of each device, descending.
    """

    tokens: Tensor
    length: Tensor
    prompt: Tensor
    label: Tensor
    steps: NDArray[np.int64]

    @classmethod
    def gather(cls, examples: Examples, rows: Sequence[NDArray[np.int64]]) -> Batches:
        """Pick the examples `rows[m]`, (H_m, b_m), of each device m.

        Raises
        ------
        ValueError
            If a device has more steps than the one before it.
        """
        steps = np.array([len(row) for row in rows])
        if (np.diff(steps) > 0).any():
            raise ValueError("devices must come with falling numbers of steps")
        shape = (len(rows), int(steps[0]), max(row.shape[1] for row in rows))
        chosen = np.zeros(shape, dtype=np.int64)
        real = np.zeros(shape, dtype=bool)
        for device, row in enumerate(rows):
            chosen[device, : row.shape[0], : row.shape[1]] = row
            real[device, : row.shape[0], : row.shape[1]] = True
        return cls(
            torch.from_numpy(examples.tokens[chosen]),
            torch.from_numpy(examples.length[chosen] * real),
            torch.from_numpy(examples.prompt[chosen]),
            torch.from_numpy(examples.label[chosen]),
            steps,
        )
