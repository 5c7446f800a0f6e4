"""Stacked training is exactly one device at a time."""

from collections.abc import Callable

import pytest
import torch

from fslora.local import LocalTraining
from fslora.methods import Job, Update
from fslora.reference import train_alone
from fslora.trainer import Learner

JOBS = [Job(0, 6, 100), Job(3, 2, 101), Job(1, 1, 102), Job(4, 4, 103)]

Make = Callable[..., Learner]


def assert_same(left: Update, right: Update, tolerance: float) -> None:
    """Same change, same loss, same ranks."""
    assert left.device == right.device
    assert left.loss == pytest.approx(right.loss, abs=tolerance)
    for ours, theirs in (
        (left.delta_a, right.delta_a),
        (left.delta_b, right.delta_b),
        (left.delta_head, right.delta_head),
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("momentum", "clip"), [(0.0, None), (0.9, None), (0.5, 0.1)])
def test_equals_one_at_a_time(
    make_learner: Make, kind: str, padded: bool, momentum: float, clip: float | None
) -> None:
    local = LocalTraining(3, 2, 0.3, momentum, clip)
    together = make_learner(kind, local=local, padded=padded).train(JOBS)
    alone = make_learner(kind, local=local, padded=padded)
    moved = 0.0
    for job, update in zip(JOBS, together, strict=True):
        assert_same(update, train_alone(alone, job), 1e-9)
        moved = max(moved, *(float(d.abs().max()) for d in update.delta_b.values()))
    assert moved > 1e-4


def test_cutting_the_cohort_changes_nothing(make_learner: Make) -> None:
    whole = make_learner("bert", padded=True).train(JOBS)
    for size in (1, 3):
        pieces = make_learner("bert", padded=True, at_once=size).train(JOBS)
        for left, right in zip(whole, pieces, strict=True):
            assert_same(left, right, 1e-12)


def test_devices_do_not_see_each_other(make_learner: Make) -> None:
    learner = make_learner()
    first = learner.train(JOBS)[1]
    other = learner.train([Job(2, 6, 999), JOBS[1]])[1]
    assert_same(first, other, 1e-12)


def test_training_leaves_the_global_state_alone(make_learner: Make) -> None:
    learner = make_learner("classification")
    before = [t.clone() for t in (*learner.adapter.a.values(), *learner.adapter.head.values())]
    learner.train(JOBS)
    after = [*learner.adapter.a.values(), *learner.adapter.head.values()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_clipping_bounds_the_step(make_learner: Make) -> None:
    local = LocalTraining(steps=1, batch=2, learning_rate=2.0, clip_norm=1e-3)
    for update in make_learner(local=local).train(JOBS):
        parts = (*update.delta_a.values(), *update.delta_b.values())
        norm = torch.stack([part.square().sum() for part in parts]).sum().sqrt()
        # The clip's denominator carries the usual 1e-6.
        assert float(norm) == pytest.approx(2.0 * 1e-3, rel=1e-4)


def test_transfers_are_rounded_to_the_wire_format(make_learner: Make) -> None:
    for update in make_learner(wire=torch.bfloat16).train(JOBS):
        for delta in update.delta_b.values():
            assert torch.equal(delta, delta.to(torch.bfloat16).double())


def test_no_job_no_update(make_learner: Make) -> None:
    assert make_learner().train([]) == []
