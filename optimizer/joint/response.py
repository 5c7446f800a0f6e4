"""What each device does best while the others keep their plan."""

from typing import NamedTuple

import numpy as np

from optimizer.joint.bounds import most_by_energy
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import Toggles

_TINY = float(np.finfo(np.float64).tiny)


class Response(NamedTuple):
    """Ranks and probabilities (N,) of all devices, and what each gains by its rank.

    Parameters
    ----------
    rank, probability : ndarray, shape (N,)
        The responses.
    gain : ndarray, shape (N,)
        Decrease of a device's share of the objective against the first candidate.
    """

    rank: FloatArray
    probability: FloatArray
    gain: FloatArray


class _Field(NamedTuple):
    """Rounds and round time as sums over devices, (C, N) each, near a plan of R and T.

    A device with q at candidate c changes R to ``fixed + per / q`` and T by ``added q - share``.
    """

    problem: Problem
    rounds: float
    time_s: float
    fixed: FloatArray
    per: FloatArray
    added_s: FloatArray
    share_s: FloatArray
    most: FloatArray
    allowed: FloatArray

    def answer(
        self, price_s: float, reward_s: float, pick: IntArray | None = None
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Minimise ``price R + T - reward sum q`` over each device: q, gain, candidate (N,)."""
        slope = self.added_s - reward_s
        rises = slope > 0
        # A device that adds next to nothing is wanted without limit.
        with np.errstate(over="ignore"):
            q = np.sqrt(price_s * self.per / np.where(rises, slope, 1.0))
        q = np.clip(np.where(rises, q, 1.0), self.problem.min_probability, self.most)
        value = price_s * (self.fixed + self.per / q) + slope * q + self.allowed
        device = np.arange(value.shape[1])
        pick = np.argmin(value, axis=0) if pick is None else pick
        return q[pick, device], value[0] - value[pick, device], pick

    def price_of(self, q: FloatArray, pick: IntArray) -> float:
        """Round time over rounds (s) when all devices answer together."""
        device = np.arange(len(q))
        change = self.fixed[pick, device] - self.rounds + self.per[pick, device] / q
        added_s = self.added_s[pick, device] * q - self.share_s
        # Sums of single changes may promise more than there is; a tenth is more than a step gains.
        rounds = max(self.rounds + float(change.sum()), 0.1 * self.rounds)
        return max(self.time_s + float(added_s.sum()), 0.1 * self.time_s) / rounds


def respond(
    problem: Problem,
    rank: FloatArray,
    probability: FloatArray,
    toggles: Toggles,
    candidate: FloatArray,
    price_s: float | None = None,
) -> Response:
    """Answer of all devices at once to a plan.

    Near a plan, rounds are a sum over devices of ``fixed + per / q`` and the round time is one of
    ``added q``. The product of two such sums is least where each device minimises
    ``price R + T`` with the price of a round that the answers themselves have, ``price = T / R``:
    a fixed point in one number, which foresees that everybody moves. An expected cohort below its
    bound is rewarded by a multiplier on ``sum q``.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank, probability : ndarray, shape (N,)
        Current plan.
    toggles : Toggles
        Round time along each device at the candidates.
    candidate : ndarray, shape (C, N)
        Ranks to choose from; those outside min_rank..cap are ignored.
    price_s : float, optional
        Price of a round (s); by default the fixed point.

    Returns
    -------
    Response

    Notes
    -----
    Source: own derivation.
    """
    field = _field(problem, rank, probability, toggles, candidate)
    price = field.time_s / field.rounds if price_s is None else price_s
    q, gain, pick = field.answer(price, 0.0)
    if price_s is None:
        # The price moves one way only: either sum is monotone in it.
        for _ in range(12):
            before, price = price, field.price_of(q, pick)
            q, gain, pick = field.answer(price, 0.0)
            if abs(np.log(price / before)) < 1e-3:
                break
    if q.sum() < problem.min_cohort:
        for _ in range(1 if price_s is not None else 3):
            q, gain, pick = _answer_enough(field, price)
            price = field.price_of(q, pick) if price_s is None else price_s
    device = np.arange(problem.devices)
    return Response(candidate[pick, device], q, gain)


def _field(
    problem: Problem,
    rank: FloatArray,
    probability: FloatArray,
    toggles: Toggles,
    candidate: FloatArray,
) -> _Field:
    allowed = (candidate >= problem.min_rank) & (candidate <= problem.rank_cap)
    option = np.where(allowed, candidate, problem.rank_cap)
    along = problem.rounds.along(
        problem.weight,
        problem.variance,
        rank / problem.rank,
        probability,
        option / problem.rank,
    )
    most = most_by_energy(problem, toggles, option)
    # Where the energy allows no candidate, the least wasteful one stays.
    frugal = np.where(allowed, most, -1.0)
    allowed &= (most >= problem.min_probability) | (frugal == frugal.max(axis=0))
    return _Field(
        problem,
        problem.rounds_of(rank, probability),
        toggles.mean_s,
        along.fixed,
        along.per_probability,
        np.maximum(toggles.added_s, _TINY),
        toggles.mean_s - toggles.without_s,
        np.maximum(most, problem.min_probability),
        np.where(allowed, 0.0, np.inf),
    )


def _answer_enough(field: _Field, price_s: float) -> tuple[FloatArray, FloatArray, IntArray]:
    """Answer with the least reward that brings the expected cohort to its bound."""
    least = field.problem.min_cohort
    high = float(np.max(np.where(field.allowed == 0, field.added_s, 0.0))) * (1 + 1e-9)

    def search(pick: IntArray | None) -> tuple[FloatArray, FloatArray, IntArray]:
        # At the upper end every device takes part as often as it may; a reward below the lower
        # end would be lost beside the slopes.
        low, top = 1e-9 * high, high
        found = field.answer(price_s, top, pick)
        for _ in range(40):
            middle = float(np.sqrt(low * top))
            trial = field.answer(price_s, middle, pick)
            if trial[0].sum() < least:
                low = middle
                continue
            top, found = middle, trial
            if found[0].sum() <= least * (1 + 1e-6):
                break
        return found

    # Where ranks jump with the multiplier, the cohort overshoots its bound: with the ranks held,
    # the probabilities are continuous in it and meet the bound.
    found = search(None)
    return found if found[0].sum() <= least * (1 + 1e-6) else search(found[2])
