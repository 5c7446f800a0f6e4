"""The global LoRA state: which layers are adapted, their factors A and B, and trained heads."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeGuard

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel
    from transformers.pytorch_utils import Conv1D

#: Every linear layer except the output layer and the head, as in PEFT.
ALL_LINEAR = "all-linear"

#: Names of adapted layers: endings in a tuple, or one regular expression; see `LoraSpec`.
Targets = tuple[str, ...] | str

#: What PEFT puts before a layer's name in the base model.
PEFT_PREFIX = "base_model.model."

#: Names under which transformers keep a sequence classifier's trained head.
HEAD_NAMES = (
    "score",
    "pooler",
    "pre_classifier",
    "classifier",
    "classification_head",
    "sequence_summary",
    "logits_proj",
)

#: What the name of a core has behind that of its layer.
_CORE = ".core"


class UnknownHead(ValueError):
    """A classifier whose head this project does not know."""


class UnknownTarget(ValueError):
    """A target that no linear layer of the model meets."""


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
        Adapted layers by PEFT's rules: a tuple of names, each met by a layer of exactly that name
        or one that ends with "." and it; a string, a regular expression for the whole name; or
        "all-linear", bare or in a tuple, for every linear layer but the output layer and the head.
    rslora
        True for s = alpha / sqrt(r) (arXiv 2312.03732).
    dropout
        Probability p in [0, 1) with which each input of A is zeroed in training, the others being
        divided by 1 - p.
    """

    rank: int
    alpha: float
    targets: Targets = (ALL_LINEAR,)
    rslora: bool = False
    dropout: float = 0.0

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
    transposed
        Adapted layers that keep their weight as (d_in, d_out): GPT-2's `Conv1D`.
    core
        Rows and columns r of a core C between the factors of every layer, which then computes
        W x + s B C A x; 0 for none.
    """

    layers: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, int, bool]]
    transposed: frozenset[str] = frozenset()
    core: int = 0

    @property
    def numbers_per_rank(self) -> int:
        """Numbers that one rank holds over all layers, sum of d_in + d_out."""
        return sum(d_in + d_out for d_in, d_out in self.layers.values())

    def numbers_of(self, part: Literal["a", "b"] | None) -> int:
        """Numbers that one rank of one factor holds over all layers; none of no factor."""
        if part is None:
            return 0
        return sum(d_in if part == "a" else d_out for d_in, d_out in self.layers.values())

    @property
    def head_numbers(self) -> int:
        """Numbers in the trained heads."""
        return sum(d_out * (d_in + bias) for d_in, d_out, bias in self.heads.values())

    @property
    def fixed_numbers(self) -> int:
        """Numbers that no rank of a sketch holds: heads and cores, which go whole."""
        return self.head_numbers + len(self.layers) * self.core**2

    def numbers(self, rank: int) -> int:
        """Numbers in an adapter of a rank, heads and cores included."""
        return rank * self.numbers_per_rank + self.fixed_numbers

    def only(self, names: Collection[str]) -> Layout:
        """These adapted layers alone, without the heads."""
        layers = {name: dims for name, dims in self.layers.items() if name in names}
        return Layout(layers, {}, self.transposed.intersection(layers))


def find_layout(model: PreTrainedModel, targets: Targets, heads: bool) -> Layout:
    """Find the layers to adapt and, for classifiers, the head layers to train whole.

    Parameters
    ----------
    model
        Base model; layers are `nn.Linear` or `Conv1D`.
    targets
        As in `LoraSpec`.
    heads
        True if the task trains its head; its layers are then not adapted, whatever the targets.

    Raises
    ------
    UnknownTarget
        If a target matches no linear layer, or is no regular expression.
    UnknownHead
        If the head is under no known name.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear = {name: module for name, module in model.named_modules() if is_linear(module)}
    head_layers = {
        name: module
        for name, module in linear.items()
        if heads and isinstance(module, nn.Linear) and name.split(".")[0] in HEAD_NAMES
    }
    if heads and not head_layers:
        raise UnknownHead(
            f"the head of a {model.config.model_type} classifier is under none of the names "
            f"{', '.join(HEAD_NAMES)}, so it would stay as it was drawn; choose another model"
        )
    body = {name: module for name, module in linear.items() if name not in head_layers}
    if targets in (ALL_LINEAR, (ALL_LINEAR,)):
        output = model.get_output_embeddings()
        chosen = [name for name, module in body.items() if module is not output]
        if not chosen:
            raise UnknownTarget("the model has no linear layer that LoRA could adapt")
    else:
        chosen = _named(list(body), targets)
    return Layout(
        {name: linear_shape(body[name]) for name in chosen},
        {
            name: (layer.in_features, layer.out_features, layer.bias is not None)
            for name, layer in head_layers.items()
        },
        frozenset(name for name in chosen if isinstance(body[name], Conv1D)),
    )


def core_of(layer: str) -> str:
    """Name of a layer's core among the tensors that go whole."""
    return f"{layer}{_CORE}"


def is_core(name: str) -> bool:
    """Whether a tensor that goes whole is a core, and no parameter of a head."""
    return name.endswith(_CORE)


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear | Conv1D]:
    """Whether a module is a linear layer of either kind."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D))


def linear_shape(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """d_in and d_out of a linear layer."""
    from torch import nn

    return (
        (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else (layer.nx, layer.nf)
    )


def _named(names: list[str], targets: Targets) -> list[str]:
    """The layers that the targets name, in the order of `names`."""
    if isinstance(targets, str):
        try:
            chosen = [name for name in names if re.fullmatch(targets, name)]
        except re.error as error:
            raise UnknownTarget(
                f"not a regular expression ({error}); give one, {ALL_LINEAR}, or a list of names"
            ) from None
        missing = [] if chosen else [targets]
    else:
        met = {target: [name for name in names if _ends_with(name, target)] for target in targets}
        missing = [target for target in targets if not met[target]]
        chosen = [name for name in names if any(name in found for found in met.values())]
    if missing:
        known = sorted({name.rsplit(".", 1)[-1] for name in names})
        raise UnknownTarget(
            f"no linear layer is named '{missing[0]}'; this model has {', '.join(known)}"
        )
    return chosen


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Global state X: factors of every adapted layer, and what goes with them.

    Parameters
    ----------
    a
        Per layer A, (r, d_in).
    b
        Per layer B, (d_out, r).
    head
        Per head parameter (`name.weight`, `name.bias`) its value, and per layer that has a core
        (`name.core`) C, (r, r).
    kept
        What a method's server keeps beside them, by names of the method's.
    """

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    head: dict[str, Tensor]
    kept: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fresh(
        cls, model: PreTrainedModel, layout: Layout, rank: int, seed: int, dtype: torch.dtype
    ) -> Adapter:
        """Starting point: A uniform in +-1/sqrt(d_in) as in PEFT, B zero, heads as loaded."""
        import torch

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

    def trained(self) -> dict[str, Tensor]:
        """What devices train, not copied, by flat names: `a.LAYER`, `b.LAYER`, `head.NAME`."""
        parts = (("a", self.a), ("b", self.b), ("head", self.head))
        return {f"{part}.{name}": value for part, values in parts for name, value in values.items()}

    def with_trained(self, tensors: Mapping[str, Tensor]) -> Adapter:
        """These tensors, by the names of `trained`, in the place of its own."""
        parts = (("a", self.a), ("b", self.b), ("head", self.head))
        return Adapter(
            *(
                {name: tensors.get(f"{part}.{name}", value) for name, value in values.items()}
                for part, values in parts
            )
        )

    def with_cores(self) -> Adapter:
        """The same with the identity for a core in every layer, which changes nothing yet."""
        import torch

        cores = {
            core_of(name): torch.eye(len(a), dtype=a.dtype, device=a.device)
            for name, a in self.a.items()
        }
        return Adapter(self.a, self.b, {**self.head, **cores})

    def folded(self) -> Adapter:
        """The same function without cores: C A in the place of A."""
        cores = {name: self.head.get(core_of(name)) for name in self.a}
        a = {name: a if (c := cores[name]) is None else c @ a for name, a in self.a.items()}
        return Adapter(a, self.b, {n: value for n, value in self.head.items() if not is_core(n)})
