"""Over-the-air aggregation: what the air makes of the sum of the updates.

Every device puts s_n = v_n delta_n on the ranks that it holds, zeros on the others, and the server
receives the sum of the signals sqrt(eta) s_n with noise of variance sigma^2 / (2 eta) per number;
see `wireless.analog`. The weight v_n already has the inverse of the probability that fading lets
the device send. Each of A, B and heads has an eta of its own, as large as everybody's mean power
allows: with d numbers in d/2 symbols, |s_n|^2 / (d/2) per symbol, the variance is

    max_n |s_n|^2 E[1/gamma; gamma >= g] / (snr_n d)

(own derivation). So the noise falls with the changes. To agree on eta, devices would send |s_n|
and hear the least eta, one scalar each way, which is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fslora.methods.base import Method, Slice, Update

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from fslora.lora import Adapter


@dataclass(frozen=True, slots=True)
class Air:
    """The channel that adds up the updates of a merge.

    Parameters
    ----------
    inverse_snr
        (M,) per device E[1/gamma; gamma >= g] / snr_n, the noise power per symbol over the largest
        mean power of what it sends.
    key
        Seed of the noise.
    """

    inverse_snr: Sequence[float]
    key: int

    def noise(
        self, adapter: Adapter, method: Method, updates: Sequence[Update], weight: Sequence[float]
    ) -> Update:
        """The noise in the sum, as one more update of weight one.

        The server knows which ranks somebody holds, and takes nothing from the others.

        Parameters
        ----------
        adapter
            Global state.
        method
            One whose merge is a sum of changes.
        updates, weight
            (M,) what is on the air, M > 0, and aggregation weights v_n.
        """
        import torch

        draws = torch.Generator().manual_seed(self.key)
        deviation = self.deviation(adapter, method, updates, weight)
        indices, real = held(updates, next(iter(adapter.a.values())).shape[0])
        delta_a, delta_b = {}, {}
        for layer, (name, a) in enumerate(adapter.a.items()):
            ranks = torch.from_numpy(indices[layer]).to(a.device)
            mask = torch.from_numpy(real[layer]).to(a.device)
            of_a = _normal(a, draws)[ranks] * deviation.get("a", 0.0)
            of_b = _normal(adapter.b[name], draws)[:, ranks] * deviation.get("b", 0.0)
            delta_a[name] = of_a.masked_fill(~mask.unsqueeze(1), 0.0)
            delta_b[name] = of_b.masked_fill(~mask, 0.0)
        heads = {
            name: _normal(value, draws) * deviation.get("head", 0.0)
            for name, value in adapter.head.items()
        }
        piece = Slice(indices, 1.0, updates[0].slice.frozen)
        return Update(-1, piece, delta_a, delta_b, heads, 0.0)

    def deviation(
        self, adapter: Adapter, method: Method, updates: Sequence[Update], weight: Sequence[float]
    ) -> dict[str, float]:
        """Standard deviation of the noise in each number of `a`, `b` and `head`, as far as sent."""
        found = {}
        for part, value in (("a", adapter.a), ("b", adapter.b), ("head", adapter.head)):
            numbers = sum(each.numel() for each in value.values())
            if not numbers or part in (*method.personal, updates[0].slice.frozen):
                continue
            energy = (
                square * inverse / numbers
                for square, inverse in zip(
                    _squares(part, updates, weight), self.inverse_snr, strict=True
                )
            )
            found[part] = math.sqrt(max(energy))
        return found


def held(updates: Sequence[Update], rank: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ranks that somebody holds, (layers, K), and which of them are no repetitions.

    Where a layer has fewer than others, its first one is repeated.
    """
    layers = len(updates[0].slice.indices)
    somebody = np.zeros((layers, rank), dtype=np.bool_)
    for update in updates:
        np.put_along_axis(somebody, update.slice.indices, values=True, axis=1)
    count = somebody.sum(axis=1)
    # Those that are held come first, in their order.
    order = np.argsort(~somebody, axis=1, kind="stable")[:, : count.max()]
    real = np.arange(count.max()) < count[:, None]
    return np.where(real, order, order[:, :1]).astype(np.int64), real


def _squares(part: str, updates: Sequence[Update], weight: Sequence[float]) -> list[float]:
    """|s_n|^2 of a part of every device, (M,)."""
    squares = []
    for update, v in zip(updates, weight, strict=True):
        changes: Mapping[str, Tensor] = {
            "a": update.delta_a,
            "b": update.delta_b,
            "head": update.delta_head,
        }[part]
        factor = v if part == "head" else v * update.factor_gain
        total = sum(float(change.double().square().sum()) for change in changes.values())
        squares.append(factor**2 * total)
    return squares


def _normal(like: Tensor, draws: Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape, the same for every number format."""
    import torch

    return torch.randn(like.shape, generator=draws, dtype=torch.float64).to(like)
