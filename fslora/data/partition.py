"""Which device holds which training example."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fslora.data.corpus import DataError
from fslora.data.dataset import Examples

Rule = Literal["natural", "iid", "dirichlet"]
Shards = tuple[NDArray[np.int64], ...]


def partition(
    examples: Examples, rule: Rule, devices: int, seed: int, alpha: float = 0.5
) -> Shards:
    """Deal every example to exactly one device, none left empty-handed.

    Parameters
    ----------
    examples
        Training examples.
    rule
        `natural`: device n holds a random share of group n mod G (with fewer devices than
        groups, several whole groups); `iid`: equal random shares; `dirichlet`: each class is
        divided in proportions drawn from a symmetric Dirichlet distribution.
    devices
        Number of shards.
    seed
        Seed of the draw.
    alpha
        Concentration of `dirichlet`: towards 0 a class belongs to one device, towards infinity
        the shares are equal. Source of the scheme: arXiv 1909.06335.

    Returns
    -------
    tuple of arrays
        Per device the ascending example numbers it holds.

    Raises
    ------
    DataError
        If there are fewer examples than devices.
    """
    if len(examples) < devices:
        raise DataError(f"{len(examples)} training examples cannot feed {devices} devices")
    rng = np.random.default_rng(seed)
    if rule == "natural":
        owner = _natural(examples.group, devices, rng)
    elif rule == "iid":
        owner = rng.permutation(np.arange(len(examples)) % devices)
    else:
        owner = _dirichlet(examples.label, devices, alpha, rng)
    _feed_the_empty(owner, devices)
    order = np.argsort(owner, kind="stable")
    bounds = np.cumsum(np.bincount(owner, minlength=devices))[:-1]
    return tuple(np.split(order, bounds))


def _natural(group: NDArray[np.int64], devices: int, rng: np.random.Generator) -> NDArray[np.int64]:
    present = np.unique(group)
    owner = np.empty(len(group), dtype=np.int64)
    for place, name in enumerate(present):
        members = rng.permutation(np.flatnonzero(group == name))
        hosts = np.arange(place % devices, devices, len(present))
        owner[members] = hosts[np.arange(len(members)) % len(hosts)]
    return owner


def _dirichlet(
    label: NDArray[np.int64], devices: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    owner = np.empty(len(label), dtype=np.int64)
    for name in np.unique(label):
        members = rng.permutation(np.flatnonzero(label == name))
        share = np.cumsum(rng.dirichlet(np.full(devices, alpha)))
        owner[members] = np.searchsorted(share[:-1], (np.arange(len(members)) + 0.5) / len(members))
    return owner


def _feed_the_empty(owner: NDArray[np.int64], devices: int) -> None:
    # A device without data would have weight zero; it takes one example of the richest device.
    count = np.bincount(owner, minlength=devices)
    for device in np.flatnonzero(count == 0):
        richest = int(np.argmax(count))
        owner[np.flatnonzero(owner == richest)[0]] = device
        count[richest] -= 1
        count[device] += 1
