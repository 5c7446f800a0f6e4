"""HierFedLoRA: averages inside near-IID groups, and more rarely over all (arXiv 2503.21213).

Devices are divided into groups g whose data, taken together, are distributed like everybody's. Each
group has a model Y_g of its own. Device n of group g gets Y_g at full rank, trains both factors and
sends their changes, of which the server makes, every round,

    Y_g <- Y_g + sum_{n in g} v_n dX_n / a_g,  a_g = sum of data weights a_n over the group,

and every `group_rounds` rounds X <- sum_g a_g Y_g and Y_g <- X for all groups. The global model X
is what is evaluated; between two global averages it stays. With one group, or an average over all
in every round, it is FedIT. The mean over cohorts is that of everybody's training, in the groups
and, as sums of groups, globally: unbiased under independent sampling. A round in which nobody
completes postpones a global average that was due to the next merge.

Groups: devices in falling order of their examples, each to the group that has least of what the
device has, argmin_g h_n . c_g with class counts h_n of the device and c_g of the group so far; it
brings all groups' counts towards one G-th of everybody's (own choice). Without classes only the
numbers of examples are balanced. The server has to know the counts; they are not sent in time.

Per layer r (d_in + d_out) numbers go up and r (d_in + d_out) down, to each group others: there is
no broadcast.

Departures from the paper, of which only the abstract could be read: its groups have tuning depths
(blocks from the output that are trained) and frequencies of their own, which it adapts during
training; ours train all adapted blocks and have one frequency. Groups are logical, at one server,
as nothing is said there of edge servers: a group's average takes a round like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fslora.lora import Adapter, Layout
from fslora.methods.base import GlobalState, Method, Update
from fslora.sketch import add_changes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class HierFedLoRA(Method):
    """Factors averaged inside groups, and over the groups.

    Parameters
    ----------
    groups
        G >= 1.
    group_rounds
        Rounds from one average over all groups to the next, >= 1.
    """

    groups: int = 2
    group_rounds: int = 2
    name: ClassVar[str] = "hierfedlora"
    up: ClassVar[str] = "r * (d_in + d_out)"
    additive: ClassVar[bool] = False
    unicast: ClassVar[bool] = True

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank

    def kept(self, adapter: Adapter, counts: NDArray[np.int64]) -> dict[str, Tensor]:
        """Group and weight of every group, the last global average, and the groups' models."""
        import torch

        group = near_iid_groups(counts, self.groups)
        share = np.bincount(group, counts.sum(axis=1), self.groups) / counts.sum()
        models = {
            f"{g}.{name}": value.clone()
            for g in range(self.groups)
            for name, value in adapter.trained().items()
        }
        return {
            "group": torch.from_numpy(group),
            "share": torch.from_numpy(share),
            "averaged": torch.zeros((), dtype=torch.int64),
            **models,
        }

    def begin(self, devices: Sequence[int], state: GlobalState) -> list[Mapping[str, Tensor]]:
        """The models of the devices' groups."""
        group = state.adapter.kept["group"].tolist()
        return [_model(state.adapter, group[device]) for device in devices]

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Move the groups' models, and average them if that is due."""
        kept = state.adapter.kept
        group, share = kept["group"].tolist(), kept["share"].tolist()
        models = [_model(state.adapter, g) for g in range(self.groups)]
        for update, v in zip(updates, weight, strict=True):
            g = group[update.device]
            add_changes(state.adapter.with_trained(models[g]), [update], [v / share[g]])
        averaged = int(kept["averaged"])
        if not updates or state.round // self.group_rounds <= averaged // self.group_rounds:
            return
        kept["averaged"].fill_(state.round)
        for name, value in state.adapter.trained().items():
            parts = [model[name] for model in models]
            value.copy_(sum(a * part for a, part in zip(share, parts, strict=True)))
            for part in parts:
                part.copy_(value)

    def server_flops(self, layout: Layout, rank: int, ranks: Sequence[int]) -> float:
        """Sums; of those over the groups a round's share."""
        groups = self.groups * layout.numbers(rank) / self.group_rounds
        return 2.0 * (sum(layout.numbers(k) for k in ranks) + groups)


def near_iid_groups(counts: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Groups of devices whose data, taken together, are distributed alike.

    Parameters
    ----------
    counts
        (N, C) examples of each class on each device.
    groups
        G.

    Returns
    -------
    array (N,)
        Group of each device.
    """
    total = np.zeros((groups, counts.shape[1]))
    group = np.empty(len(counts), dtype=np.int64)
    for device in np.argsort(-counts.sum(axis=1), kind="stable").tolist():
        # Of sum_g |c_g - c/G|^2 this is what depends on the choice.
        group[device] = np.argmin(total @ counts[device])
        total[group[device]] += counts[device]
    return group


def _model(adapter: Adapter, group: int) -> dict[str, Tensor]:
    """A group's model, not copied, by the names of `Adapter.trained`."""
    return {name: adapter.kept[f"{group}.{name}"] for name in adapter.trained()}
