"""HierFedLoRA: means inside groups of like data, and over all groups every few rounds."""

from collections.abc import Callable
from itertools import product as subsets

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fslora.methods import Job
from fslora.methods.hierfed import HierFedLoRA, near_iid_groups
from fslora.server import named_tensors
from fslora.trainer import Learner

Make = Callable[..., Learner]
RANK = 6
JOBS = [Job(n, RANK, 7 + n) for n in range(4)]
WEIGHT = [0.5, 0.2, 0.4, 0.3]


def tensors(learner: Learner, device: int | None = None) -> dict[str, Tensor]:
    """What a device starts from, or the global model."""
    adapter = learner.adapter if device is None else learner.own_adapter(device)
    return {n: v.clone() for n, v in named_tensors(adapter).items() if not n.startswith("kept")}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [HierFedLoRA(1, 1), HierFedLoRA(3, 1)], ids=["one", "three"])
@pytest.mark.parametrize("kind", ["causal-lm", "classification"])
def test_averages_over_all_in_every_round_are_fedit(
    make_learner: Make, method: HierFedLoRA, kind: str
) -> None:
    learner, plain = (make_learner(kind, each) for each in (method, "fedit"))
    for round_index in (1, 2):
        for each in (learner, plain):
            each.aggregate(each.train(JOBS), WEIGHT, round_index)
        assert_close(tensors(learner), tensors(plain))
        assert_close(tensors(learner, 3), tensors(plain))


def test_groups_go_apart_and_come_together(make_learner: Make) -> None:
    """Two rounds in the groups, then the mean by their data, from which all start again."""
    learner = make_learner(method=HierFedLoRA(2, 3))
    group = learner.adapter.kept["group"].tolist()
    share = [sum(learner.samples[n] for n in range(5) if group[n] == g) / 60 for g in (0, 1)]
    start = tensors(learner)
    member = [group.index(0), group.index(1)]
    wanted = [dict(start), dict(start)]
    for round_index in (1, 2, 3):
        updates = learner.train(JOBS)
        for update, v in zip(updates, WEIGHT, strict=True):
            g = group[update.device]
            for part, delta in (("a", update.delta_a), ("b", update.delta_b)):
                for name, value in delta.items():
                    key = f"{part}.{name}"
                    wanted[g][key] = wanted[g][key] + v / share[g] * value
        learner.aggregate(updates, WEIGHT, round_index)
        if round_index < 3:
            assert_close(tensors(learner), start)
            for g in (0, 1):
                assert_close(tensors(learner, member[g]), wanted[g])
    mean = {name: share[0] * wanted[0][name] + share[1] * wanted[1][name] for name in start}
    for device in (None, *member):
        assert_close(tensors(learner, device), mean)


def test_one_group_does_not_see_the_other(make_learner: Make) -> None:
    learner = make_learner(method=HierFedLoRA(2, 10))
    group = learner.adapter.kept["group"].tolist()
    first, second = group.index(0), group.index(1)
    before = tensors(learner, second)
    learner.aggregate(learner.train([Job(first, RANK, 5)]), [0.4], 1)
    for name, value in tensors(learner, second).items():
        assert torch.equal(value, before[name])
    assert any((v != before[n]).any() for n, v in tensors(learner, first).items())


def test_a_global_average_that_nobody_came_for_is_made_up(make_learner: Make) -> None:
    """Round 2 is empty and so not merged; round 3 averages, and round 4 does in its own right."""
    learner = make_learner(method=HierFedLoRA(2, 2))
    averaged = []
    for round_index in (1, 3, 4, 5):
        before = tensors(learner)
        learner.aggregate(learner.train(JOBS), WEIGHT, round_index)
        averaged.append(any((v != before[n]).any() for n, v in tensors(learner).items()))
    assert averaged == [False, True, True, False]


def test_independent_sampling_is_unbiased(make_learner: Make) -> None:
    """The mean of the groups' models over all cohorts is what everybody's training gives."""
    share, q = np.array([0.3, 0.2, 0.1, 0.4]), np.array([0.4, 0.9, 0.5, 0.7])
    learner = make_learner(method=HierFedLoRA(2, 2))
    updates, start = learner.train(JOBS), learner.state()

    def merged(weight: dict[int, float], round_index: int) -> dict[str, Tensor]:
        learner.restore(start)
        learner.aggregate([updates[n] for n in weight], list(weight.values()), round_index)
        return learner.state()

    for round_index in (1, 2):
        mean: dict[str, Tensor] = {}
        for drawn in subsets([False, True], repeat=4):
            chance = float(np.prod(np.where(drawn, q, 1 - q)))
            found = merged({n: share[n] / q[n] for n in range(4) if drawn[n]}, round_index)
            if not any(drawn):
                # The average over all is made up later; nothing has moved.
                assert all(torch.equal(v, start[n]) for n, v in found.items())
            for name, value in found.items():
                mean[name] = mean.get(name, 0) + chance * value.double()
        everybody = merged(dict(enumerate(share.tolist())), round_index)
        for name, value in everybody.items():
            if not name.endswith("averaged"):
                torch.testing.assert_close(mean[name], value.double(), rtol=0, atol=1e-12)


@settings(deadline=None, derandomize=True)
@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_every_device_is_where_there_is_least_of_what_it_has(
    groups: int, classes: int, seed: int
) -> None:
    """Greedy: no other choice for the last device would have served better."""
    counts = np.random.default_rng(seed).integers(0, 20, (12, classes))
    group = near_iid_groups(counts, groups)
    assert ((group >= 0) & (group < groups)).all()
    assert np.array_equal(group, near_iid_groups(counts, groups))
    last = int(np.argsort(-counts.sum(axis=1), kind="stable")[-1])

    def spread(choice: int) -> float:
        chosen = group.copy()
        chosen[last] = choice
        total = np.array([counts[chosen == g].sum(axis=0) for g in range(groups)])
        return float(((total - counts.sum(axis=0) / groups) ** 2).sum())

    assert spread(group[last]) <= min(map(spread, range(groups))) + 1e-9


def test_devices_of_one_class_each_are_spread_over_the_groups() -> None:
    """Twelve devices, three classes: each of two groups gets two devices of every class."""
    counts = np.kron(np.eye(3, dtype=np.int64), np.full((4, 1), 7))
    group = near_iid_groups(counts, 2)
    for g in (0, 1):
        np.testing.assert_array_equal(counts[group == g].sum(axis=0), [14, 14, 14])
