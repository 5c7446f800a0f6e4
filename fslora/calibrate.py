"""Real time of local training steps, measured on this machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fslora.counting import count_costs
from fslora.data.dataset import Dataset, Examples
from fslora.local import LocalTraining
from fslora.lora import Layout, LoraSpec, find_layout
from fslora.methods import METHODS, Job
from fslora.models import load_model, load_tokenizer, max_tokens, shape_of
from fslora.tasks import Task
from fslora.trainer import Learner

#: Local steps of one timed job: what a job does once is spread over them, as in a round.
STEPS = 5

#: Classes of a classifier; its head is a negligible part of the work.
_CLASSES = 2
_METHOD = METHODS["fslora"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where steps are timed: every rank at every batch and every length.

    Parameters
    ----------
    ranks
        Ranks k of the trained sketch.
    batches
        Examples per step.
    lengths
        Tokens per example, at least 2.
    """

    ranks: tuple[int, ...]
    batches: tuple[int, ...]
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        """Number of points P."""
        return len(self.ranks) * len(self.batches) * len(self.lengths)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Points as (rank, batch, length), the length running fastest."""
        return itertools.product(self.ranks, self.batches, self.lengths)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is trained while the clock runs.

    Parameters
    ----------
    model
        Name of the base model.
    task
        Decides head and loss.
    dtype
        Number format of the frozen weights.
    layout
        Adapted layers and trained heads.
    pad_token
        Token of the padding, which does not occur in the examples.
    vocabulary
        Number of tokens the model knows.
    max_tokens
        Longest example that the model takes, None for no limit.
    """

    model: str
    task: Task
    dtype: torch.dtype
    layout: Layout
    pad_token: int
    vocabulary: int
    max_tokens: int | None

    @classmethod
    def of(cls, model: str, task: Task, targets: tuple[str, ...], dtype: torch.dtype) -> Subject:
        """Look up a model's shape.

        Raises
        ------
        ModelError
            If there is no such model or it cannot take the task.
        DataError
            If its tokenizer is of no use.
        ValueError
            If a target matches no linear layer.
        """
        pad_token = load_tokenizer(model).pad_token
        shape = shape_of(model, task, _CLASSES, pad_token, dtype)
        layout = find_layout(shape, targets, heads=task == "classification")
        vocabulary = int(shape.config.get_text_config().vocab_size)
        return cls(model, task, dtype, layout, pad_token, vocabulary, max_tokens(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Times of one local step over a grid of P points.

    Parameters
    ----------
    grid
        The points.
    flops
        (P,) floating-point operations of a step.
    step_s
        (repeats, P) seconds of a step.
    """

    grid: Grid
    flops: NDArray[np.float64]
    step_s: NDArray[np.float64]

    @property
    def median_s(self) -> NDArray[np.float64]:
        """Median over the repeats, (P,)."""
        return np.asarray(np.median(self.step_s, axis=0))


def measure(
    subject: Subject,
    grid: Grid,
    repeats: int,
    device: torch.device,
    tell: Callable[[float], None] = lambda _: None,
) -> Measurement:
    """Time local steps of one device, a stack of one, through the project's own trainer.

    At every point a job of `STEPS` steps on random tokens is trained untimed, which leaves caches
    and captured kernels as in a long run, and then timed. The grid is gone through once per repeat,
    so that a slow moment of the machine does not fall on one point alone.

    Parameters
    ----------
    subject, grid
        What is trained, and where.
    repeats
        Timed jobs per point, at least 1.
    device
        Where to train.
    tell
        Called after every timed job with the share of them that is done.

    Raises
    ------
    ModelError
        If the model cannot be loaded.
    Diverged
        If its loss is not finite.
    """
    flops = count_step_flops(subject, grid)
    learner = _learner(subject, grid, device)
    holder = {pair: number for number, pair in enumerate(_pairs(grid))}
    step_s = np.empty((repeats, len(grid)))
    for repeat in range(repeats):
        for point, (rank, batch, length) in enumerate(grid):
            job = Job(holder[batch, length], rank, 0)
            _job_s(learner, job, device)
            step_s[repeat, point] = _job_s(learner, job, device) / STEPS
            tell((repeat * len(grid) + point + 1) / step_s.size)
    return Measurement(grid, flops, step_s)


def count_step_flops(subject: Subject, grid: Grid) -> NDArray[np.float64]:
    """Floating-point operations of one step at every point, counted on the shape, (P,)."""
    (cost,) = count_costs(
        shape_of(subject.model, subject.task, _CLASSES, subject.pad_token, subject.dtype),
        subject.layout,
        _METHOD,
        max(grid.ranks),
        _local(grid),
        max(grid.lengths),
        subject.task,
        bits_per_number=32,
    )
    return np.array([batch * cost.example_flops(rank, length) for rank, batch, length in grid])


def _learner(subject: Subject, grid: Grid, device: torch.device) -> Learner:
    """A learner with one device per batch and length, which holds just the examples of a step.

    A device that holds fewer examples than a batch takes all of them, so its own number is its
    batch.
    """
    base = load_model(subject.model, subject.task, _CLASSES, subject.pad_token, 0, subject.dtype)
    rank = max(grid.ranks)
    held = [batch for batch, _ in _pairs(grid)]
    return Learner.start(
        base.to(device),  # type: ignore[arg-type]  # its decorator hides a method
        subject.layout,
        _random_dataset(subject, np.repeat([length for _, length in _pairs(grid)], held)),
        tuple(np.split(np.arange(sum(held)), np.cumsum(held)[:-1])),
        LoraSpec(rank, float(rank)),
        _local(grid),
        _METHOD,
        seed=0,
        at_once=1,
    )


def _pairs(grid: Grid) -> list[tuple[int, int]]:
    """Every (batch, length)."""
    return list(itertools.product(grid.batches, grid.lengths))


def _local(grid: Grid) -> LocalTraining:
    """Steps as scenarios take them by default: plain SGD with clipped gradients."""
    return LocalTraining(STEPS, max(grid.batches), learning_rate=1e-3, clip_norm=2.0)


def _random_dataset(subject: Subject, length: NDArray[np.int64]) -> Dataset:
    """Examples of random tokens; their sense does not change the time."""
    count, width = len(length), int(length.max())
    tokens = np.random.default_rng(0).integers(0, subject.vocabulary - 1, (count, width))
    tokens += tokens >= subject.pad_token
    tokens[np.arange(width) >= length[:, None]] = subject.pad_token
    none = np.zeros(count, dtype=np.int64)
    examples = Examples(
        tokens=tokens,
        length=length,
        predicted_bytes=length - 1,
        group=none,
        label=np.arange(count) % _CLASSES,
        prompt=none + 1,
    )
    labels = tuple(str(number) for number in range(_CLASSES))
    return Dataset(subject.task, examples, examples, ("all",), labels, "random")


def _job_s(learner: Learner, job: Job, device: torch.device) -> float:
    """Seconds of a job."""
    start = time.perf_counter()
    learner.train([job])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
