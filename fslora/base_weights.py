"""Frozen weights of the adapted layers, into which some methods merge what devices have learnt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fslora.products import Product

if TYPE_CHECKING:
    from fslora.stacked import StackedModel


class BaseWeights:
    """Weights W of the adapted layers, changed in place.

    A weight of fewer than 32 bits would lose most of a small change: a copy in single precision is
    kept from the first change on, and the layer computes with its rounding.

    Parameters
    ----------
    model
        Whose layers they are.
    apart
        Whether the changed weights are a copy of the server's: layers compute with those that they
        began with, but for `merged`.
    """

    def __init__(self, model: StackedModel, apart: bool = False) -> None:
        self._model, self._apart = model, apart
        self._precise: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, layer: str, product: Product, factor: float) -> None:
        """Add factor B A to the weight of a layer."""
        precise = self._own(layer)
        b, a = product.b.to(precise.dtype), product.a.to(precise.dtype)
        if layer in self._model.layout.transposed:
            precise.addmm_(a.T, b.T, alpha=factor)
        else:
            precise.addmm_(b, a, alpha=factor)
        self._apply(layer)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Within the block, layers compute with the changed weights, though these be apart."""
        began = {}
        if self._apart:
            for layer, precise in self._precise.items():
                weight = self._weight(layer)
                began[layer], weight.data = weight.data, precise.to(weight.dtype)
        try:
            yield
        finally:
            for layer, value in began.items():
                self._weight(layer).data = value

    def change(self, layer: str) -> Tensor:
        """What was added to a layer's weight since the start, (d_out, d_in); of weights apart."""
        weight = self._weight(layer)
        change = self._precise.get(layer, weight) - weight
        return change.T if layer in self._model.layout.transposed else change

    def changed(self) -> Mapping[str, Tensor]:
        """The weights of the layers that were changed, not copied."""
        return dict(self._precise)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Give layers the weights that `changed` told."""
        for layer, value in weights.items():
            self._own(layer).copy_(value)
            self._apply(layer)

    def empty(self, layer: str) -> Tensor:
        """A tensor like the weight that `changed` would tell of a layer, without values."""
        weight = self._weight(layer)
        return torch.empty(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32))

    def _own(self, layer: str) -> Tensor:
        """The weight to change: the layer's own, or the precise copy."""
        if layer not in self._precise:
            weight = self._weight(layer)
            wide = torch.promote_types(weight.dtype, torch.float32)
            self._precise[layer] = weight.data.to(wide, copy=self._apart)
        return self._precise[layer]

    def _apply(self, layer: str) -> None:
        """Let the layer compute with its weight."""
        weight = self._weight(layer)
        if not self._apart and weight.data_ptr() != self._precise[layer].data_ptr():
            weight.data.copy_(self._precise[layer])

    def _weight(self, layer: str) -> Tensor:
        weight = self._model.layer(layer).base.weight
        assert isinstance(weight, Tensor)
        return weight
