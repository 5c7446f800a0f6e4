"""Links of several groups of devices as one."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np

from wireless.link.base import Link
from wireless.link.faded import FadedLink

_L = TypeVar("_L", bound=Link)


def join(links: Sequence[_L]) -> _L:
    """Return the links of all devices, one group after the other.

    A device's link is the same as before to the last digit: what was computed for it is taken
    over, not computed again.

    Parameters
    ----------
    links : sequence of Link
        At least one; frozen dataclasses of one kind, whose fields are arrays over devices, links
        of the same devices, and values for all of them.

    Returns
    -------
    Link
        Of the same kind.

    Raises
    ------
    ValueError
        If the links are of different kinds, or differ in a value for all devices.
    """
    first = links[0]
    if len(links) == 1:
        return first
    kinds = {type(each) for each in links}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"links must be of one kind, got {names}")
    if isinstance(first, FadedLink):
        links = cast(Sequence[_L], _of_one_table(cast(Sequence[FadedLink], links)))
    # Without __init__, which may compute.
    joined = object.__new__(type(first))
    for field in fields(cast(Any, first)):
        parts = [getattr(each, field.name) for each in links]
        object.__setattr__(joined, field.name, _joined(field.name, parts))
    return joined


def _joined(name: str, parts: list[Any]) -> Any:
    """One field of the joined links."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if is_dataclass(parts[0]):
        return join(cast(list[Link], parts))
    if any(part != parts[0] for part in parts):
        raise ValueError(f"links to be joined must have the same {name}, got {parts}")
    return parts[0]


def _of_one_table(links: Sequence[FadedLink]) -> Sequence[FadedLink]:
    """The same links, with their curves numbered alike."""
    if all(each.curves is links[0].curves for each in links):
        return links
    curves = tuple(dict.fromkeys(curve for each in links for curve in each.curves))
    number = {curve: place for place, curve in enumerate(curves)}
    renumbered = [np.array([number[curve] for curve in each.curves], np.intp) for each in links]
    return [
        replace(each, curve=places[each.curve], curves=curves)
        for each, places in zip(links, renumbered, strict=True)
    ]
