"""Sketches: unbiased, of known variance, and true submatrices."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.nn.functional import cross_entropy

from fslora.local import LocalTraining, SketchStep
from fslora.lora import Adapter
from fslora.methods import METHODS, Job, Slice
from fslora.methods.fslora import FSLoRA, Indices
from fslora.reference import train_alone
from fslora.sketch import (
    UNIFORM,
    cut_stack,
    draw_indices,
    draw_unequal,
    inclusion,
    pad_indices,
    rank_norms,
    rolling_indices,
    scatter_add,
    top_indices,
)
from fslora.stacked import Stack
from fslora.trainer import Learner

Make = Callable[..., Learner]


def sketch_matrix(index: np.ndarray, rank: int) -> torch.Tensor:
    """S = (r/k) sum_j e_j e_j^T, written out."""
    diagonal = torch.zeros(rank, dtype=torch.float64)
    diagonal[torch.from_numpy(index)] = rank / len(index)
    return torch.diag(diagonal)


def cut(a: torch.Tensor, b: torch.Tensor, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """One device's submatrices of one layer."""
    padded, real = pad_indices([index[None]], len(index))
    return cut_stack(a, b, padded[0], real)


def test_indices_are_distinct_ascending_and_uniform() -> None:
    rank, k, draws = 8, 3, 4000
    count = np.zeros(rank)
    for key in range(draws):
        index = draw_indices(key, 2, rank, k)
        assert index.shape == (2, k)
        assert (np.diff(index, axis=1) > 0).all()
        count += np.bincount(index.ravel(), minlength=rank)
    assert chisquare(count).pvalue > 1e-3


def test_layers_have_sets_of_their_own() -> None:
    index = draw_indices(7, 200, 16, 4)
    assert len({tuple(row) for row in index}) > 150


def test_smaller_sketch_is_part_of_the_larger() -> None:
    large, small = draw_indices(3, 5, 16, 9), draw_indices(3, 5, 16, 4)
    assert all(set(s) <= set(b) for s, b in zip(small, large, strict=True))


def test_full_sketch_is_everything() -> None:
    assert (draw_indices(3, 5, 16, 16) == np.arange(16)).all()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_variance_identity(k: int) -> None:
    # E||s B S A - s B A||_F^2 = s^2 (r-k)/(k(r-1)) [r sum_j |b_j|^2 |a_j|^2 - |BA|_F^2], summed
    # over all index sets, so exactly.
    from itertools import combinations

    rank, scale = 5, 0.7
    draws = torch.Generator().manual_seed(2)
    a = torch.randn(rank, 7, generator=draws, dtype=torch.float64)
    b = torch.randn(4, rank, generator=draws, dtype=torch.float64)
    sets = [np.array(chosen) for chosen in combinations(range(rank), k)]
    products = []
    for index in sets:
        cut_a, cut_b = cut(a, b, index)
        products.append(scale * rank / k * cut_b[0] @ cut_a[0])
    mean = torch.stack(products).mean(0)
    torch.testing.assert_close(mean, scale * b @ a)
    variance = torch.stack([(p - scale * b @ a).square().sum() for p in products]).mean()
    norms = (b.square().sum(0) * a.square().sum(1)).sum()
    factor = (rank - k) / (k * (rank - 1)) if rank > 1 else 0.0
    expected = scale**2 * factor * (rank * norms - (b @ a).square().sum())
    torch.testing.assert_close(variance, expected)


@pytest.mark.parametrize("rule", ["scaled", "common"])
def test_sketched_step_equals_autograd_through_the_written_out_sketch(
    make_learner: Make, rule: SketchStep
) -> None:
    job = Job(2, 2, 55)
    local = LocalTraining(steps=1, batch=2, learning_rate=0.5, sketch_step=rule)
    learner = make_learner(local=local)
    update = learner.train([job])[0]

    a = {n: t.clone().requires_grad_(True) for n, t in learner.adapter.a.items()}
    b = {n: t.clone().requires_grad_(True) for n, t in learner.adapter.b.items()}
    index = {n: update.slice.indices[layer] for layer, n in enumerate(a)}
    sketched = {n: b[n] @ sketch_matrix(index[n], 6) for n in a}
    stack = Stack(
        {n: t.unsqueeze(0) for n, t in a.items()},
        {n: t.unsqueeze(0) for n, t in sketched.items()},
        {},
        torch.full((1, len(a), 6), learner.lora.scale, dtype=torch.float64),
    )
    batches = learner.batches([job])
    tokens, length = batches.tokens[0, 0], batches.length[0, 0]
    with learner.model.using(stack):
        logits = learner.model.logits(tokens, length)
    cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name in a:
        rows = torch.from_numpy(index[name])
        grad_a, grad_b = a[name].grad, b[name].grad
        assert grad_a is not None
        assert grad_b is not None
        # A first step of SGD, as it arrives in the global state, is the same under both rules.
        moved_a = update.factor_gain * update.delta_a[name]
        moved_b = update.factor_gain * update.delta_b[name]
        torch.testing.assert_close(moved_a, -0.5 * grad_a[rows], atol=1e-10, rtol=0)
        torch.testing.assert_close(moved_b, -0.5 * grad_b[:, rows], atol=1e-10, rtol=0)
        outside = torch.ones(6, dtype=torch.bool)
        outside[rows] = False
        assert not grad_a[outside].any()
        assert not grad_b[:, outside].any()


def test_merge_moves_only_the_ranks_that_were_sent(make_learner: Make) -> None:
    learner = make_learner("classification")
    before_a = {n: t.clone() for n, t in learner.adapter.a.items()}
    before_b = {n: t.clone() for n, t in learner.adapter.b.items()}
    updates = learner.train([Job(0, 2, 8), Job(1, 1, 9)])
    learner.aggregate(updates, [0.7, 2.5])
    for layer, name in enumerate(before_a):
        sent = {int(j) for update in updates for j in update.slice.indices[layer]}
        for j in range(6):
            same_a = torch.equal(before_a[name][j], learner.adapter.a[name][j])
            same_b = torch.equal(before_b[name][:, j], learner.adapter.b[name][:, j])
            assert same_a == same_b == (j not in sent)


def test_merge_is_the_weighted_sum(make_learner: Make) -> None:
    # Factors of a sketch count r/k; heads, which no sketch scales, do not.
    learner = make_learner("classification")
    updates = learner.train([Job(0, 6, 8), Job(1, 3, 9)])
    a = {n: t.clone() for n, t in learner.adapter.a.items()}
    b = {n: t.clone() for n, t in learner.adapter.b.items()}
    head = {n: t.clone() for n, t in learner.adapter.head.items()}
    for update, v, gain in zip(updates, (0.7, 2.5), (1.0, 2.0), strict=True):
        for layer, name in enumerate(a):
            for place, j in enumerate(update.slice.indices[layer]):
                a[name][j] += v * gain * update.delta_a[name][place]
                b[name][:, j] += v * gain * update.delta_b[name][:, place]
        for name, value in head.items():
            value += v * update.delta_head[name]
    learner.aggregate(updates, [0.7, 2.5])
    for mine, theirs in ((learner.adapter.a, a), (learner.adapter.b, b)):
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, atol=1e-12, rtol=1e-12)
    for name, value in head.items():
        assert updates[0].delta_head[name].any()
        torch.testing.assert_close(learner.adapter.head[name], value, atol=1e-12, rtol=1e-12)


def test_scatter_add_is_the_adjoint_of_cutting() -> None:
    draws = torch.Generator().manual_seed(4)
    a = torch.randn(6, 5, generator=draws, dtype=torch.float64)
    b = torch.randn(3, 6, generator=draws, dtype=torch.float64)
    index = np.array([1, 4, 5])
    probe_a = torch.randn(3, 5, generator=draws, dtype=torch.float64)
    probe_b = torch.randn(3, 3, generator=draws, dtype=torch.float64)
    into_a, into_b = torch.zeros_like(a), torch.zeros_like(b)
    scatter_add(into_a, into_b, index, probe_a, probe_b, 1.0)
    cut_a, cut_b = cut(a, b, index)
    torch.testing.assert_close((cut_a[0] * probe_a).sum(), (a * into_a).sum())
    torch.testing.assert_close((cut_b[0] * probe_b).sum(), (b * into_b).sum())


def test_fedit_refuses_sketches() -> None:
    assert METHODS["fedit"].accepts(8, 8)
    assert not METHODS["fedit"].accepts(8, 7)
    assert METHODS["fslora"].accepts(8, 1)
    assert not METHODS["fslora"].accepts(8, 9)


def test_window_rolls_over_all_ranks() -> None:
    seen = [rolling_indices(t, 3, 5, 2) for t in range(1, 6)]
    assert [window[0].tolist() for window in seen] == [[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]
    assert all((window == window[0]).all() for window in seen)
    assert np.bincount(np.concatenate([window[0] for window in seen])).tolist() == [2] * 5


def test_top_takes_the_largest_and_of_equal_ones_the_first() -> None:
    norms = np.array([[0.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0], [4.0, 1.0, 2.0, 3.0]])
    assert top_indices(norms, 2).tolist() == [[1, 3], [0, 1], [0, 3]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(0, 1e3), min_size=2, max_size=9).flatmap(
        lambda norms: st.tuples(st.just(norms), st.integers(1, len(norms)))
    )
)
def test_chances_add_up_and_rise_with_the_norm(drawn: tuple[list[float], int]) -> None:
    norms, k = drawn
    chance = inclusion(np.array([norms]), k)[0]
    assert chance.sum() == pytest.approx(k, rel=1e-9)
    assert ((chance > 0) & (chance <= 1 + 1e-12)).all()
    order = np.argsort(norms, kind="stable")
    assert (np.diff(chance[order]) >= -1e-9).all()
    assert chance.min() >= UNIFORM * k / len(norms) * (1 - 1e-9)


def test_unequal_draws_have_their_chances_and_the_sketch_mean_one() -> None:
    norms = np.array([[1.0, 5.0, 0.0, 2.0, 9.0], [1.0] * 5])
    chance, count = inclusion(norms, 3), 4000
    hits, mean = np.zeros_like(chance), np.zeros_like(chance)
    for key in range(count):
        chosen = draw_unequal(key, chance)
        assert all(len(set(row)) == 3 for row in chosen.tolist())
        for layer, row in enumerate(chosen):
            hits[layer, row] += 1
            mean[layer, row] += 1 / chance[layer, row]
    spread = np.sqrt(chance * (1 - chance) / count)
    assert (np.abs(hits / count - chance) <= 5 * spread + 1e-12).all()
    assert (np.abs(mean / count - 1) <= 5 * spread / chance + 1e-12).all()


@pytest.mark.parametrize("indices", ["cyclic", "importance", "top"])
def test_stacks_train_other_index_rules_as_devices_do_alone(
    make_learner: Make, indices: Indices
) -> None:
    learner = make_learner(method=FSLoRA(indices))
    jobs = [Job(n, k, 40 + n, 2) for n, k in enumerate((2, 6, 4))]
    for job, update in zip(jobs, learner.train(jobs), strict=True):
        alone = train_alone(learner, job)
        assert (alone.slice.indices == update.slice.indices).all()
        for name, value in alone.delta_b.items():
            torch.testing.assert_close(update.delta_b[name], value, rtol=0, atol=1e-12)
            torch.testing.assert_close(
                update.delta_a[name], alone.delta_a[name], rtol=0, atol=1e-12
            )


def test_importance_moves_each_rank_as_the_full_adapter_does_on_average(
    make_learner: Make,
) -> None:
    """At B = 0 every sketch computes the same loss: its mean first step is the full one."""
    local = LocalTraining(1, 4, 0.3)
    learner = make_learner(method=FSLoRA("importance"), local=local)
    norms = rank_norms(learner.adapter)
    for value in learner.adapter.b.values():
        value.zero_()
    (full,) = learner.train([Job(0, 6, 77)])
    chance = inclusion(norms, 2)
    # What a device with rank j adds to it, times the chance that it has it, over chances.
    rows = {name: torch.zeros_like(value) for name, value in full.delta_b.items()}
    for first in range(0, 6, 2):
        chosen = np.tile([first, first + 1], (len(norms), 1))
        piece = Slice(chosen, 3.0, gains=1 / np.take_along_axis(chance, chosen, axis=1))
        fixed = dataclasses.replace(learner, method=_Fixed(piece=piece))
        (update,) = fixed.train([Job(0, 2, 77)])
        for layer, (name, delta) in enumerate(update.delta_b.items()):
            likely = torch.from_numpy(chance[layer][chosen[layer]])
            rows[name][:, chosen[layer]] += likely * update.factor_gain * delta
    for name, value in full.delta_b.items():
        torch.testing.assert_close(rows[name], value, rtol=0, atol=1e-12)


@dataclasses.dataclass(frozen=True)
class _Fixed(FSLoRA):
    """Gives everybody the same slice."""

    piece: Slice | None = None

    def slice(self, job: Job, adapter: Adapter, rank: int) -> Slice:  # noqa: ARG002
        assert self.piece is not None
        return self.piece
