"""A model that is cut after some of its blocks: running the first part, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fslora.lora import Adapter, Layout
from fslora.models import CutError, blocks
from fslora.stacked import Stack, StackedModel


class _Reached(BaseException):  # no error, and none that a model may catch
    """The block is due; carries what would go into it."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def run_until(
    model: StackedModel, count: int, tokens: Tensor, length: Tensor, masked: bool | None = None
) -> Tensor:
    """Run the first blocks of a model, and what is before them.

    Parameters
    ----------
    model
        The model, with its factors in use.
    count
        c >= 1: that many blocks.
    tokens, length, masked
        As in `StackedModel.logits`.

    Returns
    -------
    tensor
        What goes into the next block, (samples, L, d).

    Raises
    ------
    CutError
        If no block is left for the rest.
    """
    found = blocks(model.model)
    if len(found) < 2:
        raise CutError(
            f"{model.model.config.model_type} models have no two blocks that they could be cut "
            "between; choose method fedit"
        )
    if count >= len(found):
        raise CutError(
            f"the model has {len(found)} blocks, and the server needs one of them; give 1 to "
            f"{len(found) - 1}"
        )

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(next(each for each in tree_leaves((args, kwargs)) if _is_hidden(each)))

    handle = found[count].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.logits(tokens, length, masked)
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise CutError("the model does not run its blocks in order; choose method fedit")


@dataclass(frozen=True, slots=True)
class Held:
    """What devices hold of a model that is cut.

    Parameters
    ----------
    layout
        Its adapted layers.
    storages
        Storages that it works on, by their addresses.
    """

    layout: Layout
    storages: frozenset[int]

    def holds(self, tensor: Tensor) -> bool:
        """Whether a weight is among them."""
        return tensor.untyped_storage()._cdata in self.storages


def held_of(
    model: StackedModel, adapter: Adapter, masked: bool, length: int, device_blocks: int
) -> Held:
    """Find out what devices hold by running the first blocks: what they work on is theirs.

    Parameters
    ----------
    model, adapter
        The model on the `meta` device, and factors of it.
    masked, length
        As in `StackedModel.logits`, and the tokens of an example.
    device_blocks
        As in `fslora.methods.Method`.

    Raises
    ------
    CutError
        If the model cannot be cut there, or nothing is trained before.
    """
    tokens = torch.zeros((1, length), dtype=torch.int64, device="meta")
    with model.using(Stack.whole(adapter, 1.0)), _Touched() as touched:
        run_until(model, device_blocks, tokens, torch.full((1,), length), masked)
    names = [
        name for name, a in adapter.a.items() if a.untyped_storage()._cdata in touched.storages
    ]
    if not names:
        raise CutError(
            "no adapted layer is among the first blocks, so that devices would train nothing; "
            "give more blocks, or other lora.targets"
        )
    return Held(model.layout.only(names), frozenset(touched.storages))


def _is_hidden(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class _Touched(TorchDispatchMode):
    """Takes note of every storage that an operation reads."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.storages.add(value.untyped_storage()._cdata)
        return func(*args, **(kwargs or {}))
