"""Joint choice of ranks and sampling probabilities.

The objective ``R(q, k) * (T_oh + E[T(q, k)])`` is, along one device, a product of
``alpha + beta/q`` and ``gamma + delta q``: its best q has a closed form, and its best k is the best
of these closed forms over the candidates. Both stages iterate on that response of all devices at
once. The first takes gamma and delta from the surrogate and, from each of several starts, finds its
basin (few devices one after the other, or many in parallel); the second takes them from tabulated
cohort draws and only accepts steps that lower the sampled objective. Source: own derivation.
"""

from collections.abc import Iterator

import numpy as np

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.times.surrogate import surrogate_round_time
from optimizer.times.tabulated import TabulatedRoundTime
from wireless.spectrum import solo_finish_time


def best_response(
    problem: Problem,
    rank: FloatArray,
    probability: FloatArray,
    candidate: FloatArray,
    without_s: FloatArray,
    added_s: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best rank and probability of each device while the others keep theirs.

    Where the answers together would leave the expected cohort below its bound, presence is
    rewarded by a multiplier, found by bisection, until they do not.

    Parameters
    ----------
    problem : Problem
        The fleet.
    rank, probability : ndarray, shape (N,)
        Current plan; ranks may be real.
    candidate : ndarray, shape (C, N)
        Ranks to choose from; those outside 1..cap are ignored.
    without_s : ndarray, shape (N,)
        Expected round time (s) without device n, overhead included.
    added_s : ndarray, shape (C, N)
        What device n adds to it (s) at each candidate rank.

    Returns
    -------
    rank, probability : ndarray, shape (N,)
        The responses.
    gain : ndarray, shape (N,)
        Decrease of the objective (s) against the first candidate at its own best probability.
    """
    allowed = (candidate >= problem.min_rank) & (candidate <= problem.rank_cap)
    option = np.where(allowed, candidate, problem.rank_cap) / problem.rank
    alpha, beta = problem.rounds.along(
        problem.weight, problem.variance, rank / problem.rank, probability, option
    )
    delta = np.maximum(added_s, np.finfo(np.float64).tiny)
    device = np.arange(problem.devices)

    def respond(reward: float, pick: IntArray | None) -> tuple[FloatArray, FloatArray, IntArray]:
        slope = alpha * delta - reward
        with np.errstate(over="ignore", divide="ignore"):
            q = np.sqrt(beta * without_s / np.where(slope > 0, slope, 1.0))
        q = np.where(slope > 0, np.clip(q, problem.min_probability, 1.0), 1.0)
        value = (alpha + beta / q) * (without_s + delta * q) - reward * q
        value = np.where(allowed, value, np.inf)
        pick = np.argmin(value, axis=0) if pick is None else pick
        return q[pick, device], value[0] - value[pick, device], pick

    def respond_enough(pick: IntArray | None) -> tuple[FloatArray, FloatArray, IntArray]:
        answer = respond(0.0, pick)
        if answer[0].sum() >= problem.min_cohort:
            return answer
        # At the upper end every device takes part for certain; a reward below the lower end would
        # be lost beside the slopes.
        high = float(np.max(np.where(allowed, alpha * delta, 0.0)))
        low, answer = 1e-9 * high, respond(high, pick)
        for _ in range(40):
            middle = float(np.sqrt(low * high))
            trial = respond(middle, pick)
            if trial[0].sum() >= problem.min_cohort:
                high, answer = middle, trial
            else:
                low = middle
        return answer

    _, gain, pick = respond_enough(None)
    # Where ranks jump with the multiplier, the cohort overshoots its bound: with the ranks held,
    # the probabilities are continuous in it and meet the bound exactly.
    q, _, _ = respond_enough(pick)
    return candidate[pick, device], q, gain


def raise_to_cohort(problem: Problem, probability: FloatArray) -> FloatArray:
    """Scale probabilities up until the expected cohort reaches its lower bound.

    Parameters
    ----------
    problem : Problem
        The fleet.
    probability : ndarray, shape (N,)
        Positive numbers.

    Returns
    -------
    ndarray, shape (N,)
        ``clip(c q, q_min, 1)`` with the smallest c >= 1 that will do.
    """

    def scaled(factor: float) -> FloatArray:
        return np.clip(factor * probability, problem.min_probability, 1.0)

    low, high = 1.0, max(1.0, 1.0 / float(probability.min()))
    if scaled(low).sum() >= problem.min_cohort:
        return scaled(low)
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        if scaled(middle).sum() >= problem.min_cohort:
            high = middle
        else:
            low = middle
    return scaled(high)


def starts(problem: Problem) -> Iterator[FloatArray]:
    """Probabilities from which the basins of the objective are reached, all at the rank caps.

    Parameters
    ----------
    problem : Problem
        The fleet.

    Yields
    ------
    ndarray, shape (N,)
        Everybody; a sparse cohort with q proportional to ``sqrt(A_n / T_n)``, T_n the time of the
        device alone; the middle of both; and cores of the fastest quarter, half and three quarters.
    """
    cap = problem.rank_cap
    compute_s = problem.compute_s(cap)
    alone_s = problem.overhead_s + solo_finish_time(
        problem.download_s(cap) + compute_s,
        problem.upload_bits(cap),
        problem.link,
        problem.bandwidth_hz,
    )
    everybody = np.ones(problem.devices)
    sparse = np.sqrt(problem.variance / alone_s)
    sparse = np.clip(sparse / sparse.sum(), problem.min_probability, 1.0)
    yield everybody
    yield raise_to_cohort(problem, sparse)
    yield raise_to_cohort(problem, np.sqrt(sparse))
    for share in (0.25, 0.5, 0.75):
        core = compute_s <= np.quantile(compute_s, share)
        yield raise_to_cohort(problem, np.where(core, everybody, sparse))


def descend_surrogate(problem: Problem, probability: FloatArray) -> tuple[IntArray, FloatArray]:
    """Damped fixed point of the best responses under the surrogate round time.

    Parameters
    ----------
    problem : Problem
        The fleet.
    probability : ndarray, shape (N,)
        Start; the ranks start at their caps.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.
    """
    rank, q = problem.rank_cap.astype(np.float64), probability
    ladder = np.repeat(np.arange(1.0, problem.rank + 1)[:, None], problem.devices, axis=1)
    best_s, best = np.inf, (rank, q)
    for _ in range(60):
        bound = surrogate_round_time(problem, rank, q, np.vstack([rank, ladder]))
        objective_s = problem.rounds_of(rank, q) * bound.mean_s
        # The response of all at once is no descent step, so the best iterate is kept.
        if objective_s < best_s:
            best_s, best = objective_s, (rank, q)
        without_s = bound.mean_s - q * bound.added_s[0]
        new_rank, new_q, _ = best_response(problem, rank, q, ladder, without_s, bound.added_s[1:])
        # Half a step, which is geometric in the rank since rounds are a power of it.
        rank_step, q_step = np.sqrt(new_rank / rank), (new_q - q) / 2
        if max(np.abs(np.log(rank_step)).max(), np.abs(q_step / q).max()) < 1e-3:
            break
        rank, q = rank * rank_step, q + q_step
    rank, q = best
    return np.rint(rank).astype(np.int64), raise_to_cohort(problem, q)


def polish(
    table: TabulatedRoundTime, rank: IntArray, probability: FloatArray
) -> tuple[float, IntArray, FloatArray]:
    """Descend on the sampled objective until a sweep gains less than one part in 10,000.

    Parameters
    ----------
    table : TabulatedRoundTime
        The fleet's cohort draws, the same for all plans compared.
    rank : ndarray of int, shape (N,)
        Ranks to start from.
    probability : ndarray, shape (N,)
        Sampling probabilities to start from.

    Returns
    -------
    objective_s : float
        Sampled time to the target (s), never above that of the start.
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.
    """
    problem = table.problem
    q, need_hz = probability, table.need_hz(rank)
    objective_s = table.objective_s(need_hz, rank, q)
    for _ in range(40):
        before_s = objective_s
        candidate = np.stack([rank, rank - 1, rank + 1, rank // 2, 2 * rank])
        candidate = np.clip(candidate, problem.min_rank, problem.rank_cap)
        candidate_hz = [need_hz, *(table.need_hz(k) for k in candidate[1:])]
        without_s, added_s = table.toggles(need_hz, q, candidate_hz)
        options = candidate.astype(np.float64)
        # Ranks and probabilities together; where that fails, probabilities alone.
        for some in (len(options), 1):
            new_rank, new_q, gain = best_response(
                problem, options[0], q, options[:some], without_s, added_s[:some]
            )
            wanted = np.argsort(-gain, kind="stable")[: np.count_nonzero(new_rank != rank)]
            for step in (1.0, 0.5, 0.25, 0.125, 0.0625):
                # Shorter steps move every q less far and let fewer ranks jump, the best first.
                moved = wanted[: int(step * len(wanted))]
                trial_rank, trial_q = rank.copy(), q + step * (new_q - q)
                trial_rank[moved] = new_rank[moved].astype(np.int64)
                trial_q[moved] = new_q[moved]
                trial_q = raise_to_cohort(problem, trial_q)
                trial_hz = table.need_hz(trial_rank) if len(moved) else need_hz
                trial_s = table.objective_s(trial_hz, trial_rank, trial_q)
                if trial_s < objective_s:
                    break
            if trial_s < objective_s:
                objective_s, rank, q, need_hz = trial_s, trial_rank, trial_q, trial_hz
                break
        if objective_s > before_s * (1 - 1e-4):
            break
    return objective_s, rank, q
