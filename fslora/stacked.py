"""All devices of a cohort in one forward pass over one frozen base.

The batch axis holds the devices' samples one device after the other. A frozen layer multiplies them
all at once; beside it each device's own factors act on its own rows by a batched product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fslora.lora import Adapter, Layout
from fslora.methods.base import Slice
from fslora.models.base import ModelError
from fslora.sketch import cut_stack


@dataclass(frozen=True, slots=True)
class Stack:
    """Trainable factors of M devices.

    Parameters
    ----------
    a, b
        Per layer (M, k_max, d_in) and (M, d_out, k_max).
    head
        Per head parameter (M, ...).
    scale
        (M, 1, 1): s times each device's gain.
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    head: dict[str, Tensor]
    scale: Tensor

    @classmethod
    def cut(cls, adapter: Adapter, slices: Sequence[Slice], scale: float) -> Stack:
        """Copy out of the global state what each device gets."""
        a, b = {}, {}
        for layer, name in enumerate(adapter.a):
            a[name], b[name] = cut_stack(
                adapter.a[name], adapter.b[name], [piece.indices[layer] for piece in slices]
            )
        head = {
            name: value.expand(len(slices), *value.shape).clone()
            for name, value in adapter.head.items()
        }
        any_factor = next(iter(a.values()))
        gain = torch.tensor([piece.gain for piece in slices], dtype=torch.float64)
        scales = (scale * gain).to(any_factor.device, any_factor.dtype)
        return cls(a, b, head, scales.view(-1, 1, 1))

    @classmethod
    def whole(cls, adapter: Adapter, scale: float) -> Stack:
        """The global state itself as a stack of one, without a copy: for evaluation."""
        any_factor = next(iter(adapter.a.values()))
        return cls(
            {name: value.unsqueeze(0) for name, value in adapter.a.items()},
            {name: value.unsqueeze(0) for name, value in adapter.b.items()},
            {name: value.unsqueeze(0) for name, value in adapter.head.items()},
            any_factor.new_full((1, 1, 1), scale),
        )

    def parameters(self) -> list[Tensor]:
        """Every trainable tensor, in a fixed order; the first axis is the device."""
        return [*self.a.values(), *self.b.values(), *self.head.values()]


@dataclass(slots=True)
class BatchShape:
    """Size of the batch that is passing through: samples and tokens per sample."""

    samples: int = 0
    width: int = 0

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

    def __init__(self, base: nn.Linear, batch: BatchShape) -> None:
        super().__init__()
        self.base = base
        self.batch = batch
        self.factors: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (M b, ..., d_in) to (M b, ..., d_out)."""
        out: Tensor = self.base(x)
        if self.factors is None:
            return out
        self.batch.check(x)
        a, b, scale = self.factors
        rows = x.reshape(len(a), -1, x.shape[-1]).to(a.dtype)
        inner = torch.bmm(rows, a.transpose(1, 2)) * scale
        base_rows = out.reshape(len(a), -1, out.shape[-1]).to(a.dtype)
        return torch.baddbmm(base_rows, inner, b.transpose(1, 2)).view(out.shape).to(out.dtype)


class StackedHead(nn.Module):
    """A linear layer of which every device trains its own copy."""

    def __init__(self, base: nn.Linear, batch: BatchShape) -> None:
        super().__init__()
        self.base = base
        self.batch = batch
        self.own: tuple[Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (M b, ..., d_in) to (M b, ..., d_out)."""
        if self.own is None:
            out: Tensor = self.base(x)
            return out
        self.batch.check(x)
        weight, bias = self.own
        rows = x.reshape(len(weight), -1, x.shape[-1]).to(weight.dtype)
        product = torch.bmm(rows, weight.transpose(1, 2))
        if bias is not None:
            product = product + bias.unsqueeze(1)
        return product.view(*x.shape[:-1], -1).to(x.dtype)


class StackedModel:
    """A base model whose adapted layers can be switched from stack to stack.

    Parameters
    ----------
    model
        Frozen base; its adapted layers are wrapped in place.
    layout
        Which layers are adapted, which heads are trained.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout) -> None:
        self.model = model
        self.layout = layout
        self._batch = BatchShape()
        self._layers = {n: StackedLinear(_linear(model, n), self._batch) for n in layout.layers}
        self._heads = {n: StackedHead(_linear(model, n), self._batch) for n in layout.heads}
        wrapped: Mapping[str, nn.Module] = {**self._layers, **self._heads}
        for name, module in wrapped.items():
            model.set_submodule(name, module)

    @contextmanager
    def using(self, stack: Stack) -> Iterator[None]:
        """Within the block, forward passes use `stack`."""
        for name, layer in self._layers.items():
            layer.factors = (stack.a[name], stack.b[name], stack.scale)
        for name, head in self._heads.items():
            head.own = (stack.head[f"{name}.weight"], stack.head.get(f"{name}.bias"))
        try:
            yield
        finally:
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
            (samples,) true lengths, on the host.
        masked
            Whether to pass an attention mask; by default only where there is padding.

        Returns
        -------
        tensor
            (samples, L, vocabulary) or (samples, classes).

        Raises
        ------
        ModelError
            If an adapted layer does not act on one row per sample.
        """
        self._batch.samples, self._batch.width = tokens.shape
        mask = None
        if bool((length < tokens.shape[1]).any()) if masked is None else masked:
            position = torch.arange(tokens.shape[1], device=tokens.device)
            mask = (position < length.to(tokens.device).unsqueeze(1)).long()
        out: Tensor = self.model(input_ids=tokens, attention_mask=mask).logits
        return out


def _linear(model: PreTrainedModel, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear)
    return module
