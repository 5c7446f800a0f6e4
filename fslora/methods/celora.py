"""CE-LoRA: personal factors around a small core, of which devices get means (arXiv 2503.23869).

A layer computes W x + s B C A x with a core C, (r, r). Device n keeps A_n and B_n, starts a round
from a mean of the cores that is its own, trains all three, and sends its core C_n. The server keeps
each core as it came last and sends device n

    Cbar_n = sum_j w_nj C_j,  w_nj = p_j u_nj / sum_i p_i u_ni

over the devices whose core it has, n among them; p_j is in proportion to their training examples.

    `similarity: model`:  u_nj = max(0, cos(C_n - I, C_j - I)), over all layers; 1 if a norm is 0
    `similarity: none`:   u_nj = 1

u_nn is 1, so w_nn > 0: with nobody alike, a device goes on from its own core. Who has not trained
yet has the common first A, B = 0 and C = I, and weighs in no mean.

Per layer r^2 numbers go up and r^2 down, to every device others: there is no broadcast. A device
stores r (d_in + d_out). What it computes with is s B_n Cbar_n A_n; there is no global model, so
evaluations are means over devices' own. Heads are averaged with the policy's weights v_n, unbiased
under independent sampling. The cores' means are not: their weights are normalised over whoever has
trained, whatever v_n says, so devices that are sampled often are known sooner and more recently.

A_n and B_n are aligned by nothing: with any invertible R and S, (B R^-1) (R C S) (S^-1 A) is the
same function, so a mean of cores makes sense as far as factors stay near their common start.

In the first step at B = 0 only B moves. On a device C A is formed once per local step, 6 r^2 d_in
operations with the gradients, which count in the compute time. The server's time counts weights and
means among the devices of a merge, not the cores that it knows beside.

Departures from the paper, of which the abstract could be read (only C is sent; means by similarity
of data and of models) and the authors' code of devices (the factors, their start, all three are
trained), but neither the method section nor code of the server: the weights w_nj are ours, and
similarity of data, from a summary that devices send once, is left out. Heads are averaged and layer
norms frozen, where the code trains both. A starts as usual, uniform in +-1/sqrt(d_in), in place of
N(0, 10^-6), with which SGD would hardly move. The first download counts like any other, though what
it holds is the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from fslora.lora import Layout, is_core
from fslora.methods.base import GlobalState, Method, Part, Update
from fslora.sketch import add_heads

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CELoRA(Method):
    """Cores averaged for each device, factors personal.

    Parameters
    ----------
    similarity
        `model` or `none`, as above.
    """

    similarity: Literal["model", "none"] = "model"
    name: ClassVar[str] = "ce-lora"
    up: ClassVar[str] = "r * r"
    down: ClassVar[str] = "r * r"
    additive: ClassVar[bool] = False
    personal: ClassVar[tuple[Part, ...]] = ("a", "b")
    core: ClassVar[bool] = True
    unicast: ClassVar[bool] = True

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank

    def begin(self, devices: Sequence[int], state: GlobalState) -> list[Mapping[str, Tensor]]:
        """Factors as a device left them, and the mean of the cores that is its own."""
        import torch

        kept = state.own
        if not any(device in kept for device in devices):
            return [{} for _ in devices]
        known = sorted(kept)
        names = [name for name in kept[known[0]] if is_core(name)]
        cores = {n: torch.stack([kept[j][n] for j in known]).double() for n in names}
        count = torch.from_numpy(state.samples[known]).to(cores[names[0]])
        change = torch.cat([(c - _identity(c)).flatten(1) for c in cores.values()], dim=1)
        starts: list[Mapping[str, Tensor]] = []
        for device in devices:
            if device not in kept:
                starts.append({})
                continue
            weight = self.shares(known.index(device), change, count)
            means = {
                name: torch.einsum("j,jab->ab", weight, core).to(kept[device][name])
                for name, core in cores.items()
            }
            starts.append({**kept[device], **means})
        return starts

    def shares(self, place: int, change: Tensor, count: Tensor) -> Tensor:
        """Weights w_nj (K,) of the cores of K devices for one of them.

        Parameters
        ----------
        place
            Row of device n.
        change
            (K, P) C_j - I of all layers.
        count
            (K,) training examples.
        """
        alike = count.new_ones(len(count))
        if self.similarity == "model":
            norm = change.norm(dim=1)
            norms = norm * norm[place]
            cosine = change @ change[place] / norms
            alike = alike.where(norms == 0, cosine.clamp(min=0.0))
            alike[place] = 1.0
        weight = count * alike
        return weight / weight.sum()

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average the heads; cores are kept device by device."""
        heads = [
            replace(u, delta_head={n: d for n, d in u.delta_head.items() if not is_core(n)})
            for u in updates
        ]
        add_heads(state.adapter, heads, weight)

    def penalty_flops(self, layout: Layout, rank: int) -> float:
        """C A and its gradients."""
        return 6.0 * rank**2 * sum(d_in for d_in, _ in layout.layers.values())

    def vectors_up(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """No ranks of the factors."""
        return ()

    def vectors_down(self, d_in: int, d_out: int, phase: int) -> Sequence[int]:  # noqa: ARG002
        """No ranks of the factors."""
        return ()

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """Cosines and means between any two of the merged, and the mean of the heads."""
        pairs = 4.0 * len(ranks) ** 2 * len(layout.layers) * rank**2
        return pairs + 2.0 * len(ranks) * layout.head_numbers


def _identity(cores: Tensor) -> Tensor:
    """The identity for cores (K, r, r)."""
    import torch

    return torch.eye(cores.shape[1], dtype=cores.dtype, device=cores.device)
