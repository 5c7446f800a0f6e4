"""What the trainer benchmark compares is the same work, and stacked training copies no base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.trainer.measure import allocations, model_bytes, peak_bytes
from benchmarks.trainer.rivals import CopyAndMask, Delta, OneAdapter, OneByOne, OneByOneGraph, Work
from benchmarks.trainer.workloads import Workload, bert, llama

CPU = torch.device("cpu")

#: Samples differ in length, so padding and masks are part of the comparison.
MICRO = {
    "classification": Workload(
        bert(24, 2, 2, 40, 61),
        "classification",
        61,
        devices=4,
        batch=3,
        tokens=7,
        learning_rate=0.3,
        dtype=torch.float64,
        shortest=3,
        steps=3,
        rank=9,
    ),
    "causal-lm": Workload(
        llama(24, 2, 2, 1, 40, 61),
        "causal-lm",
        61,
        devices=4,
        batch=3,
        tokens=7,
        learning_rate=0.3,
        targets=("all-linear",),
        dtype=torch.float64,
        shortest=3,
        steps=3,
        rank=9,
    ),
}


class Uncaptured(OneByOneGraph):
    """The captured step run as it is, which needs no GPU."""

    def record(self) -> Callable[[], object]:
        """Replaying is running."""
        return self.step


@pytest.mark.parametrize("rival", [CopyAndMask, OneByOne, Uncaptured])
@pytest.mark.parametrize("task", MICRO)
def test_rivals_return_the_changes_that_the_learner_returns(
    rival: type[CopyAndMask | OneByOne | Uncaptured], task: str
) -> None:
    workload = MICRO[task]
    learner, jobs = workload.learner(workload.base(CPU)), workload.jobs()
    other = rival(workload.base(CPU), tuple(learner.adapter.a))
    work = Work.of(learner, jobs)
    for _ in range(2):
        changes = other.run(work)
    for update, change in zip(learner.train(jobs), changes, strict=True):
        assert change.distance(Delta.of(update)) < 1e-9
        assert float(change.loss) == pytest.approx(update.loss, abs=1e-9)
        assert all(bool(value.any()) for value in (*change.a.values(), *change.b.values()))


def test_padding_every_sample_changes_nothing_but_the_time() -> None:
    workload = MICRO["classification"]
    learner, jobs = workload.learner(workload.base(CPU)), workload.jobs()
    other = CopyAndMask(workload.base(CPU), tuple(learner.adapter.a))
    padded = other.run(Work.of(learner, jobs, width=20))
    for one, two in zip(other.run(Work.of(learner, jobs)), padded, strict=True):
        assert one.distance(two) < 1e-9


def test_the_floor_trains_one_device_as_the_learner_does() -> None:
    """With all ranks and a cohort of one, one ordinary adapter is federated training."""
    workload = MICRO["classification"]
    learner = workload.learner(workload.base(CPU))
    job = replace(workload.jobs()[0], rank=workload.rank)
    floor = OneAdapter(workload.base(CPU), tuple(learner.adapter.a))
    (change,), (update,) = floor.run(Work.of(learner, [job])), learner.train([job])
    assert change.distance(Delta.of(update)) < 1e-9


#: The base far outweighs factors and activations, and its matrices have sizes of their own.
HEAVY = replace(
    MICRO["classification"], build=bert(24, 2, 2, 53, 4099), tokens=5, batch=1, steps=2, rank=8
)


def test_stacked_training_holds_no_copy_of_the_base() -> None:
    """Four devices at once take less memory than one base model, and no matrix of it is copied.

    Seen from torch's allocator: its peak during training, and the size of everything it hands out.
    This excludes a copy per device or for all, a cast or gradient of a frozen matrix, and a stacked
    tensor of copies. The variant that copies the model shows that the measure sees copies.
    """
    learner, jobs = HEAVY.learner(HEAVY.base(CPU)), HEAVY.jobs()
    base = learner.model.model
    rival = CopyAndMask(HEAVY.base(CPU), tuple(learner.adapter.a))
    matrices = {4099 * 24 * 8, 53 * 24 * 8, 24 * 24 * 8}
    assert matrices <= {parameter.nbytes for parameter in base.parameters()}

    def copies(run: Callable[[], object]) -> int:
        sizes = Counter(allocations(run))
        return sum(sizes[n * size] for size in matrices for n in range(1, len(jobs) + 1))

    def copying() -> list[Delta]:
        return rival.run(Work.of(learner, jobs))

    def stacked() -> object:
        return learner.train(jobs)

    stacked()
    assert copies(stacked) == 0
    assert peak_bytes(stacked, CPU) < model_bytes(base)
    assert copies(copying) >= len(jobs) * 3
    assert peak_bytes(copying, CPU) > model_bytes(base)
