"""The lower bound of a problem's least time to the target."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bound.bulk import Parted
from optimizer.bound.chain import Chain, solo_chain, starts, transfer_chain
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

#: Prices of the bounds of cohort and noise, in times of the deciding price over these.
_RUNGS = 4.0 ** np.arange(-3, 3)
_GOLDEN, _SECTIONS = (np.sqrt(5) - 1) / 2, 6

_ROUNDING = 1e-9

Sums = tuple[Charge, ...]


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
    The rounds are replaced by sums over devices whose product they do not fall below, and the round
    time by a chain over devices (`optimizer.bound.chain`), or by a chain that follows a bulk of
    early devices (`optimizer.bound.bulk`). The product of sums and time is reduced to a sum at
    given prices (`optimizer.bound.price`), which a dynamic programme bounds
    (`optimizer.bound.programme`). An expected cohort that the programme would fall short of, and
    noise above its limit, are priced into the cost; deadlines and limits of energy are left out,
    which only lowers the bound. Fleets of more than 1500 devices are taken in stages
    (`optimizer.bound.crowd`), as chains with one sum and without these prices. Every tangent of the
    round model, chain, bulk and price of a bound gives points below one and the same concave
    function, so they are all used together. Source: own derivation.
    """
    ranks = np.arange(problem.min_rank, problem.rank_cap.max() + 1)
    cap = np.searchsorted(ranks, problem.rank_cap)
    sums = _sums(problem, ranks, ranks[cap] if rank is None else np.asarray(rank))
    if sums is None:
        return Bound(np.nan, f"no separable bound of the {problem.rounds.name} rounds is known")
    chains = {"transfers": transfer_chain(problem, ranks)}
    if not isinstance(problem.link, LinearLink):
        chains["solo times"] = solo_chain(problem, ranks)
    if rank is None or probability is None:
        option = cap
        takes_part = _common(problem, chains["transfers"], sums, cap)
    else:
        option = np.searchsorted(ranks, np.asarray(rank))
        # A plan outside the bounds would tell nothing of those within.
        raised = raise_to_bounds(problem, rank, np.asarray(probability, dtype=np.float64))
        takes_part = problem.takes_part(raised)
    at_plan, at_caps = sums, _sums(problem, ranks, ranks[cap])
    if at_caps is not None and _product(at_plan) < 0.5 * _product(at_caps):
        # A tangent far from good plans says little, and may fall below zero rounds.
        sums = at_caps
    if problem.devices > _DEVICES:
        name = max(chains, key=lambda one: chains[one].expected_s(option, takes_part))
        search = _Search(problem, (_joined(sums),), option, takes_part, chains)
        search.crowd = Crowd.build(chains[name], search.sums[0], float(search.start_price[0]))
        search.look(name)
        search.close(name)
        return Bound(search.least.product * (1 - _ROUNDING), f"chain of {name}, in stages")
    search = _Search(
        problem,
        sums,
        option,
        takes_part,
        {f"chain of {name}": chain for name, chain in chains.items()},
    )
    name, chain = list(chains.items())[-1]
    start_s = chain.start_s if name == "transfers" else starts(problem, ranks)[:, chain.device]
    charge = Charge.priced(sums, search.start_price)
    search.add(
        f"bulk, then {name}",
        Parted.build(problem, ranks, chain, start_s, charge, option, takes_part),
    )
    name = max(search.ways, key=search.at_start)
    search.look(name)
    search.close(name)
    if np.all(search.least.sums > 0):
        # The rest of what is free to choose, now that the price that decides is about right.
        for other in _tangents(problem, ranks, sums):
            search.try_sums(name, other)
        if sums is not at_plan:
            search.try_sums(name, at_plan)
        search.price_bounds(name)
        search.close(name)
    return Bound(search.least.product * (1 - _ROUNDING), name)


class _Search:
    """Prices at which the cost of rounds and time is bounded, and what follows for the product.

    The known plan, rows of ranks and probabilities c_n q_n, tells how high a value function
    matters: at given prices, no better plan of the relaxed problem takes longer than its own time
    and the price of the rounds that could be saved on it.
    """

    def __init__(
        self,
        problem: Problem,
        sums: Sums,
        option: IntArray,
        takes_part: FloatArray,
        chains: Mapping[str, Chain],
    ) -> None:
        self.problem, self.sums = problem, sums
        self.option, self.takes_part = option, takes_part
        self.reward_s = self.toll_s = 0.0
        self.crowd: Crowd | None = None
        ranks = np.arange(problem.min_rank, problem.rank_cap.max() + 1)[:, None]
        #: Noise of each rank and device (C, N) if it takes part in every round.
        self.noise = problem.noise_shares(ranks) * problem.completion
        self.lowest = np.array([max(0.0, one.lowest) for one in sums])
        self.price, self.found_s = [np.zeros(len(sums))], [problem.overhead_s]
        self.ways: dict[str, Chain | Parted] = {}
        self.time_s: dict[str, float] = {}
        self.top_s: dict[str, float] = {}
        first = sums[0]
        quickest, cap = np.zeros_like(option), np.isfinite(first.noise).sum(axis=0) - 1
        for name, chain in chains.items():
            self.add(name, chain)
            least_s = problem.overhead_s + chain.expected_s(quickest, first.least)
            self.found_s[0] = max(self.found_s[0], least_s)
            self.top_s[name] = chain.expected_s(cap, first.most)

    def add(self, name: str, way: Chain | Parted) -> None:
        """Take one more way to bound the time."""
        self.ways[name] = way
        self.time_s[name] = way.expected_s(self.option, self.takes_part)

    @property
    def start_price(self) -> FloatArray:
        """Prices (M,) at which the known plan's time and sums weigh the same."""
        rounds = [one.of(self.option, self.takes_part) for one in self.sums]
        return (self.problem.overhead_s + max(self.time_s.values())) / np.array(rounds)

    @property
    def least(self) -> Least:
        """Lower bound of the product from all prices so far."""
        return least_product(np.array(self.price), np.array(self.found_s), self.lowest)

    def cost_s(self, name: str, price: FloatArray, nodes: int) -> float:
        """Bound ``price . R + F`` from below by one of the ways, and keep it."""
        p, way = self.problem, self.ways[name]
        charge = Charge.priced(self.sums, price)
        if self.reward_s:
            charge = replace(
                charge,
                constant=charge.constant + self.reward_s * p.min_cohort,
                reward=charge.reward + self.reward_s / p.completion,
            )
        if self.toll_s:
            charge = replace(
                charge,
                constant=charge.constant - self.toll_s * p.noise_limit,
                noise=charge.noise + self.toll_s * self.noise,
            )
        saved_s = charge.of(self.option, self.takes_part) - charge.lowest
        highest_s = min(self.time_s[name] + saved_s, self.top_s.get(name, np.inf)) * (1 + 1e-6)
        if self.crowd is not None:
            cost_s = self.crowd.least_cost(float(price[0]), highest_s, _CROWD_NODES)
        elif isinstance(way, Chain):
            cost_s = least_cost(way, charge, highest_s, nodes)
        else:
            cost_s = way.least_cost(charge, self.option, self.takes_part, highest_s, nodes)
        cost_s += p.overhead_s
        self.price.append(price)
        self.found_s.append(cost_s)
        return cost_s

    def look(self, name: str) -> None:
        """Bound the cost roughly at prices far around that of the known plan."""
        for factor in _SPREAD:
            self.cost_s(name, self.start_price * factor, _COARSE)

    def at_start(self, name: str) -> float:
        """Bound the cost roughly at the price of the known plan."""
        return self.cost_s(name, self.start_price, _COARSE)

    def close(self, name: str) -> None:
        """Add the price that decides the bound until it is as good as it gets."""
        for _ in range(_PRICES):
            least = self.least
            if not (np.all(least.sums > 0) and least.time_s > 0):
                return
            terms = len(least.sums) + 1
            cost_s = self.cost_s(name, least.price, _FINE)
            if cost_s <= terms * least.time_s * (1 + _CLOSE) ** (1 / terms):
                return

    def try_sums(self, name: str, sums: Sums) -> None:
        """Take other sums over if they do better at the price that decides."""
        price, kept = self.least.price, self.sums
        here = self.cost_s(name, price, _COARSE)
        self.sums = sums
        if self.cost_s(name, price, _COARSE) <= here:
            self.sums = kept

    def price_bounds(self, name: str) -> None:
        """Price the bounds of cohort and noise into the cost, as dearly as is best."""
        p, least = self.problem, self.least

        def rewarded_s(reward_s: float) -> float:
            self.reward_s = reward_s
            return self.cost_s(name, least.price, _COARSE)

        def tolled_s(toll_s: float) -> float:
            self.toll_s = toll_s
            return self.cost_s(name, least.price, _COARSE)

        if p.min_cohort > 0:
            self.reward_s = _highest(rewarded_s, least.time_s / p.min_cohort)
        if p.noise_limit < np.inf:
            self.toll_s = _highest(tolled_s, least.time_s / p.noise_limit)


def _highest(bound_s: Callable[[float], float], unit: float) -> float:
    """Argument >= 0 at which a concave function is about highest, on a ladder of a unit's powers.

    Up the ladder until it falls, then by golden section.
    """
    tried = [(0.0, bound_s(0.0))]
    for rung in unit * _RUNGS:
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
    return max(tried, key=lambda one: one[1])[0]


def _sums(problem: Problem, ranks: IntArray, rank: FloatArray) -> Sums | None:
    """Sums of the rounds that are tight at ranks (N,), over probabilities of taking part."""
    minorant = problem.rounds.minorant(
        problem.weight, problem.variance, rank / problem.rank, ranks / problem.rank
    )
    if minorant is None:
        return None
    held = ranks[:, None] <= problem.rank_cap
    return tuple(
        Charge(
            one.constant,
            np.where(held, one.per_probability * problem.completion, np.inf),
            np.where(held, one.fixed, 0.0),
            np.zeros(problem.devices),
            problem.takes_part(problem.min_probability),
            problem.completion,
        )
        for one in minorant
    )


def _product(sums: Sums) -> float:
    """Product of the sums' least values."""
    return float(np.prod([one.lowest for one in sums]))


def _joined(sums: Sums) -> Charge:
    """One sum below the product of some: all of them at their least but one at a time.

    Of ``x_m >= l_m >= 0`` the product is at least ``l + sum_m (x_m - l_m) l / l_m``, l that of the
    l_m, since what is left out are products of differences (McCormick, Mathematical Programming 10,
    1976).
    """
    lowest = np.array([max(0.0, one.lowest) for one in sums])
    others = np.array([np.prod(np.delete(lowest, m)) for m in range(len(sums))])
    joined = Charge.priced(sums, others)
    return replace(joined, constant=joined.constant - (len(sums) - 1) * float(lowest.prod()))


def _tangents(problem: Problem, ranks: IntArray, known: Sums) -> Iterator[Sums]:
    """Sums that are tight at other ranks, where the model is curved at all."""
    for level in np.unique(np.geomspace(ranks[0], ranks[-1], 4)):
        sums = _sums(problem, ranks, np.minimum(level, problem.rank_cap))
        if sums is not None and not all(
            new.constant == old.constant and np.array_equal(new.fixed, old.fixed)
            for new, old in zip(sums, known, strict=True)
        ):
            yield sums


def _common(problem: Problem, chain: Chain, sums: Sums, option: IntArray) -> FloatArray:
    """Probabilities c_n q_n (N,) of the best plan that samples alike, by the bounds themselves."""
    least = max(float(problem.min_probability.max()), problem.min_cohort / problem.devices)

    def parts(level: float) -> FloatArray:
        return problem.takes_part(np.full(problem.devices, level))

    def product(level: float) -> float:
        p = parts(level)
        rounds = float(np.prod([one.of(option, p) for one in sums]))
        return rounds * (problem.overhead_s + chain.expected_s(option, p))

    return parts(min(np.geomspace(least, 1.0, 12), key=product))
