"""FedHL: the update is kept at full rank, devices train its best ranks (arXiv 2505.18494).

The server keeps a dense update W of every layer, in the scale of s B A. A device of rank k gets its
best k ranks T_k = B A of the SVD, B = U_k S_k and A = V_k^T, trains both factors beside the first
base, and sends them. The server moves W by what each device has changed of what it was sent,

    W <- W + sum_n w_n (B_n A_n - T_n),

so that nothing is lost by truncation: a device that learns nothing moves nothing. With w_n = v_n it
is unbiased under independent sampling. A device still takes its gradient at W_0 + s T_n, not at the
server's W_0 + s W; what this drift does to the mean is not corrected but weighed,

    `weights: fedhl`:  w_n = p_n sum_m v_m,  p_n ~ 1 / (e_n^2 + 10^-3),  e_n = |W - T_n|^2 / |W|^2,

norms being Frobenius and over all layers. These weights are normalised over the cohort and know
nothing of the data, so the mean is biased by both; at equal ranks they are uniform.

W is the adapter, its best r ranks, and what the base has been added beyond them, so that the global
model, which is evaluated, is dense. The truncations of all ranks are nested, since singular values
fall: a broadcast of r ranks serves every device, unicast sends k. Per layer k (d_in + d_out)
numbers go up, and r (d_in + d_out) down; what is beyond r ranks is sent to nobody. A direction that
W does not have yet, to rounding, is sent as a zero column of B and a row of A drawn as at the
start (own choice). In the first round devices get the factors that the run starts from.

Departures from the paper, of which only the abstract and others' code could be read: the weights
v_n are the default, so that methods share one objective; the paper's are taken from that code, but
with relative errors, as 1 / e^2 of absolute ones depends on the size of W; factors are split as
there, all singular values on the side of B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fslora.lora import Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.products import Product, nearest_flops
from fslora.sketch import add_heads

if TYPE_CHECKING:
    from torch import Tensor

#: Added to squared relative errors, so that who gets all of W does not take all the weight.
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class FedHL(Method):
    """A dense update, sent by its best ranks.

    Parameters
    ----------
    weights
        `data` for w_n = v_n, or `fedhl`, as above.
    """

    weights: Literal["data", "fedhl"] = "data"
    name: ClassVar[str] = "fedhl"
    additive: ClassVar[bool] = False
    merges_into_base: ClassVar[bool] = True
    base_apart: ClassVar[bool] = True

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Add the changes of the products, and cut the best r ranks anew."""
        if not updates:
            return
        adapter, share = state.adapter, self.shares(state, updates, weight)
        for layer, name in enumerate(adapter.a):
            held = Product(adapter.b[name], adapter.a[name])
            changes = [
                (w, state.change(u, layer, name)) for u, w in zip(updates, share, strict=True)
            ]
            moved = Product.sum([(1.0, held), *changes])
            best = Product.nearest(_beyond(state, name) + moved.dense(), held.rank)
            self._fill(state, name, best)
            state.base.add(name, Product.sum([(1.0, moved), (-1.0, best)]), state.scale)
            adapter.b[name].copy_(best.b)
            adapter.a[name].copy_(best.a)
        add_heads(adapter, updates, weight)

    def shares(
        self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]
    ) -> list[float]:
        """Weights w_n (M,), which add up to what the v_n do."""
        if self.weights == "data":
            return list(weight)
        size, left_out = 0.0, [0.0] * len(updates)
        for layer, name in enumerate(state.adapter.a):
            whole = Product(state.adapter.b[name], state.adapter.a[name]).dense()
            whole += _beyond(state, name)
            size += float(whole.square().sum())
            for n, update in enumerate(updates):
                sent = state.cut(update, layer, name).dense()
                left_out[n] += float((whole - sent).square().sum())
        inverse = [1.0 / ((error / size if size else 0.0) ** 2 + _FLOOR) for error in left_out]
        return [sum(weight) * each / sum(inverse) for each in inverse]

    @staticmethod
    def _fill(state: GlobalState, name: str, best: Product) -> None:
        """Let directions that are none, to rounding, begin afresh."""
        import torch

        length = best.b.norm(dim=0)
        rounding = torch.finfo(length.dtype).eps * max(len(best.b), best.a.shape[1])
        none = length <= rounding * length[0]
        best.b[:, none] = 0.0
        best.a[none] = state.fresh_rows(name, best.rank)[none]

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """The dense update, its SVD, and what is beyond; for the weights each truncation."""
        products = 3.0 * rank + 4.0 * sum(ranks)
        if self.weights == "fedhl":
            products += rank + sum(ranks)
        return sum(
            2.0 * products * d_in * d_out + nearest_flops(d_in, d_out)
            for d_in, d_out in layout.layers.values()
        )


def _beyond(state: GlobalState, name: str) -> Tensor:
    """What W has beyond the adapter, (d_out, d_in)."""
    return state.base.change(name).to(state.adapter.a[name].dtype) / state.scale
