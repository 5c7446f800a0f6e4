"""Newton's method for the common end of many groups of transfers at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wireless.link import Link
from wireless.spectrum.rule import FloatArray

_EPSILON = float(np.finfo(np.float64).eps)


def finish_together(
    start_s: FloatArray,
    bits: FloatArray,
    link: Link,
    group: NDArray[np.intp],
    bandwidth_hz: float,
    low_s: FloatArray,
    high_s: FloatArray,
    guess_s: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Solve sum over n of b_n(u_n / (T - tau_n)) = B for each group of senders.

    Parameters
    ----------
    start_s, bits : ndarray, shape (K,)
        Times tau_n in seconds, not negative, and bits u_n > 0 of the senders.
    link : Link
        Uplinks of the K senders.
    group : ndarray of int, shape (K,)
        Group of each sender, ascending, every number from 0 to R - 1 at least once.
    bandwidth_hz : float
        Width of each group's band in Hz.
    low_s, high_s, guess_s : ndarray, shape (R,)
        Bracket and first guess of T in seconds.

    Returns
    -------
    time_s : ndarray, shape (R,)
        Times T in seconds; each depends on its own group alone, to the last bit.
    fall : ndarray, shape (R,)
        Band (Hz) that a second more would free, to seven digits; not finite at a link's limit.

    Raises
    ------
    FloatingPointError
        If the numbers are so far apart that they overflow.

    Notes
    -----
    Newton's method on 1 / sum b_n(T), which is exact for equal starts on linear links and
    converges from below on all linear links; on other links the bracket guards it (own
    derivation). Bounds: the longest solo finish, and max tau + sum of solo times (b_n is convex).
    """
    tau, u, links, row = start_s, bits, link, group
    low, high, time = low_s, high_s, guess_s
    untried, open_above = (np.ones(len(low_s), dtype=np.bool_) for _ in range(2))
    solution, fall = np.empty((2, len(low_s)))
    where = np.arange(len(low_s))
    # One group's steps are decided on by the same operations on scalars, far cheaper than arrays.
    alone = len(low_s) == 1
    choose: Callable[..., Any] = _choose if alone else np.where
    if alone:
        low, high, time, untried, open_above = (
            each[0] for each in (low, high, time, untried, open_above)
        )
    # Newton needs 3 to 7 steps; bisection after the twentieth some 60 at most.
    for iteration in range(120):
        left = (time if alone else time[row]) - tau
        # A transfer too short to show beside its start time divides by zero; the bracket has it.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            rate = u / left
            band, slope = links.bandwidth_and_slope(rate)
            used = np.bincount(row, band)
            falls = np.bincount(row, slope * rate / left)
            if alone:
                used, falls = used[0], falls[0]
            excess = (used - bandwidth_hz) / falls
            step = excess * (used / bandwidth_hz)
        over = used >= bandwidth_hz
        low, high = choose(over, time, low), choose(over, high, time)
        untried &= ~over
        open_above &= over
        # sum b_n is convex in T: a step from the left may be far too short, so it must at least
        # show in T; one from the right, without the last factor of `step`, is never too short.
        least = 2 * _EPSILON * time
        guess = time + choose(over, np.maximum(step, 2 * least), step)
        # Not a number, where the time is infeasible by a rounding, counts as outside. So does a
        # bound that was tried: roundings would send the steps to and fro between two of them.
        above_low = (guess > low) | ((guess == low) & untried)
        below_high = (guess < high) | ((guess == high) & open_above)
        inside = above_low & below_high & (iteration < 20)
        # The error is squared by the step that is still taken.
        done = inside & (abs(used - bandwidth_hz) <= 1e-9 * bandwidth_hz)
        done |= ~over & (abs(excess) <= least)
        # A link that reaches its limit within the band may leave band over at the lower bound.
        at_bound = ~inside & ~done & untried & (guess < low)
        untried &= ~at_bound
        inner = choose(at_bound, low * (1 + _EPSILON), low + (high - low) / 2)
        guess = choose(inside | done, np.minimum(np.maximum(guess, low), high), inner)
        done |= high - low <= 2 * _EPSILON * high
        if alone:
            solution[0], fall[0] = guess, falls
        else:
            solution[where[done]], fall[where[done]] = guess[done], falls[done]
        if done.all():
            return solution, fall
        time = guess
        if done.any():
            keep = ~done[row]
            links, tau, u = links.take(keep), tau[keep], u[keep]
            row = (np.cumsum(~done) - 1)[row[keep]]
            where, time = where[~done], time[~done]
            untried, open_above = untried[~done], open_above[~done]
            low, high = low[~done], high[~done]
    raise FloatingPointError("equal finish overflows: start_s, bits and rates are too far apart")


def _choose(condition: Any, true: Any, false: Any) -> Any:
    """Return what `numpy.where` would, of scalars."""
    return true if condition else false
