"""A device preset measured on this machine: real step times, the compute model, and their fit."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from fslora.calibrate import STEPS, Grid, Measurement, Subject, measure
from fslora.data import DataError
from fslora.models import ModelError
from fslora.tasks import Task
from fslora.trainer import Diverged
from sim.errors import InputError, RunError
from sim.host import host_device
from sim.sections.base import NumberFormat
from sim.sections.fleet import DEVICE_FILES, Device
from wireless.compute import ComputeFit, fit_compute

#: Power of training that nobody measured: a laptop's 45 W over its 8 cores, per CPU thread, ...
_THREAD_POWER_W = 5.0
#: ... and the board power of a PCIe graphics card.
_GPU_POWER_W = 250.0

_LARGEST = 100_000


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure.

    Parameters
    ----------
    name
        Name of the device.
    model
        Base model, as `model.name` of a scenario.
    task, dtype
        What is learnt, and number format of the frozen weights.
    targets
        Adapted layers, as `lora.targets`.
    grid
        Ranks, batches and lengths.
    repeats
        Timed jobs per point.
    threads
        CPU threads, None for as many as torch takes by itself.
    device
        auto, cpu or cuda.
    power_w
        Power drawn while training, None for an estimate.
    tx_power_dbm
        Transmit power of the device.

    Raises
    ------
    InputError
        If a value is out of range; the message names the option.
    """

    name: str
    model: str
    task: str
    dtype: str
    targets: tuple[str, ...]
    grid: Grid
    repeats: int
    threads: int | None
    device: str
    power_w: float | None
    tx_power_dbm: float

    def __post_init__(self) -> None:
        """Check every option."""
        for option, value, known in (
            ("--task", self.task, typing.get_args(Task)),
            ("--dtype", self.dtype, typing.get_args(NumberFormat)),
            ("--device", self.device, ("auto", "cpu", "cuda")),
        ):
            if value not in known:
                raise InputError(f"{option} {value}: known: {', '.join(known)}")
        if min(self.grid.lengths) < 2:
            raise InputError(f"--lengths {min(self.grid.lengths)}: a step needs 2 tokens or more")
        if len(self.grid) < 2:
            raise InputError(
                "--ranks, --batches, --lengths: one point cannot tell overhead from speed; give "
                "one of them two values or more"
            )
        for option, number, low, high in (
            ("--repeats", self.repeats, 1, 1000),
            ("--threads", self.threads, 1, 1024),
            ("--power-w", self.power_w, 0, 1e6),
            ("--tx-power-dbm", self.tx_power_dbm, -100, 100),
        ):
            if number is not None and not low <= number <= high:
                raise InputError(f"{option} {number}: should be from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A measured device.

    Parameters
    ----------
    measurement
        Step times over the grid.
    fit
        Speed and overhead, with their error at each point.
    device
        The preset.
    """

    measurement: Measurement
    fit: ComputeFit
    device: Device


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Parse a list such as `1,4,16`.

    Raises
    ------
    InputError
        If it is not a list of unlike whole numbers from 1 up.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= _LARGEST for word in words):
        raise InputError(
            f"{option} {text}: expected whole numbers from 1 to {_LARGEST} with commas between, "
            "such as 1,4,16"
        )
    found = tuple(map(int, words))
    if len(set(found)) < len(found):
        raise InputError(f"{option} {text}: a number is given twice; keep one")
    return found


def check_files(preset: Path, table: Path | None) -> None:
    """Refuse files that cannot be written before minutes are spent on measuring.

    Raises
    ------
    InputError
        If the preset has not the ending of one, or a file cannot be written.
    """
    if table == preset:
        raise InputError(f"--csv {table}: is the preset's file; name another")
    if preset.suffix not in DEVICE_FILES:
        raise InputError(f"-o {preset}: give a file ending in {' or '.join(DEVICE_FILES)}")
    for option, file in (("-o", preset), ("--csv", table)):
        if file is None:
            continue
        place = file if file.exists() else file.parent
        if file.is_dir() or not place.exists() or not os.access(place, os.W_OK):
            raise InputError(
                f"{option} {file}: cannot be written; name a file in a folder that exists"
            )


def calibrate(request: Request, tell: Callable[[float], None] = lambda _: None) -> Calibration:
    """Measure this machine and fit the compute model of a device to it.

    Parameters
    ----------
    request
        What to measure.
    tell
        Called as it goes on with the share that is done.

    Raises
    ------
    InputError
        If model, targets or host device do not exist, or an example is longer than the model takes.
    RunError
        If the training fails, or the times tell no speed.
    """
    host = torch.device(host_device(request.device))
    memory_bytes = _memory_bytes(host)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    task: Task = "classification" if request.task == "classification" else "causal-lm"
    try:
        subject = Subject.of(request.model, task, request.targets, getattr(torch, request.dtype))
    except (ModelError, DataError) as error:
        raise InputError(f"--model {request.model}: {error}") from None
    except ValueError as error:
        raise InputError(f"--targets {','.join(request.targets)}: {error}") from None
    longest = max(request.grid.lengths)
    if subject.max_tokens is not None and longest > subject.max_tokens:
        raise InputError(
            f"--lengths {longest}: {request.model} takes at most {subject.max_tokens} tokens"
        )
    try:
        measurement = measure(subject, request.grid, request.repeats, host, tell)
    except ModelError as error:
        raise InputError(f"--model {request.model}: {error}") from None
    except Diverged as error:
        raise RunError(f"{error} (random tokens, {request.dtype})") from None
    except torch.OutOfMemoryError:
        raise RunError(
            "the GPU's memory does not hold a step; choose smaller --batches or --lengths"
        ) from None
    try:
        fit = fit_compute(measurement.flops, measurement.median_s)
    except ValueError as error:
        raise RunError(f"{error}; choose --batches and --lengths further apart") from None
    return Calibration(measurement, fit, _device(request, host, memory_bytes, fit))


def write_preset(device: Device, file: Path) -> None:
    """Write a preset that `fleet.preset` of a scenario can name.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = yaml.safe_dump(device.model_dump(), sort_keys=False, allow_unicode=True, width=100)
    try:
        file.write_text("# A device for fleet.preset of a scenario.\n" + text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"-o {file}: cannot be written ({error.strerror})") from None


def write_csv(measurement: Measurement, file: Path) -> None:
    """Write every measured step time, one line per point and repeat.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["repeat", "rank", "batch", "length", "flops", "step_s"])
            for repeat, times in enumerate(measurement.step_s, start=1):
                for point, flops, step_s in zip(
                    measurement.grid, measurement.flops, times, strict=True
                ):
                    writer.writerow([repeat, *point, float(flops), float(step_s)])
    except OSError as error:
        raise InputError(f"--csv {file}: cannot be written ({error.strerror})") from None


def _device(request: Request, host: torch.device, memory_bytes: int, fit: ComputeFit) -> Device:
    """The preset, with where its figures come from."""
    threads = torch.get_num_threads()
    if request.power_w is not None:
        power_w, said = request.power_w, f"power {request.power_w:g} W as given"
    elif host.type == "cuda":
        power_w = _GPU_POWER_W
        said = f"estimate: {power_w:g} W, the board power of a graphics card"
    else:
        power_w = _THREAD_POWER_W * threads
        said = f"estimate: power of {_THREAD_POWER_W:g} W per thread"
    grid = request.grid
    points = " x ".join(
        f"{name} {','.join(map(str, values))}"
        for name, values in (
            ("ranks", grid.ranks),
            ("batches", grid.batches),
            ("lengths", grid.lengths),
        )
    )
    source = (
        f"speed and overhead measured on {datetime.date.today().isoformat()} by sim calibrate: "
        f"{_machine(host)}, {platform.system()} {platform.machine()}, threads {threads}, torch "
        f"{torch.__version__}; {request.model} in {request.dtype}, {request.task}, targets "
        f"{','.join(request.targets)}, {points}, median of {request.repeats} jobs of {STEPS} "
        f"steps; relative error of the fit {fit.rms_error:.1%} rms, {fit.worst_error:.1%} at "
        f"worst; memory is the {'GPU' if host.type == 'cuda' else 'machine'}'s physical one; {said}"
    )
    return Device(
        name=request.name,
        # Times repeat to a few percent; further digits would only look exact.
        flops=_rounded(fit.flops),
        step_overhead_s=_rounded(fit.step_overhead_s),
        memory_bytes=float(memory_bytes),
        compute_power_w=power_w,
        tx_power_dbm=request.tx_power_dbm,
        source=source,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _memory_bytes(host: torch.device) -> int:
    """Physical memory of the GPU or the machine."""
    if host.type == "cuda":
        return int(torch.cuda.get_device_properties(host).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        raise RunError("this system does not tell how much memory it has") from None


def _machine(host: torch.device) -> str:
    """Name of the board, processor or GPU, as far as the system tells."""
    if host.type == "cuda":
        return torch.cuda.get_device_name(host)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            # x86 names the processor, Arm boards themselves.
            if key.strip() in ("model name", "Model"):
                return value.strip()
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0 ")
    except OSError:
        return platform.processor() or "unnamed processor"
