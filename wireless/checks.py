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
