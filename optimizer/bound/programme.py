"""Least cost of rounds and time along a chain: a dynamic programme over its expected finish."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from optimizer.bound.chain import Chain
from optimizer.problem import IntArray
from optimizer.rounds import FloatArray

#: Slope taken for flat pieces, and pieces between two looks at which nodes are settled.
_FLAT, _LOOK_EVERY = 1e-18, 3

#: Differences of two runs that are taken off.
_CAUTION = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Charge:
    """What a plan is charged: ``constant + sum_n (noise / p_n + fixed - reward p_n)``.

    In rounds, or in seconds once rounds have a price.

    Parameters
    ----------
    constant : float
        What all plans are charged.
    noise : ndarray, shape (C, N)
        At each of C ranks, >= 0; inf at ranks that a device cannot hold.
    fixed : ndarray, shape (C, N)
        Likewise, but finite.
    reward : ndarray, shape (N,)
        What taking part is rewarded with, >= 0.
    least, most : ndarray, shape (N,)
        Bounds of the probabilities p_n of taking part, in (0, 1].
    """

    constant: float
    noise: FloatArray
    fixed: FloatArray
    reward: FloatArray
    least: FloatArray
    most: FloatArray

    @classmethod
    def priced(cls, sums: Sequence[Self], price: FloatArray) -> Self:
        """Charge for several sums at prices (M,)."""

        def total(name: str) -> Any:
            return sum(s * getattr(one, name) for s, one in zip(price, sums, strict=True))

        return cls(
            total("constant"),
            total("noise"),
            total("fixed"),
            total("reward"),
            sums[0].least,
            sums[0].most,
        )

    @property
    def lowest(self) -> float:
        """Charge that no plan falls below, with everybody always there."""
        return self.constant + self.lowest_of(np.arange(len(self.most)))

    def lowest_of(self, device: IntArray) -> float:
        """Charge of some devices, without the constant, that no plan falls below."""
        most, reward = self.most[device], self.reward[device]
        each = self.noise[:, device] / most + self.fixed[:, device] - reward * most
        return float(each.min(axis=0).sum())

    def of(self, option: IntArray, takes_part: FloatArray) -> float:
        """Charge for one plan, given rows of the ranks and probabilities p_n, both (N,)."""
        n = np.arange(len(option))
        each = self.noise[option, n] / takes_part + self.fixed[option, n]
        return self.constant + float(np.sum(each - self.reward * takes_part))


def least_cost(chain: Chain, charge: Charge, highest_s: float, nodes: int) -> float:
    """Lower bound of ``charge + e_N`` over all plans, close to its least value.

    Parameters
    ----------
    chain : Chain
        Recursion of the expected finish e.
    charge : Charge
        Seconds that plans are charged, with devices in their own order.
    highest_s : float
        Highest expected finish (s) that is told apart; later ones count as this.
    nodes : int
        Number of pieces of the value function.

    Returns
    -------
    float
        Seconds.

    Notes
    -----
    ``V_{i-1}(e) = min_{p,k} charge_i(p, k) + V_i(e + p m)``, ``m = (start - e)^+ + work``
    and ``V_N(e) = e``. V_i is kept at nodes and interpolated linearly between them; at a node the
    minimum over p is exact, piece after piece, until no later piece can win. Beyond the last node
    V_i, which ascends, counts as what it is there. What interpolation adds to the value, where
    V_i is convex, falls with the square of the spacing: two runs, one with about half the nodes,
    tell how much that is, and twice their difference is taken off. Own derivation.
    """

    fine, rough = (
        float(value_from(chain, charge, highest_s, pieces)[0]) for pieces in (nodes, fewer(nodes))
    )
    return cautious(fine, rough) + charge.constant


def cautious(fine: float, rough: float) -> float:
    """Figure of a run, less twice what it differs from one with `fewer` nodes."""
    return fine - _CAUTION * abs(fine - rough)


def fewer(nodes: int) -> int:
    """About half as many nodes, at other places."""
    return max(2, int(0.55 * nodes))


def value_from(
    chain: Chain, charge: Charge, highest_s: float, nodes: int, begin: int = 0
) -> FloatArray:
    """Value of the programme, interpolated, at the nodes before some device of the chain.

    Parameters
    ----------
    chain, charge, highest_s, nodes
        As in `least_cost`; the charge's constant is left out.
    begin : int
        Place in the chain of the first device that is gone through.

    Returns
    -------
    ndarray, shape (L,)
        Seconds, at ``e = highest_s / nodes * (0, 1, ...)``: all nodes, or before the first device
        of the chain that at zero.
    """
    spacing = highest_s / nodes
    reach_s, reach = highest_s if begin else 0.0, []
    for i, n in zip(range(begin, len(chain.device)), chain.device[begin:], strict=True):
        reach.append(min(nodes, int(np.ceil(reach_s / spacing))) + 1)
        held = np.isfinite(charge.noise[:, n])
        added_s = np.maximum(chain.start_s[held, i] - reach_s, 0.0) + chain.work_s[held, i]
        reach_s += float(charge.most[n] * added_s.max())
    last = min(nodes, int(np.ceil(reach_s / spacing)))
    value: FloatArray = np.arange(last + 1) * np.float64(spacing)
    for i in range(len(chain.device) - 1, begin - 1, -1):
        n = chain.device[i]
        held = np.isfinite(charge.noise[:, n])
        stage = _Stage(
            value,
            spacing,
            chain.start_s[held, i],
            chain.work_s[held, i],
            charge.noise[held, n],
            charge.fixed[held, n],
            float(charge.reward[n]),
            float(charge.least[n]),
            float(charge.most[n]),
        )
        value = stage.before(reach[i - begin])
    return value


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    """One device: the value (L,) after it, its terms (C,) in seconds, and the bounds of its p."""

    value: FloatArray
    spacing: float
    start_s: FloatArray
    work_s: FloatArray
    noise_s: FloatArray
    fixed_s: FloatArray
    reward_s: float
    least: float
    most: float

    def before(self, nodes: int) -> FloatArray:
        """Value before the device at the first nodes, (J,)."""
        at: FloatArray = np.arange(nodes) * np.float64(self.spacing)
        added = np.maximum(self.start_s[:, None] - at, 0.0) + self.work_s[:, None]
        return np.asarray(self._best(at, added).min(axis=0))

    def _best(self, at: FloatArray, added: FloatArray) -> FloatArray:
        """Least cost of each option at each node, (C, J)."""
        value, spacing, nodes, last = self.value, self.spacing, len(at), len(self.value) - 1
        # Beyond the last node the value stays what it is there: whoever gets that far takes part
        # as often as possible.
        ends = (self.noise_s / self.most + self.fixed_s - self.reward_s * self.most)[:, None]
        cost = np.where(at + self.most * added >= last * spacing, ends + value[last], np.inf)
        slope = np.maximum(np.diff(value) / spacing, _FLAT)
        noise, fixed = self.noise_s[:, None], self.fixed_s[:, None]
        unit, root, root_slope = spacing / added, np.sqrt(noise / added), 1 / np.sqrt(slope)
        first, stop, steps = 0, min(nodes, last), int(self.least / float(unit.max()))
        while first < (stop := min(stop, last - steps)):
            here, piece = slice(first, stop), slice(first + steps, stop + steps)
            low = np.maximum(steps * unit[:, here], self.least)
            high = np.minimum((steps + 1) * unit[:, here], self.most)
            if self.reward_s:
                steep = slope[piece] * added[:, here] - self.reward_s
                part = np.sqrt(noise / np.maximum(steep, _FLAT))
                part[steep <= 0] = np.inf
            else:
                part = root[:, here] * root_slope[piece]
            np.clip(part, low, high, out=part)
            moved = part * added[:, here]
            trial = noise / part
            trial += slope[piece] * (moved - steps * spacing)
            trial += value[piece] + fixed
            if self.reward_s:
                trial -= self.reward_s * part
            better = (trial < cost[:, here]) & (low <= high)
            np.copyto(cost[:, here], trial, where=better)
            steps += 1
            if steps % _LOOK_EVERY == 0 and first < min(stop, last - steps):
                # Whoever jumps further pays at least this.
                stop = min(stop, last - steps)
                here, piece = slice(first, stop), slice(first + steps, stop + steps)
                alive = ends + value[piece] < cost[:, here].min(axis=0)
                alive &= steps * unit[:, here] < self.most
                still = np.flatnonzero(alive.any(axis=0))
                if not len(still):
                    break
                first, stop = first + int(still[0]), first + int(still[-1]) + 1
        return cost
