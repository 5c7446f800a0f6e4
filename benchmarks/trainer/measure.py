"""Time, memory and arithmetic of a piece of work.

Memory on a CPU is what torch's own allocator handed out: the profiler records every allocation and
every release with its size, also those inside kernels, and the peak is the largest running sum
from the start of the work on. What existed before, such as the base model, is not in it. On CUDA it
is `max_memory_allocated` less what was allocated before.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Spread:
    """Measured values, one per repetition."""

    values: tuple[float, ...]

    @property
    def low(self) -> float:
        """Smallest."""
        return min(self.values)

    @property
    def median(self) -> float:
        """Median."""
        return statistics.median(self.values)

    @property
    def high(self) -> float:
        """Largest."""
        return max(self.values)

    def over(self, other: Spread) -> Spread:
        """Ratio to another, repetition by repetition."""
        return Spread(tuple(x / y for x, y in zip(self.values, other.values, strict=True)))


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one run took, to its last kernel, in ms.

    Parameters
    ----------
    wall
        By the clock.
    processor
        Of processor time this process used, which other processes on the machine disturb less.
    """

    wall: float
    processor: float


def timing(run: Callable[[], object], device: torch.device) -> Timing:
    """Time one run."""
    # What the run before left to collect is not this one's to pay for.
    gc.collect()
    _synchronise(device)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    _synchronise(device)
    return Timing(1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor))


def allocations(run: Callable[[], object]) -> list[int]:
    """Bytes of every CPU allocation (positive) and release (negative) of a run, in order."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    results = record.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most memory a run takes at any one time, beyond what was taken before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return int(torch.cuda.max_memory_allocated(device)) - before
    live = peak = 0
    for size in allocations(run):
        live += size
        peak = max(peak, live)
    return peak


def model_bytes(model: nn.Module) -> int:
    """Memory of a model's weights and buffers, shared ones once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*model.parameters(), *model.buffers())
    }
    return sum(storages.values())


def flops(run: Callable[[], object]) -> int:
    """Floating-point operations of a run's matrix products and, on CUDA, its attention."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int = 20) -> float:
    """Operations per second of a large square matrix product: the median of some."""
    size = 8192 if device.type == "cuda" else 1024
    x, y = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(x)

    def multiply() -> None:
        torch.mm(x, y, out=out)

    for _ in range(3):
        multiply()
    times = [timing(multiply, device).wall for _ in range(repeats)]
    return 2 * size**3 / (1e-3 * statistics.median(times))


def machine(device: torch.device) -> str:
    """Name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines: Sequence[str] = info.read_text().splitlines() if info.exists() else ()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} logical processors"


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
