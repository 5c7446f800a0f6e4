"""Step sizes: over the rounds, and of sketched devices."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch

from fslora.local import LocalTraining, Schedule
from fslora.lora import Adapter
from fslora.methods import GlobalState, Job, Slice
from fslora.methods.fslora import FSLoRA
from fslora.trainer import Learner

Make = Callable[..., Learner]


def test_schedules_begin_at_one_and_fall_to_the_last_round() -> None:
    linear, cosine = Schedule("linear", 0, 4), Schedule("cosine", 0, 4)
    assert [linear.factor(t) for t in (1, 2, 3, 4, 9)] == [1, 0.75, 0.5, 0.25, 0.25]
    assert [cosine.factor(t) for t in (1, 3)] == pytest.approx([1, 0.5])
    assert Schedule("constant", 0, 4).factor(100) == 1


def test_warm_up_rises_in_a_line() -> None:
    warm = Schedule("linear", 3, 7)
    assert [warm.factor(t) for t in range(1, 8)] == [0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]


@dataclass(frozen=True)
class EverySketch(FSLoRA):
    """Device n gets the n-th index set, the same in every layer."""

    sets: tuple[tuple[int, ...], ...] = ()

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:
        """Index set number `job.device`."""
        chosen = np.array(self.sets[job.device])
        return Slice(np.tile(chosen, (len(adapter.a), 1)), rank / len(chosen))


def mean_change(learner: Learner, sketch_rank: int) -> Adapter:
    """Change of the global state, averaged over every index set, all on the same data."""
    method = EverySketch(sets=tuple(combinations(range(6), sketch_rank)))
    count = len(method.sets)
    shards = tuple(learner.shards[0] for _ in range(count))
    state = Adapter(
        {name: torch.zeros_like(value) for name, value in learner.adapter.a.items()},
        {name: torch.zeros_like(value) for name, value in learner.adapter.b.items()},
        {},
    )
    fields = {name: getattr(learner, name) for name in Learner.__dataclass_fields__}
    trained = Learner(**{**fields, "method": method, "shards": shards}).train(
        [Job(device, sketch_rank, 77) for device in range(count)]
    )
    method.merge(GlobalState(state, learner.base, 1.0), trained, [1 / count] * count)
    return state


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "local",
    [
        LocalTraining(1, 4, 0.3, sketch_step="scaled"),
        LocalTraining(1, 4, 0.3, sketch_step="common"),
        LocalTraining(1, 4, 0.3, optimizer="adamw"),
    ],
    ids=["sgd, scaled", "sgd, common", "adamw"],
)
def test_first_change_of_a_sketch_is_unbiased(
    make_learner: Make, local: LocalTraining, k: int
) -> None:
    # At B = 0 every sketch computes the same loss, so the mean over all index sets must be the
    # step of the full adapter, exactly.
    learner = make_learner(local=local)
    for value in learner.adapter.b.values():
        value.zero_()
    sketched, full = mean_change(learner, k), mean_change(learner, 6)
    for name, value in full.b.items():
        torch.testing.assert_close(sketched.b[name], value, atol=1e-12, rtol=1e-9)
        assert value.any()
        torch.testing.assert_close(sketched.a[name], full.a[name], atol=1e-12, rtol=1e-9)


def test_adam_without_the_factor_would_be_too_small_by_k_over_r(make_learner: Make) -> None:
    local = LocalTraining(1, 4, 0.3, optimizer="adamw", epsilon=1e-14, sketch_step="common")
    learner = make_learner(local=local)
    for value in learner.adapter.b.values():
        value.zero_()
    sketched, full = mean_change(learner, 2), mean_change(learner, 6)
    for name, value in full.b.items():
        torch.testing.assert_close(sketched.b[name], value / 3, atol=1e-8, rtol=1e-8)
