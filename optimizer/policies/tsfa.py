"""Ranks chosen round by round under a bound on the mean round time."""

import numpy as np

from optimizer.cohort import Cohort, draw_cohort
from optimizer.outcome import Outcome
from optimizer.plan import Plan
from optimizer.policies.parts import members_s
from optimizer.policies.scale import best_scale, search_times
from optimizer.policies.uniform import uniform
from optimizer.problem import IntArray, Problem, in_turn
from optimizer.rounds import FloatArray

_TIMES = 32
_HALVINGS = 50


def tsfa(
    problem: Problem,
    seed: int,
    probability: float | None = None,
    mean_round_s: float | None = None,
    tradeoff: float = 1.0,
) -> tuple[IntArray, FloatArray]:
    """Choose one structural rank for the fleet beforehand; `Tsfa` then sparsifies it online.

    The structural rank is the one of r, r/2, r/4, ... with the least expected time to the target
    under a common probability, cut to each device's cap.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Root seed of the draws that the search uses.
    probability : float, optional
        The common probability; by default the best for each rank.
    mean_round_s, tradeoff
        See `Tsfa`.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Structural ranks.
    probability : ndarray, shape (N,)
        N times the same number.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    Source: after arXiv 2505.00333, as far as its abstract tells; see `Tsfa`.
    """
    _check(problem, mean_round_s, tradeoff)
    times = search_times(problem, seed)
    best_s, best = np.inf, (problem.rank_cap, np.ones(problem.devices))
    common = problem.rank
    while common >= problem.min_rank:
        if probability is None:
            rank = np.minimum(common, problem.rank_cap)
            q = best_scale(problem, np.ones(problem.devices), rank, seed, times)
        else:
            rank, q = uniform(problem, seed, common, probability)
        value_s = problem.rounds_of(rank, q) * times.mean_s(rank, q)
        if value_s < best_s:
            best_s, best = value_s, (rank, q)
        common //= 2
    return best


class Tsfa:
    """Sampler of `tsfa`: drift plus penalty on a virtual queue of time.

    Cohorts are independent and weights unbiased. When the cohort of round t is known, its ranks
    minimise ``V sum_n v_n (r_n / k_n - 1) + Q T(k)`` over ``k_n`` from `min_rank` to the structural
    rank r_n, with T(k) the round time under the problem's rule; then
    ``Q <- max(Q + T - T_bar, 0)``. So the mean round time tends to at most T_bar if ranks of
    `min_rank` allow it, and ranks are cut in the rounds in which that saves most.

    Parameters
    ----------
    problem : Problem
        The fleet.
    plan : Plan
        Structural ranks and probabilities.
    seed : int
        Root seed of the cohorts.
    probability : float, optional
        Not looked at: the plan has it.
    mean_round_s : float, optional
        T_bar (s), more than the overhead; by default the problem's deadline, and where it has none
        the plan's expected round time, so that long rounds are made up for.
    tradeoff : float
        ``V / T_bar^2``, >= 0: high values keep the structural rank for longer.

    Attributes
    ----------
    queue_s : float
        Q (s). Drawing a round adds the time it should take; `learn` puts in its place the time that
        it took.

    Notes
    -----
    Source: after arXiv 2505.00333: two time scales, the virtual queue and the structure of the
    objective. Ours are the penalty, the extra variance of a sketch of k out of r ranks, and the
    solution: for each of 32 times T between those of all at `min_rank` and all at r_n, the ranks of
    least penalty whose equal-finish needs fit the band, ``sum_n b_n(k_n; T) <= B``, by bisection
    on the price of bandwidth; of these ranks those with the least drift plus penalty under the rule
    itself.
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        seed: int,
        probability: float | None = None,  # noqa: ARG002
        mean_round_s: float | None = None,
        tradeoff: float = 1.0,
    ) -> None:
        _check(problem, mean_round_s, tradeoff)
        if mean_round_s is None:
            mean_round_s = min(problem.deadline_s, plan.expected_round_s)
        self._problem, self._plan, self._seed = problem, plan, seed
        self._mean_s, self._tradeoff = mean_round_s, tradeoff
        self.queue_s = self._before_s = 0.0

    def draw(self, round_index: int) -> Cohort:
        """Return the cohort of a round: see `optimizer.sampler.Sampler`."""
        drawn = draw_cohort(self._plan, self._problem.unbiased_weight, self._seed, round_index)
        # Both terms are divided by T_bar: V then has no unit.
        rank, time_s = sparsify(
            self._problem,
            drawn,
            self._tradeoff * self._mean_s,
            self.queue_s / self._mean_s,
        )
        self._before_s = self.queue_s
        self.queue_s = max(self.queue_s + time_s - self._mean_s, 0.0)
        return Cohort(drawn.device, rank, drawn.weight)

    def learn(self, outcome: Outcome) -> None:
        """Correct the queue by the duration of the round drawn last."""
        self.queue_s = max(self._before_s + outcome.duration_s - self._mean_s, 0.0)


def sparsify(
    problem: Problem, cohort: Cohort, penalty: float, price: float
) -> tuple[IntArray, float]:
    """Ranks of a cohort with the least ``penalty * sum v_n (r_n / k_n - 1) + price * T(k)``.

    Parameters
    ----------
    problem : Problem
        The fleet.
    cohort : Cohort
        Members with their weights v_n and highest ranks r_n.
    penalty, price : float
        Weights of the two terms, >= 0.

    Returns
    -------
    rank : ndarray of int, shape (M,)
        Ranks from `min_rank` to r_n.
    time_s : float
        T(k) (s), overhead included.
    """
    full = cohort.rank
    full_s = float(members_s(problem, cohort.device, full))
    if not len(full) or price <= 0:
        return full, full_s
    least = np.full(len(full), problem.min_rank)
    ends_s = np.linspace(float(members_s(problem, cohort.device, least)), full_s, _TIMES)
    trial = np.stack([full, *_fitting(problem, cohort, ends_s), least])
    time_s = members_s(problem, cohort.device, trial)
    loss = (full / trial - 1) @ cohort.weight
    # Equal values, as without penalty, go to the shorter round; then to the higher ranks.
    value = penalty * loss + price * time_s
    best = np.lexsort((loss, time_s, value))[0]
    return trial[best].astype(np.int64), float(time_s[best])


def _fitting(problem: Problem, cohort: Cohort, ends_s: FloatArray) -> IntArray:
    """Ranks (G, M) of least penalty with which a cohort ends by each of G times, or nearly so."""
    device, full = cohort.device, cohort.rank
    option = np.arange(problem.min_rank, full.max() + 1)[:, None]
    k = np.minimum(option, full)
    compute_s = problem.compute_base_s[device] + k * problem.compute_per_rank_s[device]
    ready_s = compute_s
    if problem.download_bps is not None:
        # Those served before are taken at their highest ranks.
        bits = problem.fixed_down_bits[device] + np.vstack([full, k]) * problem.down_bits_per_rank
        own_s = bits / problem.download_bps[device]
        queue_s = in_turn(own_s[0], problem.cell[device]) - own_s[0]
        ready_s = compute_s + queue_s + own_s[1:]
    left_s = np.maximum(ends_s[:, None, None] - problem.overhead_s - ready_s, 0.0)
    with np.errstate(divide="ignore"):
        need_hz = problem.link.take(device).bandwidth(problem.upload_bits(k, device) / left_s)
    # A finite number far above the band, so that the price of bandwidth keeps its meaning.
    need = np.minimum(need_hz / problem.bandwidth_hz, 1e6)
    loss = cohort.weight * (full / k - 1)
    cell, number = np.unique(problem.cell[device], return_inverse=True)
    inside = number[:, None] == np.arange(len(cell))

    def pick(log_price: FloatArray) -> IntArray:
        cost = loss + np.exp(log_price)[:, None, number] * need
        return np.asarray(np.argmin(cost, axis=1), dtype=np.int64)

    low = np.full((len(ends_s), len(cell)), -60.0)
    high = np.full((len(ends_s), len(cell)), 60.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        used = np.take_along_axis(need, pick(middle)[:, None], axis=1)[:, 0]
        fits = used @ inside <= 1.0
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return np.take_along_axis(k[None], pick(high)[:, None], axis=1)[:, 0].astype(np.int64)


def _check(problem: Problem, mean_round_s: float | None, tradeoff: float) -> None:
    if mean_round_s is not None and not problem.overhead_s < mean_round_s < np.inf:
        raise ValueError(
            f"mean_round_s is {mean_round_s}: give more than overhead_s = {problem.overhead_s:g}"
        )
    if not 0 <= tradeoff < np.inf:
        raise ValueError(f"tradeoff is {tradeoff}: give zero or more")
