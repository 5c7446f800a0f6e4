"""Sums over the air: the digital merge, but for noise as strong as the devices' powers allow."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fslora.analog import Air, held
from fslora.cost import AdapterCost
from fslora.lora import Adapter
from fslora.methods import METHODS, Job, Update
from fslora.server import ServerOptimizer, named_tensors
from fslora.trainer import Learner

Make = Callable[..., Learner]

RANK = 6
SUMS = [name for name, method in METHODS.items() if method.sums]
WEIGHT = [0.5, 0.3, 0.6]
INVERSE_SNR = (0.02, 0.5, 0.1)
every_sum = pytest.mark.parametrize("name", SUMS)


def jobs_of(name: str, ranks: Sequence[int] = (2, 3, 2), round_index: int = 1) -> list[Job]:
    accepted = [k if METHODS[name].accepts(RANK, k) else RANK for k in ranks]
    return [Job(n, k, 31 + n, round_index) for n, k in enumerate(accepted)]


def copied(adapter: Adapter) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in named_tensors(adapter).items()}


def sent_parts(learner: Learner, updates: Sequence[Update]) -> set[str]:
    parts = {"a", "b", "head"} if learner.adapter.head else {"a", "b"}
    return parts - {*learner.method.personal, updates[0].slice.frozen}


def test_no_method_that_needs_single_updates_is_a_sum() -> None:
    assert set(SUMS) == {"fslora", "fedit", "ffa-lora", "rolora", "fedsa-lora"}
    assert all(METHODS[name].additive and METHODS[name].index_bits(RANK) == 0 for name in SUMS)


@every_sum
@pytest.mark.parametrize("round_index", [1, 2])
def test_without_noise_it_is_the_digital_merge(
    make_learner: Make, name: str, round_index: int
) -> None:
    learner, digital = (make_learner("classification", name, RANK) for _ in range(2))
    jobs = jobs_of(name, round_index=round_index)
    updates = learner.train(jobs)
    learner.aggregate(updates, WEIGHT, round_index, Air((0.0,) * 3, 5))
    digital.aggregate(digital.train(jobs), WEIGHT, round_index)
    wanted = named_tensors(digital.adapter)
    for part, value in named_tensors(learner.adapter).items():
        torch.testing.assert_close(value, wanted[part], rtol=0, atol=1e-14)


@every_sum
def test_numbers_on_the_air_are_those_of_the_method(make_learner: Make, name: str) -> None:
    """What the method sends at full rank is what has noise."""
    for round_index in range(1, METHODS[name].phases + 1):
        learner = make_learner("classification", name, RANK)
        updates = learner.train(jobs_of(name, (RANK,) * 3, round_index))
        noise = Air(INVERSE_SNR, 5).noise(learner.adapter, learner.method, updates, WEIGHT)
        noisy = sum(
            int(value.count_nonzero())
            for part in (noise.delta_a, noise.delta_b, noise.delta_head)
            for value in part.values()
        )
        assert noisy == learner.method.numbers_up(learner.model.layout, RANK, round_index - 1)


@every_sum
def test_mean_power_is_within_the_limit_and_at_it_for_one_device(
    make_learner: Make, name: str
) -> None:
    """With eta from the noise, sigma^2 = 2 eta nu, and P_n in units of sigma^2 / beta_n."""
    learner = make_learner("classification", name, RANK)
    updates = learner.train(jobs_of(name))
    air = Air(INVERSE_SNR, 5)
    deviation = air.deviation(learner.adapter, learner.method, updates, WEIGHT)
    assert deviation.keys() == sent_parts(learner, updates)
    for part, nu in deviation.items():
        eta = 1 / (2 * nu**2)
        shares = []
        for update, v, inverse in zip(updates, WEIGHT, INVERSE_SNR, strict=True):
            delta = getattr(update, f"delta_{part}").values()
            gain = v * (1.0 if part == "head" else update.factor_gain)
            energy = sum(float((gain * each).norm() ** 2) for each in delta)
            symbols = sum(each.numel() for each in getattr(learner.adapter, part).values()) / 2
            shares.append(eta * inverse * energy / symbols)
        assert max(shares) == pytest.approx(1.0)


def test_noise_has_the_variance_told_and_no_mean(make_learner: Make) -> None:
    learner = make_learner("classification", "fedit", RANK)
    updates = learner.train(jobs_of("fedit"))
    told = Air(INVERSE_SNR, 0).deviation(learner.adapter, learner.method, updates, WEIGHT)
    count = 200
    drawn = [
        Air(INVERSE_SNR, key).noise(learner.adapter, learner.method, updates, WEIGHT)
        for key in range(count)
    ]
    for part, deviation in told.items():
        values = torch.stack(
            [torch.cat([x.flatten() for x in getattr(d, f"delta_{part}").values()]) for d in drawn]
        )
        numbers = values.numel()
        assert abs(values.mean().item()) < 5 * deviation / numbers**0.5
        assert values.square().mean().item() == pytest.approx(
            deviation**2, rel=5 * (2 / numbers) ** 0.5
        )


def test_mean_over_fading_and_noise_is_that_of_everybody(make_learner: Make) -> None:
    """Silent devices are made up for by weights over the probability of sending."""
    learner = make_learner(method="fslora", rank=RANK)
    updates = learner.train(jobs_of("fslora"))
    began = copied(learner.adapter)
    wanted = make_learner(method="fslora", rank=RANK)
    wanted.aggregate(wanted.train(jobs_of("fslora")), WEIGHT)
    target = torch.cat([v.flatten() for v in named_tensors(wanted.adapter).values()])
    sends, total, square, count = 0.8, 0.0, 0.0, 600
    rng = np.random.default_rng(2)
    for key in range(count):
        on = np.flatnonzero(rng.random(3) < sends)
        air = Air([INVERSE_SNR[n] / 100 for n in on], key)
        learner.aggregate([updates[n] for n in on], [WEIGHT[n] / sends for n in on], 1, air)
        values = named_tensors(learner.adapter)
        flat = torch.cat([v.flatten() for v in values.values()])
        total, square = total + flat, square + flat**2
        for part, value in values.items():
            value.copy_(began[part])
    mean = total / count
    error = ((square / count - mean**2).clamp_min(1e-24) / count).sqrt()
    assert ((mean - target).abs() < 6 * error + 1e-12).all()


@pytest.mark.parametrize("server", ["plain", "adam"])
def test_ranks_that_nobody_holds_keep_their_bits(make_learner: Make, server: str) -> None:
    learner = make_learner(method="fslora", rank=RANK, server=ServerOptimizer(rule=server))  # type: ignore[arg-type]
    jobs = jobs_of("fslora", (1, 2, 1))
    began = copied(learner.adapter)
    updates = learner.train(jobs)
    learner.aggregate(updates, WEIGHT, 1, Air(INVERSE_SNR, 5))
    kept = 0
    for layer, name in enumerate(learner.adapter.a):
        somebody = {int(k) for update in updates for k in update.slice.indices[layer]}
        for rank in range(RANK):
            same_a = torch.equal(learner.adapter.a[name][rank], began[f"a.{name}"][rank])
            same_b = torch.equal(learner.adapter.b[name][:, rank], began[f"b.{name}"][:, rank])
            assert same_a == same_b == (rank not in somebody)
            kept += same_a
    assert kept > 0


def test_held_ranks_are_told_once(make_learner: Make) -> None:
    learner = make_learner(method="fslora", rank=RANK)
    updates = learner.train(jobs_of("fslora", (1, 3, 2)))
    indices, real = held(updates, RANK)
    for layer, (ranks, once) in enumerate(zip(indices, real, strict=True)):
        somebody = {int(k) for update in updates for k in update.slice.indices[layer]}
        assert sorted(ranks[once].tolist()) == sorted(somebody)
        assert set(ranks.tolist()) == somebody


def test_noise_falls_with_the_changes_and_is_none_without_any(make_learner: Make) -> None:
    learner = make_learner(method="fedit", rank=RANK)
    updates = learner.train(jobs_of("fedit"))
    small = [
        replace(
            update,
            delta_a={name: 0.1 * value for name, value in update.delta_a.items()},
            delta_b={name: 0.0 * value for name, value in update.delta_b.items()},
        )
        for update in updates
    ]
    air = Air(INVERSE_SNR, 5)
    large, less = (
        air.deviation(learner.adapter, learner.method, each, WEIGHT) for each in (updates, small)
    )
    assert less["a"] == pytest.approx(0.1 * large["a"])
    assert less["b"] == 0.0


def test_nobody_on_the_air_changes_nothing(make_learner: Make) -> None:
    learner = make_learner(method="fedit", rank=RANK)
    began = copied(learner.adapter)
    learner.aggregate([], [], 1, Air((), 5))
    assert all(torch.equal(v, began[n]) for n, v in named_tensors(learner.adapter).items())


@pytest.mark.parametrize(("fixed", "symbols"), [(0, 24), (1, 25), (2, 25)])
def test_two_numbers_make_a_symbol(fixed: int, symbols: int) -> None:
    """The last symbol may carry one."""
    memory = (0, 0, 0)
    cost = AdapterCost(16.0 * fixed, 16.0 * 8, 0.0, 0.0, (0.0,), (0.0,), *memory)
    sent = cost.sending_all(RANK, 16)
    assert sent.upload_bits([1, 3, RANK]).tolist() == [32.0 * symbols] * 3
