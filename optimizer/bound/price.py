"""From bounds of ``price . R + F`` to a bound of the product ``R_1 ... R_M F``."""

import itertools
from typing import NamedTuple

import numpy as np

from optimizer.rounds import FloatArray

#: Relative errors of vertices: planes that are all but parallel have none, and one that is so
#: little outside still counts, which can only lower the bound.
_PARALLEL, _OUTSIDE = 1e-12, 1e-7


class Least(NamedTuple):
    """A lower bound of the product, and the time F and the sums R (M,) where it is attained."""

    product: float
    time_s: float
    sums: FloatArray

    @property
    def price(self) -> FloatArray:
        """Prices (M,), in s per round, at which every sum costs as much as the time."""
        return np.asarray(self.time_s / self.sums)


def least_product(price: FloatArray, cost_s: FloatArray, lowest: FloatArray) -> Least:
    """Least product of M sums R and a time F, given lower bounds of ``price . R + F``.

    Parameters
    ----------
    price : ndarray, shape (S, M)
        Prices (s per round), >= 0; those of one row are zero, or else the least product is too.
    cost_s : ndarray, shape (S,)
        Lower bounds (s) of ``price . R + F`` over all plans.
    lowest : ndarray, shape (M,)
        Lower bounds of the R, >= 0.

    Returns
    -------
    Least

    Notes
    -----
    What is known says that (R, F) of every plan lies in a polyhedron, of the half-spaces
    ``s . R + F >= H`` and ``R >= lowest``. The product is quasi-concave and ascends in all
    directions in which the polyhedron is unbounded, so a vertex has the least of it; all are looked
    at. Nothing is lost by the prices in the end: the product is at least V everywhere if and only
    if ``H(s) >= (M + 1) (V s_1 ... s_M)^(1 / (M + 1))`` at all s, by the inequality of arithmetic
    and geometric means, which is tight at ``s = F / R``. Source: own derivation.
    """
    count = price.shape[1]
    time_s = float(np.max(cost_s, initial=1e-300))
    used = price.max(axis=0)
    unit = time_s / np.where(used > 0, used, 1.0)
    # Times in units of the dearest cost and sums in what that buys at their highest price.
    plane = np.vstack(
        [
            np.column_stack([price * unit, np.full(len(price), time_s), cost_s]) / time_s,
            np.column_stack([np.eye(count), np.zeros(count), lowest / unit]),
        ]
    )
    plane /= np.abs(plane[:, :-1]).max(axis=1, keepdims=True)
    chosen = np.array(list(itertools.combinations(range(len(plane)), count + 1)))
    normal, offset = plane[chosen, :-1], plane[chosen, -1]
    meet = np.abs(np.linalg.det(normal)) > _PARALLEL
    vertex = np.linalg.solve(normal[meet], offset[meet][..., None])[..., 0]
    within = vertex @ plane[:, :-1].T >= plane[:, -1] * (1 - _OUTSIDE) - _PARALLEL
    vertex = vertex[within.all(axis=1)].clip(0.0)
    best = vertex[np.argmin(vertex.prod(axis=1))]
    sums, least_s = best[:-1] * unit, float(best[-1]) * time_s
    return Least(float(np.prod(sums)) * least_s, least_s, sums)
