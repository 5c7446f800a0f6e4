"""The lower bound of a problem's least time to the target."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bound.chain import Chain, solo_chain, transfer_chain
from optimizer.bound.crowd import Crowd
from optimizer.bound.price import Least, least_product
from optimizer.bound.programme import Charge, least_cost
from optimizer.joint.bounds import raise_to_bounds
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from wireless.link import LinearLink

#: Pieces of the value function, where it is looked at first and in the bound itself.
_COARSE, _FINE = 80, 256

#: Largest fleet that is gone through device by device, and pieces for larger ones.
_DEVICES, _CROWD_NODES = 1500, 1024

#: Prices looked at first, relative to that of the known plan, and the most that follow.
_SPREAD, _PRICES = (1 / 16, 1 / 3, 1.0, 3.0, 16.0), 16

#: Bound and value at the price that decides it differ by no more than this in the end.
_CLOSE = 1e-3

#: Rewards for the expected cohort, in rounds of the known plan over the cohort.
_REWARDS = 4.0 ** np.arange(-3, 3)
_GOLDEN, _SECTIONS = (np.sqrt(5) - 1) / 2, 6

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Bound:
    """A time to the target that no feasible plan beats.

    Parameters
    ----------
    value_s : float
        Lower bound (s) of ``R * E[T]``; nan if none is known.
    note : str
        What it rests on, or why there is none.
    """

    value_s: float
    note: str


def lower_bound(
    problem: Problem, rank: ArrayLike | None = None, probability: ArrayLike | None = None
) -> Bound:
    """Bound the least objective of all feasible plans from below.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank, probability : array_like, shape (N,), optional
        A good plan. It decides where the bound is made tight, not what it says: it holds for all
        plans. By default the best of a few that have one probability for everybody.

    Returns
    -------
    Bound

    Notes
    -----
    The rounds are replaced by the model's separable minorant and the round time by a chain over
    devices (`optimizer.bound.chain`); their product is reduced to sums at given prices
    (`optimizer.bound.price`), and a sum is bounded by a dynamic programme
    (`optimizer.bound.programme`). An expected cohort that the programme would fall short of is
    priced into the rounds; deadlines and limits of energy are left out, which only lowers the
    bound. Fleets of more than 1500 devices are taken in stages (`optimizer.bound.crowd`), without
    the price of the cohort. Every tangent of the round model, chain and price of the cohort gives
    points below one and the same concave function, so they are all used together. Source: own
    derivation.
    """
    ranks = np.arange(problem.min_rank, problem.rank_cap.max() + 1)
    cap = np.searchsorted(ranks, problem.rank_cap)
    charge = _charge(problem, ranks, ranks[cap] if rank is None else np.asarray(rank))
    if charge is None:
        return Bound(np.nan, f"no separable bound of the {problem.rounds.name} rounds is known")
    chains = {"transfers": transfer_chain(problem, ranks)}
    if not isinstance(problem.link, LinearLink):
        chains["solo times"] = solo_chain(problem, ranks)
    if rank is None or probability is None:
        option = cap
        q = _common(problem, chains["transfers"], charge, cap)
    else:
        option = np.searchsorted(ranks, np.asarray(rank))
        # A plan outside the bounds would tell nothing of those within.
        q = raise_to_bounds(problem, rank, np.asarray(probability, dtype=np.float64))
    at_plan, at_caps = charge, _charge(problem, ranks, ranks[cap])
    if at_caps is not None and charge.lowest < 0.5 * at_caps.lowest:
        # A tangent far from good plans says little, and may fall below zero rounds.
        charge = at_caps
    lowest = max(0.0, charge.lowest)
    searches = {
        name: _Search(problem, chain, charge, option, q, lowest) for name, chain in chains.items()
    }
    if problem.devices > _DEVICES:
        name = max(searches, key=lambda one: searches[one].start_price)
    else:
        for search in searches.values():
            search.look()
        name = max(searches, key=lambda one: searches[one].least.product)
    search = searches[name]
    if problem.devices > _DEVICES:
        search.crowd = Crowd.build(search.chain, charge, search.start_price)
        search.look()
        search.close()
        return Bound(search.least.product * (1 - _ROUNDING), f"chain of {name}, in stages")
    search.close()
    least = search.least
    if least.rounds > 0 and least.time_s > 0:
        # The rest of what is free to choose, now that the price that decides is about right.
        for other in _tangents(problem, ranks, charge):
            search.try_charge(other)
        if charge is not at_plan:
            search.try_charge(at_plan)
        search.reward_cohort()
        search.close()
    note = f"chain of {name}"
    return Bound(search.least.product * (1 - _ROUNDING), note)


@dataclass(slots=True)
class _Search:
    """Prices at which one chain's cost is bounded, and what follows for the product.

    The known plan, rows of ranks and probabilities q (N,), tells how high the value function
    matters: at a price s, no better plan of the relaxed problem takes longer than its own time and
    s times the rounds that could be saved on it.
    """

    problem: Problem
    chain: Chain
    charge: Charge
    option: IntArray
    probability: FloatArray
    lowest: float
    price: list[float] = field(default_factory=list)
    found_s: list[float] = field(default_factory=list)
    crowd: Crowd | None = None
    _time_s: float = 0.0
    _top_s: float = 0.0

    def __post_init__(self) -> None:
        p, chain = self.problem, self.chain
        self._time_s = chain.expected_s(self.option, p.takes_part(self.probability))
        everything = np.isfinite(self.charge.noise)
        cap = everything.sum(axis=0) - 1
        self._top_s = chain.expected_s(cap, self.charge.most)
        quickest = chain.expected_s(np.zeros_like(cap), self.charge.least)
        self.price.append(0.0)
        self.found_s.append(p.overhead_s + quickest)

    @property
    def start_price(self) -> float:
        """Price at which the known plan's time and rounds weigh the same."""
        rounds = self.charge.of(self.option, self.problem.takes_part(self.probability))
        return (self.problem.overhead_s + self._time_s) / rounds

    @property
    def least(self) -> Least:
        """Lower bound of the product from all prices so far."""
        order = np.argsort(self.price, kind="stable")
        price, cost_s = np.array(self.price)[order], np.array(self.found_s)[order]
        # The better of the bounds at one price.
        first = np.flatnonzero(np.diff(price, prepend=-1.0))
        return least_product(price[first], np.maximum.reduceat(cost_s, first), self.lowest)

    def cost_s(self, price: float, nodes: int) -> float:
        """Bound ``price * R + F`` from below, and keep it."""
        rounds = self.charge.of(self.option, self.problem.takes_part(self.probability))
        highest_s = self._time_s + price * (rounds - self.charge.lowest)
        highest_s = min(highest_s, self._top_s) * (1 + 1e-6)
        if self.crowd is None:
            cost_s = least_cost(self.chain, self.charge, price, highest_s, nodes)
        else:
            cost_s = self.crowd.least_cost(price, highest_s, _CROWD_NODES)
        cost_s += self.problem.overhead_s
        self.price.append(price)
        self.found_s.append(cost_s)
        return cost_s

    def look(self) -> None:
        """Bound the cost roughly at prices far around that of the known plan."""
        for factor in _SPREAD:
            self.cost_s(self.start_price * factor, _COARSE)

    def close(self) -> None:
        """Add the price that decides the bound until it is as good as it gets."""
        for _ in range(_PRICES):
            least = self.least
            if not (least.rounds > 0 and least.time_s > 0):
                return
            price = least.time_s / least.rounds
            if self.cost_s(price, _FINE) ** 2 <= 4 * price * least.product * (1 + _CLOSE):
                return

    def try_charge(self, charge: Charge) -> bool:
        """Take another charge over if it does better at the price that decides."""
        least, kept = self.least, self.charge
        price = least.time_s / least.rounds
        here = self.cost_s(price, _COARSE)
        self.charge = charge
        if self.cost_s(price, _COARSE) > here:
            return True
        self.charge = kept
        return False

    def reward_cohort(self) -> None:
        """Price the bound of the expected cohort into the rounds, as dearly as is best."""
        p, free, least = self.problem, self.charge, self.least
        price = least.time_s / least.rounds
        unit = least.rounds / p.min_cohort if p.min_cohort > 0 else 0.0

        def bound_s(reward: float) -> float:
            self.charge = replace(
                free,
                constant=free.constant + reward * p.min_cohort,
                reward=reward / p.completion,
            )
            return self.cost_s(price, _COARSE)

        # Concave in the reward: up a ladder until it falls, then by golden section.
        tried = [(0.0, bound_s(0.0))]
        for rung in unit * _REWARDS if unit > 0 else ():
            tried.append((rung, bound_s(rung)))
            if tried[-1][1] <= tried[-2][1]:
                break
        if len(tried) > 2:
            low, high = tried[-3][0], tried[-1][0]
            for _ in range(_SECTIONS):
                inner = _GOLDEN * (high - low)
                left, right = ((x, bound_s(x)) for x in (high - inner, low + inner))
                tried += [left, right]
                low, high = (low, right[0]) if left[1] > right[1] else (left[0], high)
        bound_s(max(tried, key=lambda one: one[1])[0])


def _charge(problem: Problem, ranks: IntArray, rank: FloatArray) -> Charge | None:
    """Minorant of the rounds that is tight at ranks (N,), over probabilities of taking part."""
    minorant = problem.rounds.minorant(
        problem.weight, problem.variance, rank / problem.rank, ranks / problem.rank
    )
    if minorant is None:
        return None
    held = ranks[:, None] <= problem.rank_cap
    return Charge(
        minorant.constant,
        np.where(held, minorant.per_probability * problem.completion, np.inf),
        np.where(held, minorant.fixed, 0.0),
        np.zeros(problem.devices),
        problem.takes_part(problem.min_probability),
        problem.completion,
    )


def _tangents(problem: Problem, ranks: IntArray, known: Charge) -> Iterator[Charge]:
    """Charges that are tight at other ranks, where the model is curved at all."""
    for level in np.unique(np.geomspace(ranks[0], ranks[-1], 4)):
        charge = _charge(problem, ranks, np.minimum(level, problem.rank_cap))
        if charge is not None and not (
            charge.constant == known.constant and np.array_equal(charge.fixed, known.fixed)
        ):
            yield charge


def _common(problem: Problem, chain: Chain, charge: Charge, option: IntArray) -> FloatArray:
    """Probabilities (N,) of the best plan that samples alike, by the bounds themselves."""
    least = max(float(problem.min_probability.max()), problem.min_cohort / problem.devices)

    def product(level: float) -> float:
        p = problem.takes_part(np.full(problem.devices, level))
        return charge.of(option, p) * (problem.overhead_s + chain.expected_s(option, p))

    return np.full(problem.devices, min(np.geomspace(least, 1.0, 12), key=product))
