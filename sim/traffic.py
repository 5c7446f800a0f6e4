"""Uploads against the table of the method, counted again from the shapes that a run has left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from fslora.compression import Compression
from fslora.lora import PEFT_PREFIX, is_core
from sim.findings import Finding, where
from sim.part_rows import Attempts
from sim.parts import DONE
from sim.rundir import RunFiles
from sim.sections.base import NUMBER_BITS
from sim.sent import Sent
from sim.system import System
from sim.workload import make_method


def traffic(
    run: RunFiles, system: System, timeline: pd.DataFrame, sent: Sent, tries: Attempts
) -> Iterator[Finding]:
    """Uploads are those of the method's table, with the shapes of the adapter on disk.

    Parameters
    ----------
    run, system
        The run and what it simulated; without training there is no adapter, and nothing to check.
    timeline, sent, tries
        Its timeline, whom it sent out, and their attempts to upload.
    """
    scenario = run.scenario
    if scenario.training.timing_only:
        return
    path = run.folder / "adapter" / "adapter_model.safetensors"
    workload = system.workload
    stays = {PEFT_PREFIX + name for name in workload.layout.layers.keys() - workload.sent.layers}
    dims: dict[str, dict[str, int]] = defaultdict(dict)
    fixed = rank = 0
    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # not a mapping
                shape = tensors.get_slice(name).get_shape()
                layer, factor, _ = name.partition(".lora_")
                if not factor:
                    fixed += int(np.prod(shape)) if workload.sent.heads else 0
                elif ".lora_A" in name:
                    dims[layer]["d_in"], rank = shape[1], shape[0]
                else:
                    dims[layer]["d_out"] = shape[0]
    except (OSError, SafetensorError) as error:
        yield Finding("adapter/adapter_model.safetensors", None, f"cannot be read ({error})")
        return
    if rank != scenario.lora.rank:
        yield Finding(
            "adapter/adapter_model.safetensors",
            None,
            f"has rank {rank}, the scenario {scenario.lora.rank}",
        )
    choice, method = scenario.method, make_method(scenario)
    number_bits = NUMBER_BITS[choice.number_format]
    compression = Compression(choice.keep, choice.value_bits)
    whole = fixed * number_bits
    if method.core:
        if not (run.table("updates.csv")["round"] > 0).any():
            return  # nobody has trained, so no core is on disk
        try:
            rows = _core_rows(run.folder / "adapter" / "beyond_adapter.safetensors")
        except (OSError, SafetensorError) as error:
            yield Finding("adapter/beyond_adapter.safetensors", None, f"cannot be read ({error})")
            return
        whole += sum(compression.vector_bits(length, number_bits) for length in rows)
    dims = {layer: shape for layer, shape in dims.items() if layer not in stays}
    named = method.index_bits(rank) * len(dims)
    per_rank = np.array(
        [
            named
            + sum(
                compression.vector_bits(length, number_bits)
                for layer in dims.values()
                for length in method.vectors_up(layer["d_in"], layer["d_out"], phase)
            )
            for phase in range(method.phases)
        ]
    )
    phase = (sent.round[tries.sent] - 1) % method.phases
    analog = scenario.radio.uplink.name == "analog"
    ranks = np.full(len(tries), rank) if analog else sent.rank[tries.sent]
    bits = ranks * per_rank[phase] + whole
    if analog:  # two numbers a symbol
        bits = -(-bits // (2 * number_bits)) * 2 * number_bits
    exchanged = np.zeros(len(sent))
    if sent.batches:
        jobs = ((each.device, each.key, each.rank, each.round) for each in sent.batches)
        exchanged = np.concatenate([workload.exchange_of(*job).up_bits for job in jobs])
    size = (bits + exchanged[tries.sent]) // 8
    wrong = (tries.outcome == DONE) & (tries.bytes != size)
    yield from where(
        "timeline.csv",
        timeline.iloc[tries.row],
        wrong,
        "device {device} uploads {bytes} bytes, not what its rank and the adapter's shapes give",
    )


def _core_rows(path: Path) -> list[int]:
    """Lengths of all rows of the cores of a device that has trained."""
    lengths: dict[str, list[int]] = defaultdict(list)
    with safe_open(path, framework="np") as tensors:
        for name in filter(is_core, tensors.keys()):
            rows, length = tensors.get_slice(name).get_shape()
            lengths[name.split(".")[1]] += [length] * rows
    return next(iter(lengths.values()), [])
