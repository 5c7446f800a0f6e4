"""Mistakes that public code is known to make: each is put in here, and a test has to see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fslora import evaluate, sketch, stacked
from fslora.lengths import Lengths
from fslora.local import LocalTraining
from fslora.methods import METHODS, GlobalState, Job, Slice, Update
from fslora.products import Product
from fslora.tasks import Evaluation
from fslora.trainer import Learner
from tests.fslora import (
    test_celora,
    test_evaluate,
    test_hafl,
    test_heterogeneous,
    test_lengths,
    test_local,
    test_methods,
    test_sketch,
)

Make = Callable[..., Learner]


@dataclass(frozen=True)
class Mistake:
    """A mistake, and the fact that it breaks.

    Parameters
    ----------
    inject
        Puts the mistake into the program.
    fact
        A test that must fail then.
    """

    inject: Callable[[pytest.MonkeyPatch], None]
    fact: Callable[[Make], None]


def _sketch_never_applied(patch: pytest.MonkeyPatch) -> None:
    """Every device trains all ranks, whatever its own."""
    alone = Learner.train

    def train(self: Learner, jobs: Sequence[Job], versions: Any = None) -> list[Update]:
        return alone(self, [replace(job, rank=self.lora.rank) for job in jobs], versions)

    patch.setattr(Learner, "train", train)


def _factors_on_different_sets(patch: pytest.MonkeyPatch) -> None:
    """B is cut at the ranks that follow those of A."""

    def cut(a: Tensor, b: Tensor, index: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        other, _ = sketch.cut_stack(a, b, index, real)
        return other, sketch.cut_stack(a, b, (index + 1) % len(a), real)[1]

    patch.setattr(stacked, "cut_stack", cut)


def _square_root_of_the_gain(patch: pytest.MonkeyPatch) -> None:
    """alpha / sqrt(k) on devices against alpha / sqrt(r) on the server."""
    gain = Slice.rank_gain.fget  # type: ignore[attr-defined]
    patch.setattr(Slice, "rank_gain", property(lambda self: gain(self) ** 0.5))


def _only_the_last_is_stacked(patch: pytest.MonkeyPatch) -> None:
    """Each device's product takes the place of the one before."""
    whole = Product.sum.__func__  # type: ignore[attr-defined]

    def last(cls: type[Product], parts: Any) -> Product:
        return whole(cls, list(parts)[-1:])

    patch.setattr(Product, "sum", classmethod(last))


def _root_of_one_factor_only(patch: pytest.MonkeyPatch) -> None:
    """Singular values enter B by their square root, and A not at all."""
    best = Product.best

    def cut(self: Product, rank: int) -> Product:
        found = best(self, rank)
        length = found.b.norm(dim=0)
        return Product(found.b / torch.where(length > 0, length, 1.0).sqrt(), found.a)

    patch.setattr(Product, "best", cut)


def _factors_leak_to_the_next(patch: pytest.MonkeyPatch) -> None:
    """A device starts from where the one before it ended."""
    alone = Learner.train

    def train(self: Learner, jobs: Sequence[Job], versions: Any = None) -> list[Update]:
        found: list[Update] = []
        start = self.state()
        for job in jobs:
            (update,) = alone(self, [job], versions)
            for layer, name in enumerate(self.adapter.a):
                ranks = update.slice.indices[layer]
                self.adapter.a[name][ranks] += update.delta_a[name]
                self.adapter.b[name][:, ranks] += update.delta_b[name]
            found.append(update)
        self.restore(start)
        return found

    patch.setattr(Learner, "train", train)


def _only_the_first_counts(patch: pytest.MonkeyPatch) -> None:
    """Everybody is merged with the weight of the first."""
    aggregate = Learner.aggregate

    def merge(self: Learner, updates: Any, weight: Sequence[float], *rest: int) -> None:
        aggregate(self, updates, [weight[0]] * len(weight) if len(weight) else [], *rest)

    patch.setattr(Learner, "aggregate", merge)


def _mean_of_batch_means(patch: pytest.MonkeyPatch) -> None:
    """Batches of unlike numbers of tokens count alike."""
    causal = evaluate._causal

    def means(model: Any, examples: Any, batch: int) -> Evaluation:
        rows = np.argsort(-examples.length, kind="stable")
        parts = [rows[first : first + batch] for first in range(0, len(rows), batch)]
        names = ("tokens", "length", "prompt", "label", "predicted_bytes")
        each = [
            causal(
                model, replace(examples, **{n: getattr(examples, n)[part] for n in names}), batch
            )
            for part in parts
        ]
        return evaluate.mean_evaluation(each, [1.0] * len(each))

    patch.setattr(evaluate, "_causal", means)


def _padding_takes_time(patch: pytest.MonkeyPatch) -> None:
    """Every example is as long as the longest."""

    def padded(cls: type[Lengths], length: Any, shards: Any) -> Lengths:
        return cls.equal(np.array([len(shard) for shard in shards]), int(length.max()))

    patch.setattr(Lengths, "of", classmethod(padded))


def _padding_counts(patch: pytest.MonkeyPatch) -> None:
    """Examples are padded to a fixed length, and what they are padded with is learnt."""
    causal = evaluate._causal

    def fixed(model: Any, examples: Any, batch: int) -> Evaluation:
        full = np.full_like(examples.length, examples.tokens.shape[1])
        return causal(model, replace(examples, length=full), batch)

    patch.setattr(evaluate, "_causal", fixed)


def _frozen_ranks_count_in_hafl(patch: pytest.MonkeyPatch) -> None:
    """Ranks that a device has not trained count as zero change, averaged over everybody."""
    patch.setattr(type(METHODS["hafl"]), "merge", type(METHODS["fslora"]).merge)


def _zeros_count_in_replication(patch: pytest.MonkeyPatch) -> None:
    """Who lacks a rank counts as zero change, as in zero padding."""
    patch.setattr(type(METHODS["replication"]), "merge", type(METHODS["fslora"]).merge)


def _one_model_for_all(patch: pytest.MonkeyPatch) -> None:
    """Every device starts from all that the last one has, factors too."""

    def begin(_: Any, devices: Sequence[int], state: GlobalState) -> list[Any]:
        return [state.own[max(state.own)] if state.own else {} for _ in devices]

    patch.setattr(type(METHODS["ce-lora"]), "begin", begin)


MISTAKES = {
    "sketch never applied": Mistake(
        _sketch_never_applied,
        lambda make: test_methods.test_devices_train_as_many_ranks_as_they_are_given(
            make, "fslora"
        ),
    ),
    "factors on different sets": Mistake(
        _factors_on_different_sets,
        lambda make: test_sketch.test_sketched_step_equals_autograd_through_the_written_out_sketch(
            make, "scaled"
        ),
    ),
    "root of the gain": Mistake(
        _square_root_of_the_gain,
        lambda make: test_local.test_first_change_of_a_sketch_is_unbiased(
            make, LocalTraining(1, 4, 0.3), 2
        ),
    ),
    "only the last is stacked": Mistake(
        _only_the_last_is_stacked,
        lambda make: test_methods.test_products_add_up_exactly(make, "flora"),
    ),
    "root of one factor only": Mistake(
        _root_of_one_factor_only,
        test_methods.test_flexlora_at_full_rank_is_the_mean_of_the_products,
    ),
    "factors leak to the next": Mistake(
        _factors_leak_to_the_next,
        lambda make: test_methods.test_devices_do_not_know_of_each_other(make, "rolora"),
    ),
    "only the first counts": Mistake(
        _only_the_first_counts,
        lambda make: test_methods.test_independent_sampling_is_unbiased(make, "fedit"),
    ),
    "mean of batch means": Mistake(
        _mean_of_batch_means,
        lambda make: test_evaluate.test_batches_do_not_matter(make, "causal-lm", 7, True),
    ),
    "padding takes time": Mistake(
        _padding_takes_time, lambda _: test_lengths.test_whole_passes_do_not_depend_on_the_draw(4)
    ),
    "padding counts": Mistake(
        _padding_counts, lambda make: test_evaluate.test_padding_does_not_matter(make, "causal-lm")
    ),
    "frozen ranks count in hafl": Mistake(
        _frozen_ranks_count_in_hafl, test_hafl.test_each_rank_is_the_mean_of_its_owners
    ),
    "zeros count in replication": Mistake(
        _zeros_count_in_replication,
        test_heterogeneous.test_replication_counts_only_those_who_hold_a_rank,
    ),
    "one model for all": Mistake(
        _one_model_for_all,
        test_celora.test_what_a_device_has_only_changes_when_it_trains,
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_seen(make_learner: Make, name: str) -> None:
    mistake = MISTAKES[name]
    mistake.fact(make_learner)
    with pytest.MonkeyPatch.context() as patch:
        mistake.inject(patch)
        with pytest.raises(AssertionError):
            mistake.fact(make_learner)
