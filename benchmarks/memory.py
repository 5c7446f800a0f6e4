"""Memory of a large cohort over many rounds: 200 devices on the built-in model.

Every round all 200 devices train, at ranks 1 to 16, and are merged. Printed after every tenth round
are the bytes of all tensors that are alive, which must not grow, and the process's resident memory,
which also holds what the allocator keeps of tensors that are gone.

    python -m benchmarks.memory [--rounds 50] [--devices 200]
"""

from __future__ import annotations

import argparse
import gc
import resource
from pathlib import Path

import numpy as np
import torch

from fslora.data import load_stdlib, partition, tokenize
from fslora.data.tokens import ByteTokenizer
from fslora.local import LocalTraining
from fslora.lora import LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import BUILTIN, load_model
from fslora.trainer import Learner

RANK = 16


def resident_mib() -> float:
    """Resident memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def tensor_mib() -> float:
    """Bytes of all tensors alive, in MiB; shared storage counts once."""
    gc.collect()
    alive = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    storages = {each.untyped_storage()._cdata: each.untyped_storage().nbytes() for each in alive}
    return sum(storages.values()) / 2**20


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description="memory over rounds")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--devices", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = tokenize(load_stdlib(), ByteTokenizer(), "causal-lm", 32, 2)
    base = load_model(BUILTIN, "causal-lm", 0, 0, 1, torch.float32)
    learner = Learner.start(
        base,
        find_layout(base, ("all-linear",), heads=False),
        data,
        partition(data.train, "iid", options.devices, 1),
        LoraSpec(RANK, 16.0),
        LocalTraining(2, 2, 0.1, momentum=0.5),
        METHODS["fslora"],
        1,
    )
    rng = np.random.default_rng(1)
    for round_index in range(1, options.rounds + 1):
        jobs = [
            Job(n, int(rng.integers(1, RANK + 1)), int(rng.integers(2**62)))
            for n in range(options.devices)
        ]
        learner.aggregate(learner.train(jobs), [1 / options.devices] * options.devices)
        if round_index == 1 or round_index % 10 == 0:
            print(
                f"round {round_index}: tensors {tensor_mib():.1f} MiB, "
                f"process {resident_mib():.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
