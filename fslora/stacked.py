"""All devices of a cohort in one forward pass over one frozen base.

The batch axis holds the devices' samples one device after the other. A frozen layer multiplies them
all at once; beside it each device's own factors act on its own rows by a batched product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from fslora.dropout import Dropout
from fslora.lora import Adapter, Layout, core_of, is_linear, linear_shape
from fslora.methods.base import Part, Slice
from fslora.models.base import ModelError
from fslora.models.reading import skip_unread_positions
from fslora.sketch import cut_stack, pad_indices


@dataclass(frozen=True, slots=True)
class Stack:
    """Factors of M devices.

    Parameters
    ----------
    a, b
        Per layer (M, k_max, d_in) and (M, d_out, k_max).
    head
        Per head parameter and core (M, ...).
    scale
        (M, layers, k_max): s times the gain of each device's ranks.

    Products are computed in the number format of the layer's input.
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    head: dict[str, Tensor]
    scale: Tensor

    @classmethod
    def whole(cls, adapter: Adapter, scale: float) -> Stack:
        """The global state itself as a stack of one, without a copy: for evaluation."""
        any_factor = next(iter(adapter.a.values()))
        return cls(
            {name: value.unsqueeze(0) for name, value in adapter.a.items()},
            {name: value.unsqueeze(0) for name, value in adapter.b.items()},
            {name: value.unsqueeze(0) for name, value in adapter.head.items()},
            any_factor.new_full((1, len(adapter.a), len(any_factor)), scale),
        )

    @classmethod
    def unpack(cls, numbers: Tensor, layout: Layout, scale: Tensor) -> Stack:
        """Read a matrix that holds one device per row, (M, P), as factors; without a copy.

        A row holds, per layer, A and then the transpose of B, and after the layers the heads and
        the cores; the width k_max follows from its length. The gradient with respect to `numbers`
        comes back as one matrix of the same order.
        """
        width = (numbers.shape[1] - layout.fixed_numbers) // layout.numbers_per_rank
        sizes = [width * d for dims in layout.layers.values() for d in dims]
        for d_in, d_out, bias in layout.heads.values():
            sizes += [d_in * d_out] + [d_out] * bias
        cored = [core_of(name) for name in layout.layers] if layout.core else []
        sizes += [layout.core**2] * len(cored)
        pieces = iter(numbers.split(sizes, dim=1))
        a, b, head = {}, {}, {}
        for name, (d_in, d_out) in layout.layers.items():
            a[name] = next(pieces).unflatten(1, (width, d_in))
            b[name] = next(pieces).unflatten(1, (width, d_out)).transpose(1, 2)
        for name, (d_in, d_out, bias) in layout.heads.items():
            head[f"{name}.weight"] = next(pieces).unflatten(1, (d_out, d_in))
            if bias:
                head[f"{name}.bias"] = next(pieces)
        for name in cored:
            head[name] = next(pieces).unflatten(1, (layout.core, layout.core))
        return cls(a, b, head, scale)

    def fill(self, adapter: Adapter, slices: Sequence[Slice]) -> None:
        """Copy in what each device gets of the global state; narrower devices end in zeros."""
        width = next(iter(self.a.values())).shape[1]
        index, real = pad_indices([piece.indices for piece in slices], width)
        any_factor = next(iter(adapter.a.values()))
        index, real = index.to(any_factor.device), real.to(any_factor.device)
        for layer, name in enumerate(adapter.a):
            a, b = cut_stack(adapter.a[name], adapter.b[name], index[layer], real)
            self.a[name].copy_(a)
            self.b[name].copy_(b)
        for name, value in adapter.head.items():
            self.head[name].copy_(value.expand_as(self.head[name]))

    def fill_own(self, own: Sequence[Mapping[str, Tensor]]) -> None:
        """Put in place what devices have of their own, by the names of `named_tensors`."""
        parts = (("a", self.a), ("b", self.b), ("head", self.head))
        named = {
            f"{part}.{name}": value for part, values in parts for name, value in values.items()
        }
        for device, tensors in enumerate(own):
            for name, value in tensors.items():
                named[name][device].copy_(value)

    def fill_ranks(self, chosen: Sequence[NDArray[np.bool_] | None]) -> None:
        """Write one for the chosen ranks (layers, k) of each device, and heads; else zero."""
        for layer, (a, b) in enumerate(zip(self.a.values(), self.b.values(), strict=True)):
            mask = a.new_zeros(a.shape[:2])
            for device, ranks in enumerate(chosen):
                mask[device] = 1.0 if ranks is None else torch.from_numpy(ranks[layer]).to(mask)
            a.copy_(mask.unsqueeze(2).expand_as(a))
            b.copy_(mask.unsqueeze(1).expand_as(b))
        for value in self.head.values():
            value.fill_(1.0)

    def rows(self, name: str) -> Tensor:
        """What a layer multiplies its input with, (M, k_max, d_in): A, or C A with a core."""
        core = self.head.get(core_of(name))
        return self.a[name] if core is None else torch.bmm(core, self.a[name])

    def with_frozen(self, frozen: Part | None) -> Stack:
        """The same, where one of the factors asks for no gradient."""
        if frozen is None:
            return self
        parts = {"a": self.a, "b": self.b}
        parts[frozen] = {name: value.detach() for name, value in parts[frozen].items()}
        return Stack(parts["a"], parts["b"], self.head, self.scale)


@dataclass(slots=True)
class Passing:
    """What the layers know of the batch that is passing through.

    Parameters
    ----------
    samples, width
        Size of the batch: samples, and tokens per sample.
    dropout
        Dropout of this step, if any.
    """

    samples: int = 0
    width: int = 0
    dropout: Dropout | None = None

    def check(self, x: Tensor) -> None:
        """Refuse an input whose first axis is not the samples (or all their tokens).

        Raises
        ------
        ModelError
            If devices' rows could not be told apart.
        """
        if x.shape[0] not in (self.samples, self.samples * self.width):
            raise ModelError(
                f"an adapted layer gets a tensor of shape {tuple(x.shape)}, which is not one row "
                f"per sample; name other lora.targets, or another model"
            )


class StackedLinear(nn.Module):
    """A frozen linear layer plus, per device, s (r/k) B A x of the stack in use."""

    def __init__(self, base: nn.Module, passing: Passing, number: int) -> None:
        super().__init__()
        self.base = base
        self.passing = passing
        self.number = number
        self.factors: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight, for models that ask a layer for its number format."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (M b, ..., d_in) to (M b, ..., d_out)."""
        out: Tensor = self.base(x)
        if self.factors is None:
            return out
        self.passing.check(x)
        a, b, scale = self.factors  # scale (M, k_max, 1)
        rows = x.reshape(len(a), -1, x.shape[-1])
        if self.passing.dropout is not None:
            rows = self._drop(rows)
        # Scaled before it is rounded to the base's format: a rounded scale would be a bias.
        inner = torch.bmm(rows, (a * scale).to(x.dtype).transpose(1, 2))
        base_rows = out.reshape(len(a), -1, out.shape[-1])
        return torch.baddbmm(base_rows, inner, b.to(x.dtype).transpose(1, 2)).view(out.shape)

    def _drop(self, rows: Tensor) -> Tensor:
        """Apply this step's dropout to (M, rows of a device, d_in)."""
        assert self.passing.dropout is not None
        devices, count, features = rows.shape
        samples = self.passing.samples // devices
        mask = self.passing.dropout.mask(self.number, samples, count // samples, features)
        return rows * mask.view(rows.shape).to(rows.dtype)


class StackedHead(nn.Module):
    """A linear layer of which every device trains its own copy."""

    def __init__(self, base: nn.Linear, passing: Passing) -> None:
        super().__init__()
        self.base = base
        self.passing = passing
        self.own: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (M b, ..., d_in) to (M b, ..., d_out)."""
        if self.own is None:
            out: Tensor = self.base(x)
            return out
        self.passing.check(x)
        weight, bias = self.own
        rows = x.reshape(len(weight), -1, x.shape[-1])
        product = torch.bmm(rows, weight.to(x.dtype).transpose(1, 2))
        if bias is not None:
            product = product + bias.to(x.dtype).unsqueeze(1)
        return product.view(*x.shape[:-1], -1)


class StackedModel:
    """A base model whose adapted layers can be switched from stack to stack.

    Parameters
    ----------
    model
        Frozen base; its adapted layers are wrapped in place, and positions that its classifier does
        not read are left out of its last block.
    layout
        Which layers are adapted, which heads are trained.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout) -> None:
        self.model = model
        self.layout = layout
        skip_unread_positions(model)
        self._passing = Passing()
        self._layers = {
            name: StackedLinear(model.get_submodule(name), self._passing, number)
            for number, name in enumerate(layout.layers)
        }
        self._heads = {n: StackedHead(_linear(model, n), self._passing) for n in layout.heads}
        wrapped: Mapping[str, nn.Module] = {**self._layers, **self._heads}
        for name, module in wrapped.items():
            model.set_submodule(name, module)

    def layer(self, name: str) -> StackedLinear:
        """An adapted layer."""
        return self._layers[name]

    @property
    def frozen_weights(self) -> int:
        """Numbers in the frozen matrices that tokens are multiplied with."""
        shapes = [linear_shape(each) for each in self.model.modules() if is_linear(each)]
        return sum(d_in * d_out for d_in, d_out in shapes)

    @contextmanager
    def using(self, stack: Stack, dropout: Dropout | None = None) -> Iterator[None]:
        """Within the block, forward passes use `stack`, with dropout if given."""
        self._passing.dropout = dropout
        for number, (name, layer) in enumerate(self._layers.items()):
            layer.factors = (stack.rows(name), stack.b[name], stack.scale[:, number].unsqueeze(2))
        for name, head in self._heads.items():
            head.own = (stack.head[f"{name}.weight"], stack.head.get(f"{name}.bias"))
        try:
            yield
        finally:
            self._passing.dropout = None
            for layer in self._layers.values():
                layer.factors = None
            for head in self._heads.values():
                head.own = None

    def logits(self, tokens: Tensor, length: Tensor, masked: bool | None = None) -> Tensor:
        """Logits of a padded batch.

        Parameters
        ----------
        tokens
            (samples, L).
        length
            (samples,) true lengths; a sample of length 0 is read as one of length 1, which keeps
            its attention defined.
        masked
            Whether to pass an attention mask; by default only where there is padding, for which
            `length` must lie on the host.

        Returns
        -------
        tensor
            (samples, L, vocabulary) or (samples, classes).

        Raises
        ------
        ModelError
            If an adapted layer does not act on one row per sample.
        """
        self._passing.samples, self._passing.width = tokens.shape
        mask = None
        if bool((length < tokens.shape[1]).any()) if masked is None else masked:
            position = torch.arange(tokens.shape[1], device=tokens.device)
            end = length.to(tokens.device).clamp(min=1).unsqueeze(1)
            mask = (position < end).long()
        out: Tensor = self.model(input_ids=tokens, attention_mask=mask).logits
        return out


def _linear(model: PreTrainedModel, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module
