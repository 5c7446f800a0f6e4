"""What a federated-LoRA method decides, and the values it works on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fslora.lora import Adapter, Layout
from fslora.products import Product

if TYPE_CHECKING:
    from torch import Tensor

    from fslora.base_weights import BaseWeights
    from fslora.stacked import Stack

Part = Literal["a", "b"]
"""One of the two factors."""


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
    frozen
        Factor that it does not train, if any.
    gains
        (layers, k) factors on s of each rank, where they differ; their inverses are the chances of
        being chosen, which are k/r = 1/gain in the mean over the ranks.
    trained
        (layers, k) which of the ranks it trains, as many in every layer; it computes with the
        others as they are. None for all.
    """

    indices: NDArray[np.int64]
    gain: float
    frozen: Part | None = None
    gains: NDArray[np.float64] | None = None
    trained: NDArray[np.bool_] | None = None

    @property
    def rank_gain(self) -> NDArray[np.float64]:
        """Factors on s (layers, k)."""
        return np.full(self.indices.shape, self.gain) if self.gains is None else self.gains


@dataclass(frozen=True, slots=True)
class Update:
    """What a device sends back.

    Parameters
    ----------
    device, slice
        Who sends, and for which ranks.
    delta_a, delta_b
        Per layer the change of A_I, (k, d_in), and of B_I, (d_out, k); zero of a frozen factor.
    delta_head
        Per head parameter and core its change.
    loss
        Mean loss over the local steps, in nats.
    factor_gain
        What the server multiplies `delta_a` and `delta_b` by: the inverse of the factor on the
        device's steps, see `LocalTraining.step_factor`.
    rank_kept
        Ranks that the device trains at most from now on, if it has pruned itself.
    """

    device: int
    slice: Slice
    delta_a: dict[str, Tensor]
    delta_b: dict[str, Tensor]
    delta_head: dict[str, Tensor]
    loss: float
    factor_gain: float = 1.0
    rank_kept: int | None = None


@dataclass(frozen=True, slots=True)
class GlobalState:
    """What the server keeps and methods merge into.

    Parameters
    ----------
    adapter
        Global factors and heads.
    base
        Weights of the adapted layers.
    scale
        s: a layer computes W x + s B A x.
    seed, round
        Seed of the first factors, and number of the merge, for what a method draws.
    own
        What there is device by device: personal factors and cores of those that have trained, by
        the names of `named_tensors`.
    samples
        (N,) training examples of every device.
    """

    adapter: Adapter
    base: BaseWeights
    scale: float
    seed: int = 0
    round: int = 1
    own: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    samples: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def fresh_rows(self, name: str, count: int) -> Tensor:
        """So many rows of a layer's A, (count, d_in), drawn for this merge like the first ones."""
        import torch

        any_a = self.adapter.a[name]
        address = f"{self.seed}:{self.round}:{name}".encode()
        key = int.from_bytes(blake2b(address, digest_size=8).digest(), "little") >> 1
        draws = torch.Generator().manual_seed(key)
        uniform = torch.rand((count, any_a.shape[1]), generator=draws, dtype=torch.float64)
        return ((2 * uniform - 1) / math.sqrt(any_a.shape[1])).to(any_a)

    def cut(self, update: Update, layer: int, name: str) -> Product:
        """Factors B_I and A_I that a device started from, if the state is still that one."""
        import torch

        ranks = torch.from_numpy(update.slice.indices[layer]).to(self.adapter.a[name].device)
        return Product(self.adapter.b[name][:, ranks], self.adapter.a[name][ranks])

    def trained(self, update: Update, layer: int, name: str) -> Product:
        """Factors B_n and A_n that a device ended with, if it started from this state."""
        start = self.cut(update, layer, name)
        return Product(start.b + update.delta_b[name], start.a + update.delta_a[name])

    def change(self, update: Update, layer: int, name: str) -> Product:
        """B_n A_n - B_I A_I of a device that started from this state, of 2k ranks.

        As dB A_n + B_I dA, which does not cancel; of k ranks, if it started from B = 0.
        """
        start, end = self.cut(update, layer, name), self.trained(update, layer, name)
        first = Product(update.delta_b[name], end.a)
        if not start.b.any():
            return first
        return Product.sum([(1.0, first), (1.0, Product(start.b, update.delta_a[name]))])


class Method(ABC):
    """A way to cut, train and merge adapters; a file each.

    What is not said otherwise is that of averaged factors: a device of rank k gets the first k
    ranks as they are, trains both factors, and sends them back.

    Attributes
    ----------
    name
        Name in scenarios.
    up, down
        Numbers per layer that a device sends, and that it is sent, as expressions in the ranks r
        and k, d_in and d_out; `round` where they alternate.
    up_bits
        Bits per layer that go up beside them, to say which ranks they are of.
    merged
        Numbers per layer that a merge adds to every next download, once, in the sum K of the ranks
        merged.
    per_token
        Numbers per token of every local step that go up, and as many that come down, in the width
        d of the model where it is cut.
    additive
        Whether the merge adds a weighted sum of changes to the factors, so that any server
        optimizer and asynchronous schedules go with it.
    sums
        Whether the merge is nothing but that sum, on ranks that the server knows beforehand, so
        that it does not need to see one change by itself.
    holds_all
        Whether a device gets all r ranks and computes with them, and sends k of them: see `sent`.
    trains_all
        Whether it also trains them all, and not those alone that it sends.
    phases
        After how many rounds what is trained and sent repeats.
    personal
        Factors that stay on the device from round to round.
    merges_into_base
        Whether the frozen weights are changed.
    core
        Whether every layer has a core C, (r, r), between its factors. Devices start from one of
        their own, see `begin`, and the server keeps what each ended with.
    unicast
        Whether devices are sent different numbers, so that a broadcast would serve none.
    base_apart
        Whether the server alone has the changed weights: devices train on those that they began
        with, and are not sent the change.
    """

    name: ClassVar[str]
    up: ClassVar[str] = "k * (d_in + d_out)"
    up_bits: ClassVar[str] = "0"
    down: ClassVar[str] = "r * (d_in + d_out)"
    merged: ClassVar[str] = "0"
    per_token: ClassVar[str] = "0"
    additive: ClassVar[bool] = True
    sums: ClassVar[bool] = False
    holds_all: ClassVar[bool] = False
    trains_all: ClassVar[bool] = False
    phases: ClassVar[int] = 1
    personal: ClassVar[tuple[Part, ...]] = ()
    merges_into_base: ClassVar[bool] = False
    base_apart: ClassVar[bool] = False
    core: ClassVar[bool] = False
    unicast: ClassVar[bool] = False

    def kept(self, adapter: Adapter, counts: NDArray[np.int64]) -> dict[str, Tensor]:  # noqa: ARG002
        """What the server keeps beside the factors, as it is at the start: see `Adapter.kept`.

        Parameters
        ----------
        adapter
            The first factors and heads.
        counts
            (N, C) training examples of each class on each device; without classes (N, 1).
        """
        return {}

    @property
    def device_blocks(self) -> int | None:
        """How many of the model's first blocks devices hold; None for the whole model."""
        return None

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Whether a device may train `sketch_rank` of `rank` ranks."""
        return 1 <= sketch_rank <= rank

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:  # noqa: ARG002
        """What the job's device gets of the global factors, of r = `rank` ranks: the first k."""
        return first_ranks(len(adapter.a), job.rank)

    def frozen(self, phase: int) -> Part | None:  # noqa: ARG002
        """Factor that is not trained in the rounds of a phase, if any."""
        return None

    def begin(self, devices: Sequence[int], state: GlobalState) -> list[Mapping[str, Tensor]]:
        """What devices (M,) start from in the place of X, by the names of `named_tensors`.

        What there is of each.
        """
        return [state.own.get(device, {}) for device in devices]

    @abstractmethod
    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Fold the updates with aggregation weights v_n into the global state, in place."""

    def penalty(self, factors: Stack) -> Tensor | None:  # noqa: ARG002
        """What the method adds to the sum of the devices' losses, (); None if nothing."""
        return None

    def penalty_flops(self, layout: Layout, rank: int) -> float:  # noqa: ARG002
        """Floating-point operations that the method adds to a local step, gradients included."""
        return 0.0

    def held_ranks(self, rank: int, sketch_rank: int) -> int:
        """How many of r = `rank` ranks a device of rank k computes with."""
        return rank if self.holds_all else sketch_rank

    def sent(self, update: Update, sketch_rank: int, start: Adapter) -> Update:  # noqa: ARG002
        """What a device of rank k sends of what it holds, given what it had been sent."""
        return update

    def left(self, sketch_rank: int) -> int | None:  # noqa: ARG002
        """How many of k ranks a device keeps if it gives some up; None if none ever does."""
        return None

    # Traffic.

    def vectors_up(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Lengths of the vectors of a layer that a device sends for each rank it holds."""
        return d_in, d_out

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """Lengths of the vectors of a layer that are sent to devices for each rank."""
        return d_in, d_out

    def index_bits(self, rank: int) -> int:  # noqa: ARG002
        """Bits per layer that name a rank to the server; none where it knows what it gets."""
        return 0

    def numbers_up(self, layout: Layout, sketch_rank: int, phase: int = 0) -> int:
        """Numbers that a device uploads, heads and cores included."""
        per_rank = sum(sum(self.vectors_up(*dims, phase)) for dims in layout.layers.values())
        return sketch_rank * per_rank + layout.fixed_numbers

    def numbers_down(self, layout: Layout, rank: int, phase: int = 0) -> int:
        """Numbers that a device is sent, or all are by a broadcast, heads and cores included."""
        per_rank = sum(sum(self.vectors_down(*dims, phase)) for dims in layout.layers.values())
        return rank * per_rank + layout.fixed_numbers

    def merged_numbers(self, layout: Layout, rank: int, ranks: Sequence[int]) -> int:  # noqa: ARG002
        """Numbers that a merge of updates of some ranks adds to every next download, once."""
        return 0

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:  # noqa: ARG002
        """Floating-point operations of a merge of updates of some ranks."""
        return 2.0 * sum(layout.numbers(k) for k in ranks)


def of_ranks(update: Update, chosen: NDArray[np.int64]) -> Update:
    """An update of all r ranks, less all ranks but (layers, k) `chosen` ones."""
    import torch

    ranks = {
        name: torch.from_numpy(row).to(delta.device)
        for (name, delta), row in zip(update.delta_a.items(), chosen, strict=True)
    }
    return replace(
        update,
        slice=replace(update.slice, indices=chosen, trained=None),
        delta_a={name: delta[ranks[name]] for name, delta in update.delta_a.items()},
        delta_b={name: delta[:, ranks[name]] for name, delta in update.delta_b.items()},
    )


def first_ranks(layers: int, sketch_rank: int, frozen: Part | None = None) -> Slice:
    """The first k ranks of every layer, as they are."""
    return Slice(np.tile(np.arange(sketch_rank), (layers, 1)), 1.0, frozen)
