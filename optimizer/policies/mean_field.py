"""Ranks and probabilities under the mean-field round time."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import Bounds, minimize

from optimizer.joint.bounds import raise_to_bounds
from optimizer.policies.scale import with_cohort
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray, Progress, RankCost, SmoothnessScaled
from wireless.link import LinearLink

_STEP = 1e-5
_RESTARTS = 20

#: What the rounding of ranks leaves of a search is far above this.
_ENOUGH = 1e-8


def mean_field(problem: Problem, seed: int) -> tuple[IntArray, FloatArray]:  # noqa: ARG001
    """Minimise rounds times the mean-field round time over ranks and probabilities.

    The mean-field time T solves ``sum_n c_n q_n b_n(u_n(k_n) / (T - tau_n(k_n))) = B``: the band
    holds the mean cohort, as if every device took part with c_n q_n of its bandwidth. Ranks are
    real while ``R(q, k) (T_oh + T(q, k))`` is minimised, then rounded to the nearest, and the
    probabilities are found anew at these; where they fall short of `min_cohort`, or the noise is
    above its limit, they are scaled.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: the policy draws nothing.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        Ranks.
    probability : ndarray, shape (N,)
        Sampling probabilities.

    Notes
    -----
    On linear links the problem is a geometric program for round models that are posynomials of q
    and k: the progress form of exponent zero, rank cost, smoothness and the sampling term with
    ``base >= sampling * sum A``. It is then convex in log q and log k, and the minimum found is
    the global one; for other models it is a stationary point. However small, every q_n > 0
    forces T > tau_n, so the plan cannot see that stragglers cost little when they are rare: a
    baseline. Source: own derivation, after the expected bandwidth constraint of arXiv 2505.23555.
    """
    low, high = np.full(problem.devices, float(problem.min_rank)), problem.rank_cap.astype(float)
    relaxed = relaxed_mean_field(problem, low, high, tolerance=_ENOUGH)
    rank = np.clip(np.rint(relaxed.rank), low, high)
    q = relaxed_mean_field(problem, rank, rank, relaxed.probability, _ENOUGH).probability
    q = with_cohort(problem, q, max(problem.min_cohort, float(q.sum())))
    return rank.astype(np.int64), raise_to_bounds(problem, rank, q)


class Relaxed(NamedTuple):
    """A plan of real ranks.

    Parameters
    ----------
    rank, probability : ndarray, shape (N,)
        Ranks and sampling probabilities.
    objective_s : float
        Rounds times mean-field round time (s), overhead included.
    """

    rank: FloatArray
    probability: FloatArray
    objective_s: float


def relaxed_mean_field(
    problem: Problem,
    low: FloatArray,
    high: FloatArray,
    probability: FloatArray | None = None,
    tolerance: float = 1e-13,
) -> Relaxed:
    """Minimise over real ranks within bounds and over probabilities; `min_cohort` has no say.

    The constraint gives T as a function of the plan, and by the implicit function theorem its
    gradient; what is left has bounds alone and goes to L-BFGS-B in log q and log k, each divided by
    the root of its curvature. A few rounds of the coordinate responses
    ``q_n = sqrt(B_n (T_oh + T) / (R dT/dq_n))``, damped by half, give the start.

    Parameters
    ----------
    problem : Problem
        The fleet.
    low, high : ndarray, shape (N,)
        Bounds of the ranks; where they are equal, the rank is given.
    probability : ndarray, shape (N,), optional
        Probabilities to start from.
    tolerance : float
        Relative gain of a step below which the descent ends.

    Returns
    -------
    Relaxed
    """
    field = MeanField(problem)
    n, least = problem.devices, np.log(problem.min_probability)
    bounds = np.stack(
        [np.concatenate([least, np.log(low)]), np.concatenate([np.zeros(n), np.log(high)])]
    )
    z = least / 2 if probability is None else np.log(probability)
    y = np.log(high)
    at = field.value(z, y, low, high)
    for _ in range(12):
        step = (np.log(np.maximum(-at.rounds_slope, 1e-300)) - np.log(at.time_slope)) / 4
        z = np.clip(z + step, least, 0.0)
        at = field.value(z, y, low, high, at.spare_s)
    point = np.concatenate([z, y])
    # A restart forgets what was learnt about the curvature where it was another.
    for _ in range(_RESTARTS):
        before = at
        # Both terms of the slope in log q are their own second derivatives, up to rank one.
        curvature = np.sqrt(np.maximum(np.tile(at.time_slope - at.rounds_slope, 2), 1e-300))
        point = _descend(field, point, bounds, curvature, low, high, before.spare_s, tolerance)
        at = field.value(point[:n], point[n:], low, high, before.spare_s)
        if at.log_s > before.log_s - 10 * tolerance:
            break
    rank = np.clip(np.exp(point[n:]), low, high)
    q = np.clip(np.exp(point[:n]), problem.min_probability, 1.0)
    return Relaxed(rank, q, float(np.exp(at.log_s)))


def _descend(
    field: "MeanField",
    start: FloatArray,
    bounds: FloatArray,
    curvature: FloatArray,
    low: FloatArray,
    high: FloatArray,
    spare_s: float,
    tolerance: float,
) -> FloatArray:
    """One run of L-BFGS-B from log q and log k, (2 N,), in variables of like curvature."""
    n = len(low)

    def value(scaled: FloatArray) -> Any:
        nonlocal spare_s
        point = np.clip(scaled / curvature, bounds[0], bounds[1])
        found = field.value(point[:n], point[n:], low, high, spare_s)
        spare_s = found.spare_s
        return found.log_s, np.concatenate([found.slope, found.rank_slope]) / curvature

    options: Any = {"ftol": tolerance, "gtol": 0.0, "maxiter": 300, "maxcor": 20}
    best = minimize(
        value,
        start * curvature,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(*(bounds * curvature)),
        options=options,
    )
    return np.asarray(np.clip(best.x / curvature, bounds[0], bounds[1]))


class Value(NamedTuple):
    """The logarithm of the objective at a plan.

    Parameters
    ----------
    log_s : float
        ``log(R (T_oh + T))``, times in seconds.
    spare_s : float
        How long (s) T is after the soonest end of the slowest device.
    rounds_slope, time_slope : ndarray, shape (N,)
        Derivatives of log R and of ``log(T_oh + T)`` in log q_n.
    rank_slope : ndarray, shape (N,)
        Derivative of `log_s` in log k_n.
    """

    log_s: float
    spare_s: float
    rounds_slope: FloatArray
    time_slope: FloatArray
    rank_slope: FloatArray

    @property
    def slope(self) -> FloatArray:
        """Derivative of `log_s` in log q_n, shape (N,)."""
        return self.rounds_slope + self.time_slope


@dataclass(frozen=True, slots=True, eq=False)
class MeanField:
    """Mean-field round time of a problem, the bands of its cells pooled."""

    problem: Problem

    def time_s(self, rank: FloatArray, probability: FloatArray, spare_s: float = 1.0) -> float:
        """Return T (s), overhead not included, of a plan of shapes (N,).

        `spare_s` (s) is a guess of how long that is after the soonest end of the slowest device.
        """
        p = self.problem
        band_hz = p.bandwidth_hz * p.cells
        ready_s, bits = p.download_s(rank) + p.compute_s(rank), p.upload_bits(rank)
        share = p.takes_part(probability)
        soonest_s = self.soonest_s(rank)
        low, high = soonest_s, np.inf
        time_s = soonest_s + spare_s
        for _ in range(200):
            load_hz, fall = self._load_hz(time_s, ready_s, bits, share)
            low, high = (time_s, high) if load_hz > band_hz else (low, time_s)
            # Newton in the logarithms of the load and of what is left after the soonest end: near
            # that one, where the last device weighs most, they are in proportion.
            left_s = time_s - soonest_s
            ahead = 0.0
            if 0 < fall < np.inf:
                ahead = float(np.log(load_hz / band_hz)) * load_hz / (fall * left_s)
            after_s = soonest_s + left_s * float(np.exp(min(ahead, 50.0)))
            if not low < after_s < high:
                after_s = low + (high - low) / 2 if high < np.inf else 2 * time_s
            if abs(after_s - time_s) <= 1e-14 * time_s or abs(load_hz / band_hz - 1) < 1e-11:
                break
            time_s = after_s
        return time_s

    def soonest_s(self, rank: FloatArray) -> float:
        """When (s) the slowest device would end if the limit of its link were all that counts."""
        p = self.problem
        limit_s = p.upload_bits(rank) / p.link.limit_bps
        return float(np.max(p.download_s(rank) + p.compute_s(rank) + limit_s))

    def _load_hz(
        self, time_s: float, ready_s: FloatArray, bits: FloatArray, share: FloatArray
    ) -> tuple[float, float]:
        """Mean bandwidth that ends by a time, and how fast it falls with that time."""
        left_s = np.maximum(time_s - ready_s, np.finfo(np.float64).tiny)
        rate = bits / left_s
        need_hz, slope = self.problem.link.bandwidth_and_slope(rate)
        load_hz = float(share @ need_hz)
        # Where nobody could end, any step is as good: bisection takes over.
        return load_hz, float(share @ (slope * rate / left_s)) if load_hz < np.inf else np.inf

    def value(
        self,
        log_q: FloatArray,
        log_k: FloatArray,
        low: FloatArray,
        high: FloatArray,
        spare_s: float = 1.0,
    ) -> Value:
        """Return the logarithm of the objective and its derivatives.

        Parameters
        ----------
        log_q, log_k : ndarray, shape (N,)
            Logarithms of probabilities and ranks.
        low, high : ndarray, shape (N,)
            Bounds of the ranks, beyond which the round model is not asked.
        spare_s : float
            Guess of how long T is after `soonest_s`, > 0.

        Returns
        -------
        Value
        """
        p, q, k = self.problem, np.exp(log_q), np.clip(np.exp(log_k), low, high)
        total_s = self.time_s(k, q, spare_s)
        ready_s, bits = p.download_s(k) + p.compute_s(k), p.upload_bits(k)
        left_s = total_s - ready_s
        rate = bits / left_s
        need_hz, slope = p.link.bandwidth_and_slope(rate)
        share = p.takes_part(q)
        fall = float(share @ (slope * rate / left_s))
        after_s = p.overhead_s + total_s
        down_s = (p.download_s(k * (1 + _STEP)) - p.download_s(k)) / _STEP
        later_s = down_s + k * p.compute_per_rank_s
        longer = slope * (k * p.bits_per_rank + rate * later_s) / left_s
        # The round model is only asked for values; a central difference where bounds allow it.
        option = np.clip(np.stack([k, k * (1 + _STEP), k * (1 - _STEP)]), low, high)
        fixed, noise = p.rounds.along(p.weight, p.variance, k / p.rank, q, option / p.rank)
        apart = np.log(option[1] / option[2])
        change = fixed[1] - fixed[2] + (noise[1] - noise[2]) / q
        change = np.divide(change, apart, out=np.zeros_like(change), where=apart > 0)
        rounds = p.rounds_of(k, q)
        return Value(
            float(np.log(rounds * after_s)),
            max(total_s - self.soonest_s(k), np.spacing(total_s)),
            -noise[0] / q / rounds,
            share * need_hz / fall / after_s,
            change / rounds + share * longer / fall / after_s,
        )


def mean_field_by_dgp(problem: Problem) -> Relaxed:
    """Solve the relaxed problem of `mean_field` as a geometric program, as a cross-check.

    Parameters
    ----------
    problem : Problem
        A fleet on linear links, of a hundred devices or so, whose round model is a posynomial: the
        progress form of exponent zero, rank cost or smoothness.

    Returns
    -------
    Relaxed

    Raises
    ------
    ValueError
        If the problem is no geometric program.
    ArithmeticError
        If the solver falls short of its tolerance, as it does on some fleets of 300.
    """
    # A second to import, and partly without types.
    cp: Any = import_module("cvxpy")
    p, model = problem, problem.rounds
    if not isinstance(p.link, LinearLink):
        raise ValueError(f"link is a {type(p.link).__name__}: give a LinearLink")
    q, k = cp.Variable(p.devices, pos=True), cp.Variable(p.devices, pos=True)
    left_s, total_s = cp.Variable(p.devices, pos=True), cp.Variable(pos=True)

    def total(coefficient: FloatArray, *divisor: Any) -> Any:
        some = np.flatnonzero(coefficient > 0)
        terms: Any = coefficient[some]
        for each in divisor:
            terms = cp.multiply(terms, cp.power(each[some], -1))
        return cp.sum(terms) if len(some) else 0.0

    if isinstance(model, Progress) and model.rank_exponent == 0:
        rounds = model.base + total(model.sampling * p.rank * p.variance, q, k)
    elif isinstance(model, RankCost):
        rounds = model.base + total(model.sampling * p.variance, q)
        rounds = rounds + total(model.rank * p.rank * p.weight, k)
    elif isinstance(model, SmoothnessScaled):
        rounds = model.base + total(model.sampling * p.variance, q)
        rounds = rounds * total(p.rank * p.weight, k)
    else:
        raise ValueError(f"rounds is {model.name!r} here, no posynomial: give rank-cost, say")
    band_hz = p.bandwidth_hz * p.cells
    load = p.completion / (p.link.efficiency_bps_hz * band_hz)
    nothing_s = p.download_s(np.zeros(p.devices))
    base_s = p.compute_base_s + nothing_s
    slope_s = p.compute_per_rank_s + p.download_s(np.ones(p.devices)) - nothing_s
    # A posynomial has no zero coefficients, so each kind of term is only written where it is.
    used: Any = 0.0
    if len(some := np.flatnonzero(p.fixed_bits)):
        used = used + cp.sum(cp.multiply((load * p.fixed_bits)[some], q[some] / left_s[some]))
    if p.bits_per_rank > 0:
        used = used + cp.sum(cp.multiply(load * p.bits_per_rank, cp.multiply(q, k) / left_s))
    ends = []
    for n in range(p.devices):
        end_s = left_s[n]
        end_s = end_s + float(base_s[n]) if base_s[n] > 0 else end_s
        end_s = end_s + float(slope_s[n]) * k[n] if slope_s[n] > 0 else end_s
        ends.append(end_s <= total_s)
    constraints = [
        used <= 1,
        q >= p.min_probability,
        q <= 1,
        k >= p.min_rank,
        k <= p.rank_cap,
        *ends,
    ]
    program = cp.Problem(cp.Minimize(rounds * (p.overhead_s + total_s)), constraints)
    # Windows left by stragglers span decades, so the solver needs its linear systems solved to the
    # last digit, and shorter steps.
    precise = {
        "tol_gap_abs": 1e-9,
        "tol_gap_rel": 1e-9,
        "tol_feas": 1e-9,
        "iterative_refinement_max_iter": 50,
        "iterative_refinement_reltol": 1e-15,
        "max_step_fraction": 0.9,
    }
    try:
        program.solve(gp=True, solver=cp.CLARABEL, **precise)
    except cp.SolverError as error:
        raise ArithmeticError(f"the geometric program was not solved: {error}") from None
    if program.status != cp.OPTIMAL:
        raise ArithmeticError(f"the geometric program was not solved: {program.status}")
    return Relaxed(np.asarray(k.value), np.asarray(q.value), float(program.value))
