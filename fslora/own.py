"""What there is device by device beside the global state: personal factors, and cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from fslora.lora import Adapter, is_core
from fslora.methods.base import GlobalState, Method, Update
from fslora.server import named_tensors


def own_names(method: Method, adapter: Adapter) -> list[str]:
    """Which tensors there are device by device, by the names of `named_tensors`."""
    return [
        name
        for name in named_tensors(adapter)
        if name.split(".")[0] in method.personal or is_core(name)
    ]


def starts(
    method: Method,
    state: GlobalState,
    devices: Sequence[int],
    wire: Callable[[Tensor], Tensor],
) -> list[Mapping[str, Tensor]]:
    """What devices (M,) start from in the place of the global state.

    Parameters
    ----------
    method, state
        Who decides it, and from what.
    devices
        (M,) who.
    wire
        What transfer does to numbers; it spares what stays on the devices.
    """
    stays = method.personal
    return [
        {name: v if name.split(".")[0] in stays else wire(v) for name, v in own.items()}
        for own in method.begin(devices, state)
    ]


def own_after(
    names: Sequence[str],
    adapter: Adapter,
    updates: Sequence[Update],
    started: Sequence[Mapping[str, Tensor]],
) -> dict[int, dict[str, Tensor]]:
    """What there is of the devices of some updates after them, by device.

    Parameters
    ----------
    names
        As `own_names` tells.
    adapter
        Global state, for what a device had not of its own.
    updates, started
        (M,) updates, and what each started from in its place, before any of them ended.
    """
    common = named_tensors(adapter)
    after: dict[int, dict[str, Tensor]] = {}
    for update, start in zip(updates, started, strict=True):
        change = named_tensors(Adapter(update.delta_a, update.delta_b, update.delta_head))
        before = after.get(update.device, start)
        after[update.device] = {
            name: before.get(name, common[name]) + change[name] for name in names
        }
    return after
