"""LoRA dropout whose masks are a function of who trains, not of who trains beside it.

A mask comes from a counter-based hash of (device and dispatch, step, layer, example, token,
feature), so a device drops the same numbers alone, in any stack, and under any padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout on the input of the adapted layers, for one step.

    Parameters
    ----------
    probability
        Share of numbers set to zero, in [0, 1).
    key
        (M,) integers below 2**32, one per device and step, as `dropout_keys` gives them.
    """

    probability: float
    key: Tensor

    def mask(self, layer: int, samples: int, width: int, features: int) -> Tensor:
        """Factors, 0 or 1/(1 - p), for one layer: (M, samples, width, features) in float32."""
        device = self.key.device
        token = torch.arange(samples, device=device).unsqueeze(1) * 65_536 + torch.arange(
            width, device=device
        )
        place = _mix(_mix(self.key + layer).view(-1, 1, 1) ^ token)
        feature = torch.arange(features, device=device) * 0x9E3779B1 & _LOW_32
        drawn = _mix(place.unsqueeze(-1) ^ feature)
        kept = drawn >= int(self.probability * 2**32)
        return kept.float() / (1 - self.probability)


def dropout_keys(keys: Sequence[int], steps: int) -> Tensor:
    """One key per device and step, (M, H), from the devices' job keys."""
    draws = [np.random.default_rng((key, 2)).integers(2**32, size=steps) for key in keys]
    return torch.from_numpy(np.array(draws, dtype=np.int64))


def _mix(x: Tensor) -> Tensor:
    """The 32-bit integer hash lowbias32, in 64-bit arithmetic, which cannot overflow its sign."""
    x = x & _LOW_32
    x = (x ^ (x >> 16)) * 0x7FEB352D & _LOW_32
    x = (x ^ (x >> 15)) * 0x846CA68B & _LOW_32
    return x ^ (x >> 16)
