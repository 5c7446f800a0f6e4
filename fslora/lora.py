"""The global LoRA state: which layers are adapted, their factors A and B, and trained heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

#: Every linear layer except the output layer and the head, as in PEFT.
ALL_LINEAR = "all-linear"

#: Names under which transformers keep a sequence classifier's trained head.
_HEAD_NAMES = ("score", "pre_classifier", "classifier", "classification_head")


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """LoRA hyperparameters (arXiv 2106.09685).

    Parameters
    ----------
    rank
        Global rank r.
    alpha
        Scale numerator: the layer adds s B A x with s = alpha / r.
    targets
        Name endings of the adapted layers, or ("all-linear",).
    rslora
        True for s = alpha / sqrt(r) (arXiv 2312.03732).
    """

    rank: int
    alpha: float
    targets: tuple[str, ...] = (ALL_LINEAR,)
    rslora: bool = False

    @property
    def scale(self) -> float:
        """Layer scale s."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, slots=True)
class Layout:
    """Shapes of what is trained, in the model's own layer order.

    Parameters
    ----------
    layers
        Per adapted layer its name, d_in and d_out.
    heads
        Per trained head layer its name, d_in, d_out and whether it has a bias.
    """

    layers: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, int, bool]]

    @property
    def numbers_per_rank(self) -> int:
        """Numbers that one rank holds over all layers, sum of d_in + d_out."""
        return sum(d_in + d_out for d_in, d_out in self.layers.values())

    @property
    def head_numbers(self) -> int:
        """Numbers in the trained heads."""
        return sum(d_out * (d_in + bias) for d_in, d_out, bias in self.heads.values())


def find_layout(model: PreTrainedModel, targets: tuple[str, ...], heads: bool) -> Layout:
    """Find the layers to adapt and, for classifiers, the head layers to train whole.

    Parameters
    ----------
    model
        Base model; layers must be `nn.Linear`.
    targets
        As in `LoraSpec`.
    heads
        True if the task trains its head.

    Raises
    ------
    ValueError
        If a name ending matches no linear layer.
    """
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    head_layers = {
        name: module for name, module in linear.items() if name.split(".")[0] in _HEAD_NAMES
    }
    output = model.get_output_embeddings()
    body = {
        name: module
        for name, module in linear.items()
        if name not in head_layers and module is not output
    }
    if targets == (ALL_LINEAR,):
        chosen = body
    else:
        for target in targets:
            if not any(_ends_with(name, target) for name in body):
                known = sorted({name.rsplit(".", 1)[-1] for name in body})
                raise ValueError(
                    f"no linear layer is named '{target}'; this model has {', '.join(known)}"
                )
        chosen = {
            name: module
            for name, module in body.items()
            if any(_ends_with(name, target) for target in targets)
        }
    if not chosen:
        raise ValueError("the model has no linear layer that LoRA could adapt")
    return Layout(
        {name: (layer.in_features, layer.out_features) for name, layer in chosen.items()},
        {
            name: (layer.in_features, layer.out_features, layer.bias is not None)
            for name, layer in (head_layers.items() if heads else ())
        },
    )


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Global state X: factors of every adapted layer and the trained heads.

    Parameters
    ----------
    a
        Per layer A, (r, d_in).
    b
        Per layer B, (d_out, r).
    head
        Per head parameter (`name.weight`, `name.bias`) its value.
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    head: dict[str, Tensor]

    @classmethod
    def fresh(
        cls, model: PreTrainedModel, layout: Layout, rank: int, seed: int, dtype: torch.dtype
    ) -> Adapter:
        """Starting point: A uniform in +-1/sqrt(d_in) as in PEFT, B zero, heads as loaded."""
        draws = torch.Generator().manual_seed(seed)
        a, b, head = {}, {}, {}
        for name, (d_in, d_out) in layout.layers.items():
            uniform = torch.rand((rank, d_in), generator=draws, dtype=torch.float64)
            a[name] = ((2 * uniform - 1) / math.sqrt(d_in)).to(model.device, dtype)
            b[name] = torch.zeros((d_out, rank), device=model.device, dtype=dtype)
        parameters = dict(model.named_parameters())
        for name, (_, _, bias) in layout.heads.items():
            for part in ("weight", "bias") if bias else ("weight",):
                value = parameters[f"{name}.{part}"]
                head[f"{name}.{part}"] = value.detach().to(dtype, copy=True)
        return cls(a, b, head)
