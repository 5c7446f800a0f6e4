"""Which device holds which training example."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fslora.data.corpus import DataError
from fslora.data.dataset import Examples

Rule = Literal["natural", "iid", "dirichlet", "quantity", "pathological"]
Shards = tuple[NDArray[np.int64], ...]


def partition(
    examples: Examples,
    rule: Rule,
    devices: int,
    seed: int,
    alpha: float = 0.5,
    classes_per_device: int = 2,
) -> Shards:
    """Deal every example to exactly one device, none left empty-handed.

    Parameters
    ----------
    examples
        Training examples.
    rule
        `natural`: device n holds a random share of group n mod G (with fewer devices than
        groups, several whole groups); `iid`: equal random shares; `dirichlet`: each class is
        divided in proportions drawn from a symmetric Dirichlet distribution; `quantity`: the whole
        is so divided, whatever its classes; `pathological`: every device holds few classes.
    devices
        Number of shards.
    seed
        Seed of the draw.
    alpha
        Concentration of `dirichlet` and `quantity`: towards 0 a class (everything) belongs to one
        device, towards infinity the shares are equal. Source of the scheme: arXiv 1909.06335.
    classes_per_device
        Classes that each device holds under `pathological`; some hold fewer only where classes
        have fewer examples than would be needed. Source of the scheme: arXiv 1602.05629.

    Returns
    -------
    tuple of arrays
        Per device the ascending example numbers it holds.

    Raises
    ------
    DataError
        If there are fewer examples than devices, classes are missing where the rule needs them, or
        there are too few or too many of them for `classes_per_device`.
    """
    if len(examples) < devices:
        raise DataError(f"{len(examples)} training examples cannot feed {devices} devices")
    if rule in ("dirichlet", "pathological") and (examples.label < 0).any():
        raise DataError(f"partition '{rule}' needs the class of every example")
    rng = np.random.default_rng(seed)
    if rule == "natural":
        owner = _natural(examples.group, devices, rng)
    elif rule == "iid":
        owner = rng.permutation(np.arange(len(examples)) % devices)
    elif rule == "dirichlet":
        owner = _dirichlet(examples.label, devices, alpha, rng)
    elif rule == "quantity":
        owner = _quantity(len(examples), devices, alpha, rng)
    else:
        owner = _pathological(examples.label, devices, classes_per_device, rng)
    _feed_the_empty(owner, devices)
    order = np.argsort(owner, kind="stable")
    bounds = np.cumsum(np.bincount(owner, minlength=devices))[:-1]
    return tuple(np.split(order, bounds))


def label_histogram(examples: Examples, shards: Shards, classes: int) -> NDArray[np.int64]:
    """How many examples of each class every device holds.

    Parameters
    ----------
    examples, shards
        Examples, and which of them each of the N devices holds.
    classes
        Number of classes C; unlabelled examples are not counted.

    Returns
    -------
    array (N, C)
    """
    device = np.repeat(np.arange(len(shards)), [len(shard) for shard in shards])
    label = examples.label[np.concatenate(shards)]
    table = np.zeros((len(shards), classes), dtype=np.int64)
    np.add.at(table, (device[label >= 0], label[label >= 0]), 1)
    return table


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


def _quantity(
    count: int, devices: int, alpha: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    # Sizes are those of a single class; who is fed must not depend on the order of the examples.
    owner = _dirichlet(np.zeros(count, dtype=np.int64), devices, alpha, rng)
    _feed_the_empty(owner, devices)
    return rng.permutation(owner)


def _pathological(
    label: NDArray[np.int64], devices: int, classes_per_device: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Cut every class into shards of about one size and deal them, none twice to a device."""
    names, size = np.unique(label, return_counts=True)
    pieces = _pieces(size, devices, classes_per_device)
    room = np.full(devices, classes_per_device)
    owner = np.empty(len(label), dtype=np.int64)
    for place in rng.permutation(len(names)):
        # The devices with most room left, ties at random: room stays equal up to one shard, so
        # there always are enough of them.
        hosts = np.lexsort((rng.random(devices), -room))[: pieces[place]]
        room[hosts] -= 1
        members = rng.permutation(np.flatnonzero(label == names[place]))
        owner[members] = hosts[np.arange(len(members)) % len(hosts)]
    return owner


def _pieces(size: NDArray[np.int64], devices: int, classes_per_device: int) -> NDArray[np.int64]:
    """Number of shards of each class: one, and further ones where shards are largest.

    No class gets more shards than devices, which would give a device two of them, or examples.
    """
    classes, shards = len(size), devices * classes_per_device
    key = f"data.classes_per_device = {classes_per_device}"
    if classes_per_device > classes:
        raise DataError(f"{key}: the training examples have {classes} classes; take at most those")
    if shards < classes:
        raise DataError(
            f"{key}: {devices} devices would leave out some of the {classes} classes; "
            f"take at least {-(-classes // devices)}"
        )
    pieces, most = np.ones(classes, dtype=np.int64), np.minimum(size, devices)
    for _ in range(min(shards, int(most.sum())) - classes):
        pieces[np.argmax(np.where(pieces < most, size / pieces, 0.0))] += 1
    return pieces


def _feed_the_empty(owner: NDArray[np.int64], devices: int) -> None:
    # A device without data would have weight zero; it takes one example of the richest device.
    count = np.bincount(owner, minlength=devices)
    for device in np.flatnonzero(count == 0):
        richest = int(np.argmax(count))
        owner[np.flatnonzero(owner == richest)[0]] = device
        count[richest] -= 1
        count[device] += 1
