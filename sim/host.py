"""What the host trains with: its device, and the learner on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fslora.compression import Compression
from fslora.models import ModelError, enable_checkpointing, load_model
from sim.errors import InputError
from sim.scenario import Scenario
from sim.system import System
from sim.workload import Workload
from wireless import streams

if TYPE_CHECKING:
    import torch

    from fslora.server import ServerOptimizer
    from fslora.trainer import Learner


def make_learner(system: System) -> Learner:
    """Load the base model and wrap it for training.

    Raises
    ------
    InputError
        If the model cannot be loaded or the asked-for host device is missing.
    """
    import torch

    from fslora.peft_io import load_adapter
    from fslora.trainer import Learner

    scenario, workload = system.scenario, system.workload
    torch.set_num_threads(scenario.training.threads)
    if scenario.training.deterministic:
        # cuBLAS reads it when it starts; without it torch refuses its products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(scenario.training.deterministic)
    device = host_device(scenario.training.device)
    try:
        base = load_model(
            scenario.model.name,
            scenario.data.task,
            len(workload.label_names),
            workload.pad_token,
            streams.key(scenario.seed, "head") % 2**32,
            _arithmetic(scenario),
            nf4=scenario.model.dtype == "nf4",
        ).to(torch.device(device))  # type: ignore[arg-type]  # its decorator hides a method
        if scenario.training.gradient_checkpointing:
            enable_checkpointing(base)
    except ModelError as error:
        raise InputError(str(error)) from None
    adapter = None
    if scenario.lora.start is not None:
        adapter = load_adapter(
            Path(scenario.lora.start), base, workload.layout, workload.lora, torch.float32
        )
    return Learner.start(
        base,
        workload.layout,
        workload.dataset,
        workload.shards,
        workload.lora,
        workload.local,
        workload.method,
        streams.key(scenario.seed, "adapter"),
        wire=getattr(torch, scenario.method.number_format),
        at_once=_at_once(scenario, workload),
        server=_server(scenario),
        adapter=adapter,
        compression=Compression(scenario.method.keep, scenario.method.value_bits),
    )


def host_device(choice: str) -> str:
    """`cpu` or `cuda`, as chosen or, for `auto`, as there is.

    Raises
    ------
    InputError
        If CUDA is asked for and absent.
    """
    import torch

    present = torch.cuda.is_available()
    if choice == "cuda" and not present:
        raise InputError("training.device = cuda: this machine has no CUDA device; use cpu or auto")
    return "cuda" if present and choice != "cpu" else "cpu"


def _arithmetic(scenario: Scenario) -> torch.dtype:
    """Number format of the base's products."""
    import torch

    chosen = scenario.model.dtype
    dtype: torch.dtype = torch.bfloat16 if chosen == "nf4" else getattr(torch, chosen)
    return dtype


def _server(scenario: Scenario) -> ServerOptimizer:
    from fslora.server import ServerOptimizer

    choice = scenario.training.server.model_dump()
    return ServerOptimizer(rule=choice.pop("name"), **choice)


def _at_once(scenario: Scenario, workload: Workload) -> int:
    """Devices per stack so that their training fits into the memory the scenario grants."""
    rank = scenario.lora.rank
    # Beside what a device holds itself, the host keeps where it started and how far it came.
    kept = 2 * 4 * workload.layout.numbers(rank)
    granted = scenario.training.memory_gib * 2**30
    return max(1, int(granted // (workload.cost.training_bytes(rank) + kept)))
