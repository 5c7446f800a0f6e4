"""Stacked training is exactly one device at a time."""

from collections.abc import Callable

import pytest
import torch

from fslora.dropout import Dropout, dropout_keys
from fslora.local import LocalTraining, Schedule
from fslora.methods import Job, Update
from fslora.reference import train_alone
from fslora.replay import Replay, StepBatch
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


# Adam magnifies rounding where a gradient is below its epsilon; a large one keeps that out of the
# comparison.
RULES = {
    "adamw": LocalTraining(3, 2, 0.05, optimizer="adamw", epsilon=1e-4, weight_decay=0.1),
    "adamw, clipped": LocalTraining(3, 2, 0.05, clip_norm=0.1, optimizer="adamw", epsilon=1e-4),
    "proximal": LocalTraining(4, 2, 0.3, 0.5, 1.0, proximal=0.7),
    "common step": LocalTraining(3, 2, 0.1, 0.5, sketch_step="common"),
    "warm-up": LocalTraining(2, 2, 0.3, schedule=Schedule("cosine", 2, 10)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["causal-lm", "bert"])
def test_every_rule_equals_one_at_a_time(make_learner: Make, kind: str, rule: str) -> None:
    local = RULES[rule]
    learner = make_learner(kind, local=local, padded=True)
    jobs = [Job(0, 6, 100, 1), Job(3, 2, 101, 2), Job(1, 1, 102, 3), Job(4, 4, 103, 9)]
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        assert_same(update, train_alone(learner, job), 1e-9)
        assert any(delta.any() for delta in update.delta_b.values())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
def test_devices_with_unlike_data_train_as_alone(
    make_learner: Make, kind: str, momentum: float
) -> None:
    # From 1 example, one step of one, to 23 examples, twelve steps of four.
    local = LocalTraining(1, 4, 0.1, momentum, epochs=2)
    learner = make_learner(kind, local=local, padded=True, sizes=(3, 23, 1, 12, 9))
    jobs = [Job(device, rank, 7 + device) for device, rank in enumerate((6, 2, 1, 3, 6))]
    assert learner.local.steps_of([len(shard) for shard in learner.shards]).tolist() == [
        2, 12, 2, 6, 5
    ]  # fmt: skip
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        assert_same(update, train_alone(learner, job), 1e-9)


@pytest.mark.parametrize("kind", ["causal-lm", "bert"])
def test_dropout_is_a_device_own(make_learner: Make, kind: str) -> None:
    learner = make_learner(kind, padded=True, dropout=0.4)
    plain = make_learner(kind, padded=True)
    together = learner.train(JOBS)
    for job, update in zip(JOBS, together, strict=True):
        alone = train_alone(learner, job)
        assert_same(update, alone, 1e-9)
        assert_same(update, learner.train([job])[0], 1e-9)
        without = train_alone(plain, job)
        assert any(not torch.equal(update.delta_b[n], without.delta_b[n]) for n in update.delta_b)


def test_dropout_keeps_its_share_and_its_mean() -> None:
    mask = Dropout(0.3, dropout_keys([1, 2], 1)[:, 0]).mask(4, 8, 16, 400)
    assert mask.shape == (2, 8, 16, 400)
    share = (mask == 0).double().mean().item()
    # Five standard deviations of the mean of 102,400 Bernoulli draws.
    assert share == pytest.approx(0.3, abs=5 * (0.21 / mask.numel()) ** 0.5)
    assert mask[mask > 0].unique().tolist() == [pytest.approx(1 / 0.7)]
    kept = (mask > 0).double()
    for axis in range(4):
        # Neighbours along any axis are unrelated.
        left, right = (
            kept.narrow(axis, 1, kept.shape[axis] - 1),
            kept.narrow(axis, 0, kept.shape[axis] - 1),
        )
        together = (left * right).mean().item()
        assert together == pytest.approx(0.49, abs=5 * (0.25 / left.numel()) ** 0.5)


def test_dropout_does_not_see_padding() -> None:
    key = dropout_keys([5], 1)[:, 0]
    small, large = Dropout(0.5, key).mask(0, 2, 3, 8), Dropout(0.5, key).mask(0, 4, 9, 8)
    assert torch.equal(small, large[:, :2, :3])


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


@pytest.mark.parametrize("kind", ["causal-lm", "bert"])
@pytest.mark.parametrize("rule", [*RULES, "epochs"])
def test_replayed_steps_read_nothing_but_their_batch(
    make_learner: Make, kind: str, rule: str
) -> None:
    # A recording that is the step itself, on the memory it was recorded with: a value that had
    # come from anywhere else would be the one of the first step.
    local = RULES.get(rule, LocalTraining(1, 2, 0.1, 0.5, epochs=2))
    options = {"local": local, "padded": True, "dropout": 0.2, "sizes": (4, 9, 2, 12, 6)}
    plain, replayed = make_learner(kind, **options), make_learner(kind, **options)
    plays = 0

    def record(step: Callable[[], None]) -> Callable[[], None]:
        def play() -> None:
            nonlocal plays
            plays += 1
            step()

        return play

    replayed.stacks.replay = Replay(lambda: record)
    for round_index, size in enumerate((5, 3, 5, 3, 5), start=1):
        ranks = (5, 1, 2, 3, 4)[:size]
        jobs = [Job(d, k, 10 * round_index + d, round_index) for d, k in enumerate(ranks)]
        for mine, theirs in zip(replayed.train(jobs), plain.train(jobs), strict=True):
            assert_same(mine, theirs, 1e-9)
    assert plays > 3


def test_a_step_that_cannot_be_recorded_runs_as_it_is(make_learner: Make) -> None:
    def refuse(_: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, refusing = make_learner(), make_learner()
    refusing.stacks.replay = Replay(lambda: refuse)
    with pytest.warns(UserWarning, match="cannot be captured"):
        updates = refusing.train(JOBS)
    for mine, theirs in zip(updates, plain.train(JOBS), strict=True):
        assert_same(mine, theirs, 1e-12)
    assert len(refusing.stacks.replay) == 0


def test_recordings_not_played_for_longest_give_way() -> None:
    recorded: list[int] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        recorded.append(1)
        return step

    replay = Replay(lambda: record)
    batch = StepBatch(*(torch.zeros(1) for _ in range(5)))
    steps: list[int] = []

    def run(shape: int) -> None:
        replay.run((shape,), batch, lambda _: steps.append(shape))

    for shape in range(32):
        for _ in range(3):
            run(shape)
    assert (len(replay), len(recorded), len(steps)) == (32, 32, 96)
    run(0)  # played again, so shape 1 is the one that was not played for longest
    for _ in range(2):
        run(99)
    assert (len(replay), len(recorded)) == (32, 33)
    run(0)
    assert len(recorded) == 33
    run(1)  # as it is: dropped, and new again
    assert len(recorded) == 33
    run(1)
    assert len(recorded) == 34
    replay.forget()
    assert len(replay) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base_trains_nearly_as_the_full_one(
    make_learner: Make, dtype: torch.dtype
) -> None:
    # Rounding at 2**-8 and 2**-11 through two blocks and two steps; a decoder whose loss is flat,
    # as that of random weights, shows rounding more than anything else.
    tolerance = 0.05 if dtype == torch.bfloat16 else 0.01
    local = LocalTraining(2, 2, 0.1)
    half, full = make_learner("bert", local=local, base=dtype), make_learner("bert", local=local)
    for mine, theirs in zip(half.train(JOBS), full.train(JOBS), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=tolerance / 4)
        # Of the whole change: the gradient of a layer may be lost in rounding.
        ours, right = (torch.cat([d.flatten() for d in u.delta_b.values()]) for u in (mine, theirs))
        assert float((ours - right).norm()) < tolerance * float(right.norm())
