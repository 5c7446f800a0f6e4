"""What a federated-LoRA method decides, and the values it works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fslora.lora import Adapter, Layout

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Job:
    """One device's share of one round.

    Parameters
    ----------
    device
        Device number.
    rank
        Rank k of its sketch.
    key
        Seed of this device and dispatch; index sets, data order and dropout follow from it.
    round
        Round it was dispatched in, from 1, which the learning rate may follow.
    """

    device: int
    rank: int
    key: int
    round: int = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """What of the global state a device gets.

    Parameters
    ----------
    indices
        (layers, k) ranks it gets per layer.
    gain
        Factor on s: r/k for an unbiased sketch.
    """

    indices: NDArray[np.int64]
    gain: float


@dataclass(frozen=True, slots=True)
class Update:
    """What a device sends back.

    Parameters
    ----------
    device, slice
        Who sends, and for which ranks.
    delta_a, delta_b
        Per layer the change of A_I, (k, d_in), and of B_I, (d_out, k).
    delta_head
        Per head parameter its change.
    loss
        Mean loss over the local steps, in nats.
    factor_gain
        What the server multiplies `delta_a` and `delta_b` by: the inverse of the factor on the
        device's steps, see `LocalTraining.step_factor`.
    """

    device: int
    slice: Slice
    delta_a: dict[str, Tensor]
    delta_b: dict[str, Tensor]
    delta_head: dict[str, Tensor]
    loss: float
    factor_gain: float = 1.0


class Method(Protocol):
    """A way to cut, train and merge adapters."""

    @property
    def name(self) -> str:
        """Name in scenarios."""

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Whether a device may train `sketch_rank` of `rank` ranks."""

    def slice(self, job: Job, layout: Layout, rank: int) -> Slice:
        """Ranks that the job's device gets."""

    def merge(self, adapter: Adapter, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Fold the updates with aggregation weights v_n into the global state, in place."""

    def numbers_up(self, layout: Layout, sketch_rank: int) -> int:
        """Numbers that a device uploads."""

    def numbers_down(self, layout: Layout, rank: int) -> int:
        """Numbers that the server broadcasts."""
