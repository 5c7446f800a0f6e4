"""Timing local steps: what is timed, how often, and how its operations are counted."""

from typing import Any

import numpy as np
import pytest
import torch

from fslora.calibrate import STEPS, Grid, Subject, count_step_flops, measure
from fslora.counting import count_costs
from fslora.local import LocalTraining
from fslora.methods import METHODS, Job
from fslora.models import BUILTIN, ModelError, shape_of
from fslora.trainer import Learner

GRID = Grid((1, 4), (1, 2), (8, 16))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of(BUILTIN, "causal-lm", ("all-linear",), torch.float32)


def test_points_of_a_grid() -> None:
    assert len(GRID) == 8
    assert list(GRID)[:3] == [(1, 1, 8), (1, 1, 16), (1, 2, 8)]
    assert len(set(GRID)) == 8


def test_operations_are_those_of_a_simulated_step(subject: Subject) -> None:
    """A scenario of just that length counts the same operations per example."""
    flops = dict(zip(GRID, count_step_flops(subject, GRID), strict=True))
    for (rank, batch, length), found in flops.items():
        (cost,) = count_costs(
            shape_of(BUILTIN, "causal-lm", 0, 0, torch.float32),
            subject.layout,
            METHODS["fslora"],
            rank,
            LocalTraining(1, 1, 0.1),
            length,
            "causal-lm",
            bits_per_number=32,
        )
        assert found == pytest.approx(batch * float(cost.example_flops(rank, length)))
    # Attention makes a token of a longer example cost more; a larger batch does not.
    assert flops[1, 2, 8] == pytest.approx(2 * flops[1, 1, 8])
    assert flops[1, 1, 16] > 2 * flops[1, 1, 8]


def test_every_point_is_timed_as_often_and_in_turn(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each visit of a point is one job to warm up and one on the clock, one device at a time."""
    train = Learner.train
    trained: list[tuple[int, int, int]] = []

    def watched(self: Learner, jobs: list[Job]) -> Any:
        (job,) = jobs
        data = self.batches(jobs)
        devices, steps, batch = data.length.shape
        assert (devices, steps) == (1, STEPS)
        (length,) = set(data.length.flatten().tolist())
        assert not (data.tokens[..., :length] == subject.pad_token).any()
        trained.append((job.rank, batch, length))
        return train(self, jobs)

    monkeypatch.setattr(Learner, "train", watched)
    told: list[float] = []
    found = measure(subject, GRID, 2, CPU, told.append)
    assert trained == 2 * [point for point in GRID for _ in range(2)]
    assert found.step_s.shape == (2, 8)
    assert (found.step_s > 0).all()
    np.testing.assert_array_equal(found.median_s, found.step_s.mean(axis=0))
    np.testing.assert_allclose(told, np.arange(1, 17) / 16)


def test_a_short_example_is_not_trained_at_the_width_of_a_long_one(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though one data set holds both, the model sees each at its own number of tokens."""
    embed = torch.nn.Embedding.forward
    widths: list[int] = []

    def watched(self: torch.nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
        widths.append(tokens.shape[-1])
        return embed(self, tokens)

    monkeypatch.setattr(torch.nn.Embedding, "forward", watched)
    measure(subject, Grid((1,), (4,), (16, 256)), 1, CPU)
    # What comes before the jobs, when the learner is made, is not timed.
    assert widths[-4 * STEPS :] == 2 * STEPS * [16] + 2 * STEPS * [256]


def test_classifiers_can_be_timed() -> None:
    subject = Subject.of(BUILTIN, "classification", ("q_proj", "v_proj"), torch.float32)
    found = measure(subject, Grid((2,), (1,), (8,)), 1, CPU)
    assert found.step_s.shape == (1, 1)
    assert found.step_s[0, 0] > 0


def test_unknown_subjects_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\./nowhere"):
        Subject.of("./nowhere", "causal-lm", ("all-linear",), torch.float32)
    with pytest.raises(ValueError, match="q_prj"):
        Subject.of(BUILTIN, "causal-lm", ("q_prj",), torch.float32)
