"""Replication padding: who lacks a rank counts with the mean of those who hold it (2406.17477).

A device of rank k gets the first k ranks, trains and sends them. Before averaging, the rows of A
and columns of B that it lacks are filled in from the devices of higher rank, so that these are not
diluted by zeros as in HetLoRA. Filled with the weighted mean of those who hold rank j,

    X_j <- X_j + (sum_n v_n) sum_{n holds j} v_n dX_nj / sum_{n holds j} v_n;

a rank that nobody in the cohort holds keeps its bits. Where all hold all ranks it is FedIT. The
ratio is normalised over the cohort, so the mean under independent sampling is biased for the ranks
that not everybody holds.

Per layer k (d_in + d_out) numbers go up, and r (d_in + d_out) down: ranks are nested, so a
broadcast of all serves every device; unicast sends k.

Departures from the paper, of which only a summary could be read: missing ranks are copied from the
mean of all that hold them, not from one device, and aggregation weights are those of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fslora.methods.base import GlobalState, Method, Update
from fslora.sketch import add_holder_means


@dataclass(frozen=True, slots=True)
class Replication(Method):
    """Each rank averaged over those who hold it."""

    name = "replication"
    additive: ClassVar[bool] = False

    def merge(self, state: GlobalState, updates: Sequence[Update], weight: Sequence[float]) -> None:
        """Average each rank over its holders, with the weight of everybody."""
        add_holder_means(state.adapter, updates, weight)
