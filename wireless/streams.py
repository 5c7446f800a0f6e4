"""Named random streams: every draw is a pure function of (seed, purpose, counters).

A draw is addressed, not asked for: device 7's position is the same whatever the size of the fleet,
the order of the calls, or the features that draw from other streams. The address is hashed by a
counter-based generator, so a whole fleet is drawn at once, without one generator object per device.

The hash starts from BLAKE2b of the seed and the purpose and absorbs one counter at a time through
the SplitMix64 finalizer (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014). The chain of finalizers is our own derivation.
"""

from hashlib import blake2b
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


def _finalize(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 finalizer, a bijection of 64-bit words."""
    state = (state ^ (state >> _SHIFT_1)) * _MULTIPLIER_1
    state = (state ^ (state >> _SHIFT_2)) * _MULTIPLIER_2
    return state ^ (state >> _SHIFT_3)


def _bits(seed: int, purpose: str, counters: tuple[ArrayLike, ...]) -> NDArray[np.uint64]:
    """64 random bits per address."""
    words = [np.asarray(counter) for counter in counters]
    for word in words:
        if word.dtype.kind not in "iu":
            raise TypeError(f"counters must be integers, got {word.dtype}")
    address = f"{index(seed)}:{purpose}".encode()
    start = int.from_bytes(blake2b(address, digest_size=8).digest(), "little")
    # At least one dimension: numpy warns about the wrap-around of scalars, not of arrays.
    state = np.array([start], dtype=np.uint64)
    for word in words:
        # The counter is hashed before it meets the state: otherwise two colliding states would
        # share a whole run of draws instead of a single one.
        state = _finalize(state ^ _finalize(np.atleast_1d(word).astype(np.uint64) + _GOLDEN))
    return state.reshape(np.broadcast_shapes(*(word.shape for word in words)))


def uniform(seed: int, purpose: str, *counters: ArrayLike) -> NDArray[np.float64]:
    """Draw from the uniform distribution on the open interval (0, 1).

    Parameters
    ----------
    seed : int
        Root seed of the run, any integer.
    purpose : str
        Name of the stream, such as ``"shadowing"``.
    *counters : array_like of int
        Address within the stream, such as device and dispatch index; broadcast together.
        Their order matters.

    Returns
    -------
    ndarray of float64
        One value per address, in the broadcast shape of the counters.

    Raises
    ------
    TypeError
        If the seed or a counter is not an integer.
    """
    # 52 bits, not 53: the largest value would otherwise round to 1.
    high = (_bits(seed, purpose, counters) >> np.uint64(12)).astype(np.float64)
    draws: NDArray[np.float64] = np.asarray((high + 0.5) * 2.0**-52)
    return draws


def normal(seed: int, purpose: str, *counters: ArrayLike) -> NDArray[np.float64]:
    """Draw from the standard normal distribution, by its inverse distribution function.

    Parameters and errors are those of `uniform`.

    Returns
    -------
    ndarray of float64
        One value per address, in the broadcast shape of the counters.
    """
    return np.asarray(ndtri(uniform(seed, purpose, *counters)))


def exponential(seed: int, purpose: str, *counters: ArrayLike) -> NDArray[np.float64]:
    """Draw from the exponential distribution of mean 1, by its inverse distribution function.

    Parameters and errors are those of `uniform`.

    Returns
    -------
    ndarray of float64
        One positive value per address, in the broadcast shape of the counters.
    """
    return np.asarray(-np.log1p(-uniform(seed, purpose, *counters)))


def key(seed: int, purpose: str, *counters: int) -> int:
    """Return an integer that seeds a generator outside this module.

    Parameters
    ----------
    seed : int
        Root seed of the run, any integer.
    purpose : str
        Name of the stream.
    *counters : int
        Address within the stream, scalars.

    Returns
    -------
    int
        A non-negative integer below 2**63.

    Raises
    ------
    TypeError
        If the seed or a counter is not an integer.
    """
    return int(keys(seed, purpose, *(index(counter) for counter in counters)).item())


def keys(seed: int, purpose: str, *counters: ArrayLike) -> NDArray[np.int64]:
    """Return the integers that `key` gives, for many addresses at once.

    Parameters and errors are those of `uniform`.

    Returns
    -------
    ndarray of int64
        One non-negative value per address, in the broadcast shape of the counters.
    """
    return (_bits(seed, purpose, counters) >> np.uint64(1)).astype(np.int64)
