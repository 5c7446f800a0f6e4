"""What each device does best while the others keep their plan."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from optimizer.joint.bounds import most_by_energy
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.base import Toggles

_TINY = float(np.finfo(np.float64).tiny)

#: How far above its guess the toll on noise is looked for.
_DECADES = 12


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


class _Answer(NamedTuple):
    """What all devices do at given prices: probability, gain by the rank, candidate, (N,) each."""

    q: FloatArray
    gain: FloatArray
    pick: IntArray


class _Field(NamedTuple):
    """Rounds and round time as sums over devices, (C, N) each, near a plan of R and T.

    A device with q at candidate c changes R to ``fixed + per / q``, T by ``added q - share`` and
    the noise by ``noise / q``; without a bound of the noise the last is not asked for.
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
    noise: FloatArray | None
    noise_limit: float

    def answer(
        self,
        price_s: float,
        reward_s: float = 0.0,
        toll_s: float = 0.0,
        pick: IntArray | None = None,
    ) -> _Answer:
        """Minimise ``price R + T - reward sum q + toll noise`` over each device."""
        slope = self.added_s - reward_s
        rises = slope > 0
        per_s = price_s * self.per
        if self.noise is not None and toll_s:
            per_s = per_s + toll_s * self.noise
        # A device that adds next to nothing is wanted without limit.
        with np.errstate(over="ignore"):
            q = np.sqrt(per_s / np.where(rises, slope, 1.0))
        q = np.clip(np.where(rises, q, 1.0), self.problem.min_probability, self.most)
        value = price_s * self.fixed + per_s / q + slope * q + self.allowed
        device = np.arange(value.shape[1])
        pick = np.argmin(value, axis=0) if pick is None else pick
        return _Answer(q[pick, device], value[0] - value[pick, device], pick)

    def price_of(self, answer: _Answer) -> float:
        """Round time over rounds (s) when all devices answer together."""
        device = np.arange(len(answer.q))
        at = answer.pick, device
        change = self.fixed[at] - self.rounds + self.per[at] / answer.q
        added_s = self.added_s[at] * answer.q - self.share_s
        # Sums of single changes may promise more than there is; a tenth is more than a step gains.
        rounds = max(self.rounds + float(change.sum()), 0.1 * self.rounds)
        return max(self.time_s + float(added_s.sum()), 0.1 * self.time_s) / rounds

    def is_large(self, answer: _Answer, slack: float = 0.0) -> bool:
        """Whether the expected cohort is at its bound or above, or above by a slack."""
        return bool(answer.q.sum() >= self.problem.min_cohort * (1 + slack))

    def is_calm(self, answer: _Answer, slack: float = 0.0) -> bool:
        """Whether the noise is at its bound or below, or below by a slack."""
        if self.noise is None:
            return True
        noise = self.noise[answer.pick, np.arange(len(answer.q))] / answer.q
        return float(noise.sum()) <= self.noise_limit * (1 - slack)


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
    bound is rewarded by a multiplier on ``sum q``, noise above its bound pays a toll.

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
    answer = field.answer(price)
    if price_s is None:
        # The price moves one way only: either sum is monotone in it.
        for _ in range(12):
            before, price = price, field.price_of(answer)
            answer = field.answer(price)
            if abs(np.log(price / before)) < 1e-3:
                break
    if not (field.is_large(answer) and field.is_calm(answer)):
        for _ in range(1 if price_s is not None else 3):
            answer = _answer_within(field, price)
            price = field.price_of(answer) if price_s is None else price_s
    device = np.arange(problem.devices)
    return Response(candidate[answer.pick, device], answer.q, answer.gain)


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
        None if problem.max_noise == np.inf else problem.noise_shares(option),
        problem.noise_limit,
    )


def _answer_within(field: _Field, price_s: float) -> _Answer:
    """Answer with the least reward and toll that bring cohort and noise to their bounds."""
    answer = _rewarded(field, price_s, 0.0)
    if field.is_calm(answer):
        return answer
    at = answer.pick, np.arange(len(answer.q))
    assert field.noise is not None
    noise = float(np.sum(field.noise[at] / answer.q))
    # Where q goes with the root of the price of noise, this toll meets the bound.
    paid_s = price_s * float(np.sum(field.per[at] / answer.q)) / noise
    high = max(paid_s, 1e-9 * field.time_s / noise) * ((noise / field.noise_limit) ** 2 - 1)
    for _ in range(_DECADES):
        if field.is_calm(_rewarded(field, price_s, high)):
            break
        high *= 10
    return _least(lambda toll_s, pick: _rewarded(field, price_s, toll_s, pick), high, field.is_calm)


def _rewarded(
    field: _Field, price_s: float, toll_s: float, pick: IntArray | None = None
) -> _Answer:
    """Answer with the least reward that brings the expected cohort to its bound."""
    answer = field.answer(price_s, 0.0, toll_s, pick)
    if field.is_large(answer):
        return answer
    high = float(np.max(np.where(field.allowed == 0, field.added_s, 0.0))) * (1 + 1e-9)
    return _least(
        lambda reward_s, held: field.answer(
            price_s, reward_s, toll_s, held if pick is None else pick
        ),
        high,
        field.is_large,
    )


def _least(
    answer: Callable[[float, IntArray | None], _Answer],
    high: float,
    meets: Callable[[_Answer, float], bool],
) -> _Answer:
    """Answer at the least multiplier with which a bound is met; at the highest if it never is.

    Where ranks jump with the multiplier, the bound is overshot: with the ranks held, the
    probabilities are continuous in it and meet the bound.
    """

    def search(pick: IntArray | None) -> _Answer:
        # At the upper end every device takes part as often as it may; a multiplier below the
        # lower end would be lost beside the slopes.
        low, top = 1e-9 * high, high
        found = answer(top, pick)
        for _ in range(40):
            middle = float(np.sqrt(low * top))
            trial = answer(middle, pick)
            if not meets(trial, 0.0):
                low = middle
                continue
            top, found = middle, trial
            if not meets(found, 1e-6):
                break
        return found

    found = search(None)
    return found if not meets(found, 1e-6) else search(found.pick)
