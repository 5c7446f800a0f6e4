"""A large fleet as a few thousand kinds of device, each of which stands for many."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from optimizer.joint.descend import near_ranks
from optimizer.joint.response import respond
from optimizer.problem import IntArray, Problem
from optimizer.rounds import Along, FloatArray, Minorant, RoundModel
from optimizer.times.base import Toggles

#: Kinds by compute time, by transfer time within each of them, and by variance within each of both.
_KINDS = (64, 8, 4)
_ALWAYS = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Crowd:
    """Kinds of device and the surrogate round time of the crowd they stand for.

    A time model of the kinds (see `optimizer.times.base.TimeModel`): q and rank of a kind are those
    of all its devices, which draw independently. The round time is the upper bound of
    `optimizer.times.surrogate.Surrogate`, in which ``1 - q`` becomes ``(1 - q)^m``.

    Parameters
    ----------
    problem : Problem
        One device of each kind, with the weight and the variance of all.
    copies : float
        Devices m of a kind.
    kind : ndarray of int, shape (N,)
        Kind of each device of the fleet.
    factor : ndarray, shape (N,)
        Root of each device's variance over the mean of its kind.

    Notes
    -----
    Source: own derivation.
    """

    problem: Problem
    copies: float
    kind: IntArray
    factor: FloatArray

    @classmethod
    def of(cls, fleet: Problem) -> Self:
        """Sort a fleet into kinds of equal size, alike in compute, transfer time and variance.

        Parameters
        ----------
        fleet : Problem
            At least as many devices as there are kinds.

        Returns
        -------
        Crowd
        """
        n, cap, variance = fleet.devices, fleet.rank_cap, fleet.variance
        kind, kinds = np.zeros(n, dtype=np.int64), 1
        place = np.arange(n)
        for number, feature in zip(
            _KINDS, (fleet.compute_s(cap), fleet.transfer_s(cap), variance), strict=True
        ):
            kinds *= number
            order = np.lexsort((feature, kind))
            kind[order] = place * kinds // n
        first = np.searchsorted(kind[order], np.arange(kinds))
        size = np.diff(np.append(first, n))
        one = order[first + size // 2]
        weight = np.bincount(kind, fleet.weight).astype(np.float64)
        total = np.bincount(kind, variance).astype(np.float64)
        # Problem.variance divides by the mean square of the gradients, which is undone.
        with np.errstate(invalid="ignore", divide="ignore"):
            square = np.where(weight > 0, fleet.completion[one] * total / weight**2, 0.0)
        changes = {
            name: getattr(fleet, name)[one]
            for name in (
                "compute_base_s",
                "compute_per_rank_s",
                "rank_cap",
                "min_probability",
                "completion",
                "energy_limit_j",
                "fixed_bits",
                "fixed_down_bits",
                "compute_power_w",
                "transmit_power_w",
            )
        }
        unit = float(np.dot(weight, square))
        problem = replace(
            fleet,
            weight=weight,
            gradient_norm=np.sqrt(square),
            link=fleet.link.take(one),
            min_cohort=min(fleet.min_cohort * kinds / n, float(kinds)),
            max_noise=fleet.noise_limit / unit if fleet.max_noise < np.inf else np.inf,
            rounds=_Rescaled(fleet.rounds, unit),
            cell=np.zeros(kinds, dtype=np.int64),
            bandwidth_hz=fleet.bandwidth_hz * fleet.cells,
            download_bps=None if fleet.download_bps is None else fleet.download_bps[one],
            **changes,
        )
        mean = (total / size)[kind]
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.where(mean > 0, np.sqrt(variance / mean), 1.0)
        return cls(problem, n / kinds, kind, factor)

    def spread(self, fleet: Problem, rank: IntArray, q: FloatArray) -> tuple[IntArray, FloatArray]:
        """Plan of the fleet: the response of each device to the crowd's plan.

        Parameters
        ----------
        fleet : Problem
            The fleet.
        rank : ndarray of int, shape (kinds,)
            Ranks of the kinds.
        q : ndarray, shape (kinds,)
            Their probabilities.

        Returns
        -------
        rank : ndarray of int, shape (N,)
            Ranks of the devices.
        probability : ndarray, shape (N,)
            Their probabilities.
        """
        p = self.problem
        _, knot, area = self._field(rank, q)
        mean_s = self.mean_s(rank, q)
        own_rank = np.clip(rank[self.kind], fleet.min_rank, fleet.rank_cap)
        own_q = np.clip(q[self.kind] * self.factor, fleet.min_probability, 1.0)
        candidate = near_ranks(fleet, own_rank)
        t = fleet.compute_s(candidate)
        waiting = np.interp(t, knot, area) + np.maximum(t - knot[-1], 0.0)
        added_s = fleet.takes_part(waiting + fleet.transfer_s(candidate))
        field = Toggles(mean_s, np.full(fleet.devices, mean_s), added_s)
        price_s = mean_s / p.rounds_of(rank, q)
        answer = respond(
            fleet, own_rank.astype(np.float64), own_q, field, candidate.astype(np.float64), price_s
        )
        return answer.rank.astype(np.int64), answer.probability

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the bound: see `TimeModel.mean_s`."""
        k = np.asarray(rank, dtype=np.float64)
        return self.toggles(k, probability, k[None, :][:0]).mean_s

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the bound along each kind, to first order in its own: see `TimeModel.toggles`."""
        p, m = self.problem, self.copies
        q, moved_s = p.takes_part(probability), p.transfer_s(rank)
        absent = np.maximum(1.0 - q, _ALWAYS)
        order, knot, area = self._field(rank, probability)
        slowest = knot[-1]
        own = np.empty_like(q)
        own[order] = area[1:]
        mean_s = p.overhead_s + float(slowest - area[-1] + m * (q @ moved_s))
        without_s = mean_s - m * q * (own / absent + moved_s)
        k = np.asarray(candidate, dtype=np.float64)
        t = p.compute_s(k)
        integral = np.interp(t, knot, area) + np.maximum(t - slowest, 0.0)
        waiting = np.minimum(integral, own) / absent + np.maximum(integral - own, 0.0)
        return Toggles(mean_s, without_s, m * p.takes_part(waiting + p.transfer_s(k)))

    def _field(
        self, rank: ArrayLike, probability: ArrayLike
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Order of the compute times, these with zero before, and the area below them of F."""
        tau = self.problem.compute_s(rank)
        absent = np.maximum(1.0 - self.problem.takes_part(probability), _ALWAYS)
        order = np.argsort(tau, kind="stable")
        knot = np.concatenate(([0.0], tau[order]))
        below = np.exp(self.copies * np.cumsum(np.log(absent[order])[::-1])[::-1])
        return order, knot, np.concatenate(([0.0], np.cumsum(np.diff(knot) * below)))


@dataclass(frozen=True, slots=True)
class _Rescaled:
    """A round model for variances in another unit."""

    name: ClassVar[str] = "rescaled"

    model: RoundModel
    unit: float

    def rounds(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, probability: ArrayLike
    ) -> FloatArray:
        return self.model.rounds(weight, self.unit * np.asarray(variance), ratio, probability)

    def along(
        self,
        weight: ArrayLike,
        variance: ArrayLike,
        ratio: ArrayLike,
        probability: ArrayLike,
        option: ArrayLike,
    ) -> Along:
        return self.model.along(
            weight, self.unit * np.asarray(variance), ratio, probability, option
        )

    def minorant(
        self, weight: ArrayLike, variance: ArrayLike, ratio: ArrayLike, option: ArrayLike
    ) -> tuple[Minorant, ...] | None:
        return self.model.minorant(weight, self.unit * np.asarray(variance), ratio, option)
