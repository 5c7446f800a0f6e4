"""Checks of arguments."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def require(name: str, values: ArrayLike, valid: ArrayLike, accepted: str) -> None:
    """Raise unless all values are valid.

    Parameters
    ----------
    name : str
        Argument.
    values : array_like
        Its values.
    valid : array_like of bool
        Which of them are valid, in their shape.
    accepted : str
        What is, in words that follow "must be".

    Raises
    ------
    ValueError
        If a value is not valid; the message shows the first.
    """
    array: NDArray[np.generic] = np.asarray(values)
    mask = np.asarray(valid)
    if not mask.all():
        raise ValueError(f"{name} must be {accepted}, got {array[~mask][0]}")


def check_share(share: float) -> None:
    """Refuse a share of band or time outside (0, 1].

    Parameters
    ----------
    share : float
        The share.

    Raises
    ------
    ValueError
        If it is outside.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
