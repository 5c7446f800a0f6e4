"""Steps that are recorded once per shape and from then on replayed.

A training step of a large model is thousands of kernels; recorded as a CUDA graph they start with
one call. A recording reads and writes fixed addresses, so each has a copy of what its step reads,
into which the next step's data are copied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Recordings kept; their memory is shared, since only one runs at a time.
_KEPT = 32

Play = Callable[[], None]
#: Turns a step into something that can be played any number of times; it does not run it.
Recorder = Callable[[Play], Play]


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What one step reads, for the first n devices of a stack.

    Parameters
    ----------
    tokens
        (n b, L).
    length, prompt, label
        (n b,).
    dropout_key
        (n,).
    """

    tokens: Tensor
    length: Tensor
    prompt: Tensor
    label: Tensor
    dropout_key: Tensor

    def clone(self) -> StepBatch:
        """The same in memory of its own."""
        return StepBatch(*(each.clone() for each in self._parts()))

    def copy_(self, other: StepBatch) -> None:
        """Take over the values of another step of the same shape."""
        for mine, theirs in zip(self._parts(), other._parts(), strict=True):
            mine.copy_(theirs)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.tokens, self.length, self.prompt, self.label, self.dropout_key


class Replay:
    """Recorded steps by shape.

    The first step of a shape runs as it is, which also warms up what it calls; the second is
    recorded, so nothing is recorded that does not come again. For a new recording the one that was
    not played for longest is dropped, and its shape counts as new.

    Parameters
    ----------
    recorder
        Makes a recorder, whose recordings share memory; made anew when all are dropped.
    """

    def __init__(self, recorder: Callable[[], Recorder]) -> None:
        self._recorder = recorder
        self._record = recorder()
        self._works = True
        self._seen: set[tuple[int, ...]] = set()
        self._recorded: dict[tuple[int, ...], tuple[Play, StepBatch]] = {}

    def __len__(self) -> int:
        return len(self._recorded)

    def forget(self) -> None:
        """Drop all recordings, before the memory they write is given back."""
        self._recorded.clear()
        self._record = self._recorder()

    def run(
        self, shape: tuple[int, ...], batch: StepBatch, step: Callable[[StepBatch], None]
    ) -> None:
        """Do `step(batch)`; calls of one shape differ in the values of `batch` alone."""
        if self._works and shape in self._seen and shape not in self._recorded:
            self._take_down(shape, batch.clone(), step)
        if shape not in self._recorded:
            self._seen.add(shape)
            step(batch)
            return
        play, read = self._recorded[shape] = self._recorded.pop(shape)
        read.copy_(batch)
        play()

    def _take_down(
        self, shape: tuple[int, ...], read: StepBatch, step: Callable[[StepBatch], None]
    ) -> None:
        while len(self._recorded) >= _KEPT:
            longest_ago = next(iter(self._recorded))
            del self._recorded[longest_ago]
            self._seen.discard(longest_ago)
        try:
            self._recorded[shape] = (self._record(lambda: step(read)), read)
        except RuntimeError as error:
            self._works = False
            self.forget()
            warnings.warn(
                "steps of this model cannot be captured as a CUDA graph and run one kernel at a "
                f"time ({str(error).splitlines()[0]})",
                stacklevel=2,
            )


def cuda_graphs() -> Replay:
    """Replay by CUDA graphs that share one pool of memory."""

    def recorder() -> Recorder:
        # A pool that no graph uses any more cannot be opened again.
        pool = torch.cuda.graph_pool_handle()

        def record(step: Play) -> Play:
            graph = torch.cuda.CUDAGraph()
            # The outer block brings the stream back where a capture breaks off.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
                step()
            return graph.replay

        return record

    return Replay(recorder)
