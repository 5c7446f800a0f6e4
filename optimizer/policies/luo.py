"""Adaptive client sampling with a linear round time."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import Bounds, brentq, minimize, minimize_scalar

from optimizer.joint.bounds import raise_to_bounds
from optimizer.policies.parts import SamplingRounds, sampling_rounds
from optimizer.policies.scale import with_cohort
from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray

_GRID = 13


def luo(problem: Problem, seed: int, cohort: float | None = None) -> tuple[IntArray, FloatArray]:  # noqa: ARG001
    """Minimise rounds times an approximate round time over the probabilities, at the rank caps.

    The form is ``(R_0 + sum_n B_n / q_n) (T_oh + sum_n q_n (tau_n / K + c_n s_n))`` with
    ``K = sum_n q_n``: rounds are those of the round model at the caps; a round lasts as long as the
    mean member computes, and the members' uploads of s_n seconds over the whole band one after the
    other. That is the earliest end of an equal finish on linear links, ``tau_w + W / B``, with the
    plain mean of tau for the w-weighted one.

    Parameters
    ----------
    problem : Problem
        The fleet.
    seed : int
        Unused: the policy draws nothing.
    cohort : float, optional
        Expected cohort K; by default the one that minimises the form.

    Returns
    -------
    rank : ndarray of int, shape (N,)
        The caps.
    probability : ndarray, shape (N,)
        Sampling probabilities.

    Raises
    ------
    ValueError
        If the bounds of the probabilities do not allow the cohort.

    Notes
    -----
    Source: after arXiv 2112.11256 and 2404.13804, which draw K devices with replacement and solve
    for the distribution; here devices are drawn independently, so K is a variable as well. The
    solution is our own derivation: given K and the price lambda = R / T of a second in rounds, the
    problem is convex and ``q_n = clip(sqrt(B_n / (lambda (tau_n / K + c_n s_n) + mu)))`` with mu
    from ``sum_n q_n = K``; ``lambda <- R / T`` never raises the product, since R T is the least of
    ``(R + lambda T)^2 / (4 lambda)`` over lambda; K is found by a grid and a line search. The form
    takes no notice of stragglers, whom everybody else waits for. Where the noise is above its
    limit, the probabilities are scaled.
    """
    q = LinearTime.of(problem).solve(cohort)
    if cohort is None:
        q = raise_to_bounds(problem, problem.rank_cap, q)
    return problem.rank_cap, q


def luo_by_slsqp(problem: Problem) -> tuple[FloatArray, float]:
    """Minimise the form of `luo` by sequential quadratic programming, as a cross-check.

    Parameters
    ----------
    problem : Problem
        The fleet, of some hundred devices at most.

    Returns
    -------
    probability : ndarray, shape (N,)
        Sampling probabilities.
    objective_s : float
        Value of the form (s).
    """
    form = LinearTime.of(problem)

    def value(log_q: FloatArray) -> Any:
        q = np.exp(log_q)
        rounds, time_s = form.rounds(q), form.time_s(q)
        cohort = q.sum()
        slope_s = form.busy_s + form.compute_s / cohort - (q @ form.compute_s) / cohort**2
        slope = -form.rounds.per_probability / q**2 / rounds + slope_s / time_s
        return float(np.log(rounds * time_s)), slope * q

    enough: Any = {
        "type": "ineq",
        "fun": lambda log_q: np.exp(log_q).sum() - problem.min_cohort,
        "jac": np.exp,
    }
    options: Any = {"ftol": 1e-15, "maxiter": 2000}
    found = minimize(
        value,
        np.log(with_cohort(problem, np.ones(problem.devices), max(form.fewest, 1.0))),
        jac=True,
        method="SLSQP",
        bounds=Bounds(np.log(form.low), np.zeros(problem.devices)),
        constraints=enough,
        options=options,
    )
    q = with_cohort(problem, np.exp(found.x), max(np.exp(found.x).sum(), form.fewest))
    return q, form.objective_s(q)


@dataclass(frozen=True, slots=True, eq=False)
class LinearTime:
    """The form that `luo` minimises.

    Parameters
    ----------
    rounds : SamplingRounds
        R(q) at the rank caps.
    overhead_s : float
        T_oh (s).
    compute_s, busy_s : ndarray, shape (N,)
        tau_n (s) and c_n s_n (s).
    low : ndarray, shape (N,)
        Least probabilities.
    fewest : float
        Least expected cohort.
    """

    rounds: SamplingRounds
    overhead_s: float
    compute_s: FloatArray
    busy_s: FloatArray
    low: FloatArray
    fewest: float

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the form of a problem, the bands of its cells pooled."""
        cap = problem.rank_cap
        return cls(
            sampling_rounds(problem, cap),
            problem.overhead_s,
            problem.compute_s(cap),
            problem.takes_part(problem.transfer_s(cap)) / problem.cells,
            problem.min_probability,
            max(problem.min_cohort, float(problem.min_probability.sum())),
        )

    def time_s(self, probability: FloatArray) -> float:
        """Return the approximate round time (s) of probabilities (N,)."""
        waiting_s = probability @ self.compute_s / probability.sum()
        return self.overhead_s + float(waiting_s + probability @ self.busy_s)

    def objective_s(self, probability: FloatArray) -> float:
        """Return the time to the target (s) of probabilities (N,)."""
        return self.rounds(probability) * self.time_s(probability)

    def solve(self, cohort: float | None = None) -> FloatArray:
        """Return the best probabilities (N,): see `luo`."""
        devices = len(self.low)
        if cohort is not None:
            if not self.fewest <= cohort <= devices:
                raise ValueError(
                    f"cohort is {cohort}: give {self.fewest:g} (min_probability, min_cohort) to "
                    f"{devices}, the devices"
                )
            return self.at(cohort)
        lowest = np.log(self.fewest)
        grid = np.linspace(lowest, np.log(devices), _GRID)

        def cost_s(log_cohort: float) -> float:
            cohort = min(max(float(np.exp(log_cohort)), self.fewest), float(devices))
            return self.objective_s(self.at(cohort))

        values = [cost_s(float(x)) for x in grid]
        best = int(np.argmin(values))
        around = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
        found = minimize_scalar(cost_s, bounds=around, method="bounded", options={"xatol": 1e-6})
        log_cohort = found.x if found.fun < values[best] else grid[best]
        return self.at(min(max(float(np.exp(log_cohort)), self.fewest), float(devices)))

    def at(self, cohort: float) -> FloatArray:
        """Return the best probabilities (N,) of an expected cohort."""
        per_device_s = self.compute_s / cohort + self.busy_s
        noise = self.rounds.per_probability
        # A device without any noise would jump from bound to bound.
        noise = np.maximum(noise, 1e-15 * noise.max() + np.finfo(np.float64).tiny)
        q = np.full(len(noise), cohort / len(noise))
        price, before_s = self.rounds(q) / self.time_s(q), np.inf
        for _ in range(100):
            q = self._respond(noise, price * per_device_s, cohort)
            after_s = self.objective_s(q)
            if after_s > before_s * (1 - 1e-14):
                break
            before_s, price = after_s, self.rounds(q) / self.time_s(q)
        return q

    def _respond(self, noise: FloatArray, slope: FloatArray, cohort: float) -> FloatArray:
        """Minimise ``sum noise / q + slope q`` at a given sum of q, shape (N,)."""

        def answer(reward: float) -> FloatArray:
            total = slope - reward
            q = np.sqrt(noise / np.where(total > 0, total, 1.0))
            return np.where(total > 0, np.minimum(np.maximum(q, self.low), 1.0), 1.0)

        # At the lower reward everybody has his least probability, at the upper one everybody takes
        # part. In between the inverse square of the sum is close to linear.
        lower, upper = float(np.min(slope - 4 * noise / self.low**2)), float(slope.max())
        if cohort <= answer(lower).sum():
            return answer(lower)
        if cohort >= answer(upper).sum():
            return answer(upper)
        finest = 1e-15 * upper
        reward = float(
            brentq(
                lambda x: float((answer(x).sum() / cohort) ** -2 - 1.0),
                lower,
                upper,
                xtol=finest,
                maxiter=1000,
            )
        )
        # Without noise q jumps there; between the answers on both sides the sum is met exactly.
        near = 4 * finest + 4e-15 * abs(reward)
        below, above = answer(reward - near), answer(reward + near)
        gap = float(above.sum() - below.sum())
        part = (cohort - float(below.sum())) / gap if gap > 0 else 0.0
        return np.asarray(below + min(max(part, 0.0), 1.0) * (above - below))
