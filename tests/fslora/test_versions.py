"""Kept versions of the global state, FedAsync's mixing, and a learner's whole state."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fslora.learner_state import StateError
from fslora.local import LocalTraining
from fslora.methods import Job, Update
from fslora.server import ServerOptimizer, ServerRule, named_tensors
from fslora.trainer import Learner

Make = Callable[..., Learner]
JOBS = [Job(0, 6, 1), Job(3, 2, 2), Job(1, 3, 3), Job(2, 1, 4)]
WEIGHT = [0.4, 1.5, 0.7, 0.2]


def values(learner: Learner) -> dict[str, Tensor]:
    """The global state, copied."""
    return {name: value.clone() for name, value in named_tensors(learner.adapter).items()}


def step(learner: Learner, round_index: int) -> None:
    """A synchronous round."""
    jobs = [Job(job.device, job.rank, 10 * round_index + job.key, round_index) for job in JOBS]
    learner.aggregate(learner.train(jobs), WEIGHT)


def assert_equal(left: Update, right: Update) -> None:
    """The same to the bit."""
    assert (left.device, left.loss) == (right.device, right.loss)
    for mine, theirs in (
        (left.delta_a, right.delta_a),
        (left.delta_b, right.delta_b),
        (left.delta_head, right.delta_head),
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
def test_training_from_a_version_is_training_where_it_was_kept(
    make_learner: Make, kind: str
) -> None:
    there, later = make_learner(kind), make_learner(kind)
    step(there, 1)
    step(later, 1)
    later.keep(1)
    step(later, 2)
    before = values(later)
    from_there = there.train(JOBS)
    for mine, theirs in zip(later.train(JOBS, [1] * 4), from_there, strict=True):
        assert_equal(mine, theirs)
    assert all(torch.equal(value, before[name]) for name, value in values(later).items())
    moved = [
        not torch.equal(now.delta_b[name], then.delta_b[name])
        for now, then in zip(later.train(JOBS), from_there, strict=True)
        for name in then.delta_b
    ]
    assert any(moved)


def test_jobs_of_several_versions_come_back_in_their_order(make_learner: Make) -> None:
    learner, stands = make_learner(), []
    for version in range(3):
        learner.keep(version)
        stands.append(make_learner())
        stands[-1].restore({n: x for n, x in learner.state().items() if n.startswith("adapter.")})
        step(learner, version + 1)
    mixed = learner.train(JOBS, [2, 0, 1, 0])
    assert [update.device for update in mixed] == [job.device for job in JOBS]
    # Stacks are those of a version: the jobs of version 0 trained together.
    assert_equal(mixed[0], stands[2].train(JOBS[:1])[0])
    assert_equal(mixed[2], stands[1].train(JOBS[2:3])[0])
    for mine, theirs in zip((mixed[1], mixed[3]), stands[0].train([JOBS[1], JOBS[3]]), strict=True):
        assert_equal(mine, theirs)


def test_all_from_one_version_is_a_synchronous_round(make_learner: Make) -> None:
    learner = make_learner()
    learner.keep(0)
    for mine, theirs in zip(learner.train(JOBS, [0] * 4), learner.train(JOBS), strict=True):
        assert_equal(mine, theirs)


def test_a_version_costs_one_copy_of_the_adapter(make_learner: Make) -> None:
    learner = make_learner("classification")
    learner.keep(3)
    numbers = sum(value.numel() for value in named_tensors(learner.versions[3]).values())
    assert numbers == learner.model.layout.numbers(learner.lora.rank)
    learner.release(3)
    assert learner.versions == {}


def test_versions_that_are_not_kept_are_refused(make_learner: Make) -> None:
    learner = make_learner()
    learner.keep(3)
    for call in (
        lambda: learner.keep(3),
        lambda: learner.keep(-1),
        lambda: learner.release(2),
        lambda: learner.mix(2, 0.5),
        lambda: learner.train(JOBS[:2], [3, 2]),
        lambda: learner.train(JOBS, [3]),
    ):
        with pytest.raises(ValueError, match=r"version|zip"):
            call()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6, 1.0])
def test_mixing_and_adding_is_fedasync(make_learner: Make, alpha: float) -> None:
    # (1 - alpha) x + alpha (x_tau + delta), the model that the device sends back; arXiv 1903.03934.
    learner = make_learner("classification", method="fedit")
    learner.keep(0)
    step_jobs = [Job(job.device, 6, job.key) for job in JOBS]
    learner.aggregate(learner.train(step_jobs), WEIGHT)
    then, now = values(learner), named_tensors(learner.versions[0])
    (update,) = learner.train([Job(4, 6, 77)], [0])
    learner.mix(0, alpha)
    learner.aggregate([update], [alpha])
    delta = {f"a.{name}": value for name, value in update.delta_a.items()}
    delta |= {f"b.{name}": value for name, value in update.delta_b.items()}
    delta |= {f"head.{name}": value for name, value in update.delta_head.items()}
    for name, value in values(learner).items():
        wanted = (1 - alpha) * then[name] + alpha * (now[name] + delta[name])
        torch.testing.assert_close(value, wanted, atol=1e-14, rtol=1e-13)


def test_mixing_with_the_present_state_moves_no_bit(make_learner: Make) -> None:
    learner = make_learner()
    step(learner, 1)
    learner.keep(1)
    before = values(learner)
    for share in (0.1, 0.3, 0.7):
        learner.mix(1, share)
    assert all(torch.equal(value, before[name]) for name, value in values(learner).items())


@pytest.mark.parametrize("rule", ["plain", "momentum", "adam"])
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ),
    ],
)
def test_restored_learner_goes_on_to_the_bit(
    make_learner: Make, rule: ServerRule, device: str
) -> None:
    options = {
        "server": ServerOptimizer(rule, 0.5, weight_decay=0.1),
        "local": LocalTraining(2, 2, 0.1, 0.5),
        "dropout": 0.2,
        "device": device,
    }
    through = make_learner("classification", **options)
    other = make_learner("classification", **options)
    step(through, 1)
    through.keep(1)
    step(through, 2)
    through.keep(2)
    state = through.state()
    # What the other one did before does not matter.
    step(other, 7)
    other.keep(5)
    other.restore(state)
    assert other.versions.keys() == {1, 2}
    for learner in (through, other):
        updates = learner.train(JOBS, [2, 1, 2, 1])
        learner.mix(1, 0.3)
        learner.aggregate(updates, WEIGHT)
        learner.release(1)
        step(learner, 3)
    mine, theirs = other.state(), through.state()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(state[name], theirs[name]) for name in theirs)
    assert other.evaluate() == through.evaluate()


def test_a_state_is_flat_and_in_memory_of_its_own(make_learner: Make) -> None:
    learner = make_learner("classification", server=ServerOptimizer("adam"))
    learner.keep(4)
    state = learner.state()
    names = named_tensors(learner.adapter)
    parts = ("adapter", "first", "second", "version.4")
    assert set(state) == {f"{part}.{name}" for part in parts for name in names}
    copied = {name: value.clone() for name, value in state.items()}
    step(learner, 1)
    assert all(torch.equal(state[name], copied[name]) for name in state)


def test_other_states_are_refused_and_change_nothing(make_learner: Make) -> None:
    learner = make_learner(server=ServerOptimizer("momentum"))
    learner.keep(4)
    step(learner, 1)
    state = learner.state()
    some = next(name for name in state if name.startswith("version.4.a."))
    wrong = {
        "is missing": [
            *({n: x for n, x in state.items() if n != left_out} for left_out in state),
            {},
        ],
        "is not part": [
            state | {"second.a": state[some]},
            state | {"version.x.a": state[some]},
            state | {"version.004.a": state[some]},
        ],
        "wanted": [
            state | {some: state[some][:-1]},
            state | {some: state[some].T},
            state | {some: state[some].float()},
        ],
    }
    for reason, states in wrong.items():
        for each in states:
            with pytest.raises(StateError, match=reason):
                learner.restore(each)
    with pytest.raises(StateError, match=r"first\..* is not part"):
        make_learner().restore(state)
    now = learner.state()
    assert all(torch.equal(now[name], state[name]) for name in state)
