"""The same programme for fleets too large to go through device by device: stage by stage."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from optimizer.bound.chain import Chain
from optimizer.bound.programme import Charge
from optimizer.rounds import FloatArray

_STAGES, _BLOCK = 96, 1 << 16

#: Slopes of the value function that are tried, in units of the known plan's price; below, p = most.
_SLOPES = np.concatenate(([0.0], 1.4 * 1.5 ** -np.arange(10.0)))[::-1]

#: Waiting times that devices are charged for, relative to a stage's start.
_WAITS = np.concatenate(([0.0], 0.5 ** np.arange(5.0, -1.0, -1.0)))

#: Expected numbers of members between which 1 - exp(-P) is replaced by its chord.
_MEMBERS = np.array([0.0, 0.03, 0.1, 0.25, 0.5, 0.9, 1.5, 2.5, 4.5])

#: Furthest rise of the expected finish in one stage, relative to the highest told apart.
_RISES = (1 / 32, 1 / 8, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """A chain whose devices are taken together in M stages, with what they charge at least.

    Parameters
    ----------
    start_s : ndarray, shape (M,)
        Earliest start (s) of each stage, ascending.
    wait_s : ndarray, shape (M, Y)
        Waiting times y (s), ascending from 0.
    slope : ndarray, shape (T,)
        Multipliers t in rounds per second, ascending from 0.
    charge : ndarray, shape (M, T, Y)
        Sum over the stage of ``min_{p,k} charge(p, k) + t p (y + work)``, in rounds.
    constant : float
        Rounds that do not depend on the plan.

    Notes
    -----
    A stage of which anybody takes part lasts until its start at least, and its work comes on top:
    ``e' >= e + (1 - exp(-P)) (start - e)^+ + sum_n p_n work_n``, ``P = sum_n p_n``. Between two
    values of P the exponential lies above its chord, which makes the right side linear in p, and
    weak duality with a slope t of the value that follows makes it a sum over devices. That value
    is replaced by a line below it as far as the finish may rise; whoever rises further pays
    at least what is charged for p = most there. The charges are concave in y and may be
    interpolated. Source: own derivation.
    """

    start_s: FloatArray
    wait_s: FloatArray
    slope: FloatArray
    charge: FloatArray
    constant: float

    @classmethod
    def build(cls, chain: Chain, charge: Charge, price: float) -> Self:
        """Cut the chain into stages and tabulate their charges.

        Parameters
        ----------
        chain : Chain
            Recursion of the expected finish.
        charge : Charge
            Rounds, with devices in their own order.
        price : float
            Seconds per round around which slopes are tabulated.

        Returns
        -------
        Crowd
        """
        first_s, n = chain.start_s[0], len(chain.device)
        # Half of the cuts by number of devices, half by time, so that stragglers are told apart.
        span_s = max(float(first_s[-1] - first_s[0]), 1e-300)
        place = 0.5 * np.arange(n) / n + 0.5 * (first_s - first_s[0]) / span_s
        cut = np.unique(np.searchsorted(place, np.arange(_STAGES) / _STAGES))
        cut = cut[cut < n]
        start_s, slope = first_s[cut], _SLOPES / price
        wait_s = start_s[:, None] * _WAITS
        table = np.zeros((len(cut), len(slope), wait_s.shape[1]))
        for stage, (low, high) in enumerate(zip(cut, np.append(cut[1:], n), strict=True)):
            for begin in range(low, high, _BLOCK):
                some = slice(begin, min(begin + _BLOCK, high))
                table[stage] += _charges(chain, charge, some, slope, wait_s[stage])
        return cls(start_s, wait_s, slope, table, charge.constant)

    def least_cost(self, price: float, highest_s: float, nodes: int) -> float:
        """Lower bound of ``price * charge + e_N``: see `optimizer.bound.programme.least_cost`.

        Parameters
        ----------
        price : float
            Seconds per round, > 0.
        highest_s : float
            Highest expected finish (s) that is told apart.
        nodes : int
            Number of pieces of the value function.

        Returns
        -------
        float
            Seconds.
        """
        at: FloatArray = np.arange(nodes + 1) * np.float64(highest_s / nodes)
        value = at
        for stage in range(len(self.start_s) - 1, -1, -1):
            value = self._before(stage, value, at, price)
        return float(value[0]) + price * self.constant

    def _before(self, stage: int, value: FloatArray, at: FloatArray, price: float) -> FloatArray:
        """Value (L,) before a stage from the value after it."""
        wait_s = np.maximum(self.start_s[stage] - at, 0.0)
        slope, nodes, spacing = self.slope[:, None] * price, len(at) - 1, at[1]
        known = self.wait_s[stage]
        paid = []
        chords = zip(_MEMBERS, np.append(_MEMBERS[1:], np.inf), strict=True)
        for few, many in chords:
            rise = 0.0 if np.isinf(many) else (np.exp(-few) - np.exp(-many)) / (many - few)
            always = -np.expm1(-few) - rise * few
            row = np.clip(np.searchsorted(known, rise * wait_s, "right") - 1, 0, len(known) - 2)
            part = (rise * wait_s - known[row]) / np.maximum(known[row + 1] - known[row], 1e-300)
            table = self.charge[stage]
            charged = table[:, row] + part * (table[:, row + 1] - table[:, row])
            paid.append(price * charged + slope * (always * wait_s + at))
        cheapest = price * float(self.charge[stage, 0, 0])
        kink = np.append(np.maximum(np.diff(value, 2), 0.0) / spacing, 0.0)
        kink = np.concatenate(([0.0], kink))
        side = np.clip((self.start_s[stage] - at[:-1]) / spacing, 0.0, 1.0)
        own = spacing * side * (1 - side) * float(np.diff(value).max() / spacing)
        best = np.full(nodes + 1, -np.inf)
        for share in _RISES:
            steps = max(1, round(share * nodes))
            below = _running(value - slope * at, steps, np.minimum)
            near = np.min([np.max(one + below, axis=0) for one in paid], axis=0)
            far = value[np.minimum(np.arange(nodes + 1) + steps, nodes)] + cheapest
            found = np.minimum(near, far)
            # Lowered where the chord between two nodes may pass above: see the other programme.
            allowance = np.zeros(nodes + 2)
            allowance[1:-1] = 0.25 * spacing * _running(kink, steps + 2, np.maximum)[:-1] + own
            best = np.maximum(best, found - np.maximum(allowance[:-1], allowance[1:]))
        return np.asarray(np.minimum.accumulate(best[::-1])[::-1])


def _charges(
    chain: Chain, charge: Charge, some: slice, slope: FloatArray, wait_s: FloatArray
) -> FloatArray:
    """Charges of some devices of the chain at slopes (T,) and waits (Y,), summed, (T, Y)."""
    device, work_s = chain.device[some], chain.work_s[:, some]
    noise, fixed = charge.noise[:, device], charge.fixed[:, device]
    least, most, reward = charge.least[device], charge.most[device], charge.reward[device]
    total = np.zeros((len(slope), len(wait_s)))
    held = [k for k in range(len(noise)) if np.isfinite(noise[k]).any()]
    for i, t in enumerate(slope):
        for j, y in enumerate(wait_s):
            best = np.full(len(device), np.inf)
            for k in held:
                pays = t * (y + work_s[k]) - reward
                with np.errstate(divide="ignore", invalid="ignore"):
                    p = np.where(pays > 0, np.sqrt(noise[k] / pays), most)
                p = np.clip(p, least, most)
                np.minimum(best, noise[k] / p + fixed[k] + pays * p, out=best)
            total[i, j] = best.sum()
            if t == 0.0:
                total[i] = total[i, j]
                break
    return total


def _running(row: FloatArray, width: int, better: np.ufunc) -> FloatArray:
    """Extremes of (..., L) over each place and the `width` that follow, shape (..., L)."""
    here, covered = row.copy(), 1
    while covered < width + 1:
        step = min(covered, width + 1 - covered)
        here[..., :-step] = better(here[..., :-step], here[..., step:])
        covered += step
    return here
