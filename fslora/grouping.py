"""Which devices of a cohort train in one stack.

Rows of a stack are padded to its widest rank and largest batch. Devices of like shape are put
together; a new stack begins where padding has cost as much as another pass over the base would
and a tenth of the stack's arithmetic, and where the memory granted is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A pass over the base costs as much as this many tokens through it, however few pass: reading the
#: frozen weights and starting every operation. A weight read from memory takes about the time of
#: twenty to two hundred multiplications with it, on processors and graphics cards alike.
_PASS_TOKENS = 64
#: Padding below this share of a stack's arithmetic is kept: large products run faster.
_PADDING_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class TokenCost:
    """Arithmetic per token of a training step, in any unit.

    Parameters
    ----------
    base
        Of the frozen model.
    rank
        Of one rank of the adapter.
    """

    base: float
    rank: float


def plan_stacks(
    rank: NDArray[np.int64],
    batch: NDArray[np.int64],
    steps: NDArray[np.int64],
    width: int,
    cost: TokenCost,
    at_once: int,
) -> list[NDArray[np.int64]]:
    """Divide M devices into stacks.

    Parameters
    ----------
    rank, batch, steps
        (M,) what each device trains.
    width
        Tokens per example.
    cost
        Arithmetic of a token.
    at_once
        Devices that fit into memory together.

    Returns
    -------
    list of arrays
        Positions below M, each once; within a stack by falling number of steps.
    """
    order = np.lexsort((np.arange(len(rank)), -rank, -batch))
    token = cost.base + rank * cost.rank
    own = width * batch * token * steps
    stacks: list[NDArray[np.int64]] = []
    start, all_steps, all_own, widest = 0, 0, 0.0, 0
    for place, job in enumerate(order):
        all_steps, all_own = all_steps + steps[job], all_own + own[job]
        widest = max(widest, rank[job])
        # The first of a stack has its largest batch, but not always its largest rank.
        padded = width * batch[order[start]] * (cost.base + widest * cost.rank) * all_steps
        another_pass = _PASS_TOKENS * token[job] * steps[job]
        if padded - all_own > max(another_pass, _PADDING_SHARE * padded):
            stacks += _cut(order[start:place], at_once)
            start, all_steps, all_own, widest = place, steps[job], own[job], rank[job]
    stacks += _cut(order[start:], at_once)
    return [stack[np.argsort(-steps[stack], kind="stable")] for stack in stacks]


def _cut(members: NDArray[np.int64], at_once: int) -> Sequence[NDArray[np.int64]]:
    """Pieces of nearly equal size, none above `at_once`."""
    return np.array_split(members, -(-len(members) // at_once)) if len(members) else []
