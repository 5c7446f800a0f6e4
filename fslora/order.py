"""Which examples a device trains on in a round, in which order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fslora.data.partition import Shards
from fslora.local import LocalTraining
from fslora.methods.base import Job


def job_rows(
    shards: Shards, length: NDArray[np.int64], local: LocalTraining, job: Job
) -> NDArray[np.int64]:
    """Example numbers a job trains on, (H, b) in order."""
    shard = shards[job.device]
    steps, batch = int(local.steps_of(len(shard))), int(local.batch_of(len(shard)))
    return data_order(shard, length, job.key, steps, batch)


def data_order(
    shard: NDArray[np.int64], length: NDArray[np.int64], key: int, steps: int, batch: int
) -> NDArray[np.int64]:
    """Examples a device trains on: passes over its shard, each freshly shuffled.

    Within a pass the drawn examples are ordered from long to short, so that a step holds examples
    of like length and little of a batch is padding. Which examples are drawn does not depend on
    their length.

    Parameters
    ----------
    shard
        Example numbers the device holds.
    length
        Tokens of every example, indexed by example number.
    key
        Seed of this device and dispatch.
    steps, batch
        H and b.

    Returns
    -------
    array (H, b)
    """
    passes = [
        drawn[np.argsort(-length[drawn], kind="stable")]
        for drawn in shuffled_passes(shard, key, steps * batch)
    ]
    return np.concatenate(passes).reshape(steps, batch)


def shuffled_passes(values: NDArray[np.int64], key: int, count: int) -> Iterator[NDArray[np.int64]]:
    """Passes over `values`, each freshly shuffled, the last cut off where `count` are drawn.

    Which places are drawn follows from the key and the number of values alone.
    """
    rng = np.random.default_rng((key, 1))
    while count > 0:
        drawn = rng.permutation(values)[:count]
        yield drawn
        count -= len(drawn)
