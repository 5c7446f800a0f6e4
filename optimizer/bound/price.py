"""From bounds of ``price * R + F`` to a bound of the product ``R * F``."""

from typing import NamedTuple

import numpy as np

from optimizer.rounds import FloatArray


class Least(NamedTuple):
    """A lower bound of R * F, and F and R where it is attained."""

    product: float
    time_s: float
    rounds: float


def least_product(price: FloatArray, cost_s: FloatArray, lowest: float) -> Least:
    """Least product of rounds R and time F, given lower bounds of ``price * R + F`` at some prices.

    Parameters
    ----------
    price : ndarray, shape (S,)
        Prices s (s per round), ascending from 0.
    cost_s : ndarray, shape (S,)
        Lower bounds (s) of ``s R + F`` over all plans; the first is that of F alone.
    lowest : float
        Lower bound of R.

    Returns
    -------
    Least

    Notes
    -----
    ``R F = min_s (s R + F)^2 / (4 s)``, at s = F/R, so that no plan's product is below
    ``min_s H(s)^2 / (4 s)`` with H the least of ``s R + F``. H is a minimum of lines, hence
    concave, no lower than the concave hull of what is known of it and never less steep than
    `lowest`. On a piece ``F + s R`` of the hull the minimum is F R at s = F/R, or at an end.
    Source: own derivation.
    """
    s = np.append(price, 2 * price[-1])
    h = np.maximum(np.append(cost_s, cost_s[-1] + lowest * price[-1]), 0.0)
    kept: list[int] = []
    for i in range(len(s)):
        while len(kept) > 1:
            a, b = kept[-2:]
            if (h[b] - h[a]) * (s[i] - s[b]) > (h[i] - h[b]) * (s[b] - s[a]):
                break
            kept.pop()
        kept.append(i)
    s, h = s[kept], h[kept]
    rounds = np.diff(h) / np.diff(s)
    time_s = h[:-1] - rounds * s[:-1]
    until = np.append(s[1:-1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(rounds > 0, np.clip(time_s / rounds, s[:-1], until), until)
        product = (time_s + at * rounds) ** 2 / (4 * at)
    product = np.where(np.isfinite(product), product, 0.0)
    best = int(np.argmin(product))
    return Least(float(product[best]), float(time_s[best]), float(rounds[best]))
