"""What rounds teach: norms come to the truth, the pace to the one that was set."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer import Progress
from optimizer.online import Norms, estimate_norms, estimate_pace, full_rank_norm, rescaled
from optimizer.rounds import RankCost, SamplingTerm, SmoothnessScaled, Tables

MakeProblem = Callable[..., Any]


def observed(
    rounds: int, devices: int = 40, spread: float = 0.5, error: float = 0.2, take: float = 0.3
) -> tuple[np.ndarray, Norms]:
    """True norms, over their geometric mean, and what is made of updates that shrink by rounds."""
    rng = np.random.default_rng(7)
    own = rng.normal(0.0, spread, devices)
    own -= own.mean()
    who, when = np.nonzero(rng.uniform(size=(devices, rounds)) < take)
    level = -0.5 * np.log1p(when) + rng.normal(0.0, 0.1, rounds)[when]
    norm = np.exp(own[who] + level + rng.normal(0.0, error, len(who)))
    return np.exp(own), estimate_norms(who, when, norm, devices)


def test_norms_come_to_the_truth() -> None:
    """The error of the logarithm falls like one over the root of the observations."""
    worst = {}
    for rounds in (30, 300, 3000):
        truth, norms = observed(rounds)
        away = np.log(norms.norm / truth)
        # Only ratios count.
        worst[rounds] = np.sqrt(np.mean((away - away.mean()) ** 2))
    assert worst[30] < 0.12
    assert worst[300] < 0.04
    assert worst[3000] < 0.012


def test_intervals_hold_what_they_promise() -> None:
    truth, norms = observed(60, devices=400)
    middle = np.sqrt(norms.low * norms.high)
    factor = np.exp(np.mean(np.log(middle / truth)))
    inside = (norms.low <= truth * factor) & (truth * factor <= norms.high)
    assert 0.9 < inside.mean() < 0.99


def test_unseen_device_is_like_the_fleet_and_less_certain() -> None:
    norms = estimate_norms([0, 0, 1, 1], [1, 2, 1, 2], [2.0, 2.0, 0.5, 0.5], 3)
    assert norms.observations.tolist() == [2, 2, 0]
    width = norms.high / norms.low
    assert width[2] > width[0] == pytest.approx(width[1], rel=1e-12)
    assert np.sqrt(norms.low[2] * norms.high[2]) == pytest.approx(1.0, rel=1e-12)
    assert norms.norm[0] > norms.norm[2] > norms.norm[1]


def test_few_observations_are_drawn_to_the_mean() -> None:
    """One update of twice the norm is believed less than ten."""
    others = [1.0] * 20
    ratio = []
    for times in (1, 10):
        device = [0] * times + list(range(1, 21))
        norm = [2.0] * times + others
        when = [*range(times), *([0] * 20)]
        norms = estimate_norms(device, when, norm, 21)
        ratio.append(norms.norm[0] / norms.norm[1:].mean())
    assert 1.05 < ratio[0] < ratio[1] < 2.1


def test_noise_without_differences_is_not_taken_for_differences() -> None:
    _, norms = observed(200, spread=0.0, error=0.3)
    assert norms.norm.max() / norms.norm.min() < 1.15


def test_nothing_seen_means_equal_norms() -> None:
    norms = estimate_norms([], [], [], 5)
    assert np.ptp(norms.norm) == 0.0
    assert (norms.low < 1).all()
    assert (norms.high > 1).all()
    assert np.ptp(estimate_norms([0, 1], [1, 1], [0.0, 0.0], 5).norm) == 0.0


@given(st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_unit_of_the_norms_does_not_matter(unit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    who, when = rng.integers(0, 6, 30), rng.integers(0, 9, 30)
    norm = np.exp(rng.normal(size=30))
    one, other = (estimate_norms(who, when, scale * norm, 6) for scale in (1.0, unit))
    np.testing.assert_allclose(other.norm, one.norm, rtol=1e-6)


def test_sketches_are_brought_to_full_rank() -> None:
    """A sketch of a quarter of the ranks doubles the root mean square of an unbiased update."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(16, 30))
    norm = []
    for _ in range(4000):
        index = rng.choice(16, 4, replace=False)
        norm.append(np.linalg.norm(4.0 * rows[index]))
    found = full_rank_norm(np.array(norm), np.full(4000, 0.25))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.linalg.norm(rows), rel=0.01)


@pytest.mark.parametrize(
    ("device", "norm", "words"),
    [([3], [1.0], "device holds 3 to 3: give 0 to 2"), ([0], [-1.0], "norm is -1.0: give zero")],
)
def test_norms_refuse(device: list[int], norm: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        estimate_norms(device, [1], norm, 3)


def test_pace_comes_to_the_factor_that_was_set() -> None:
    """Losses that fall as a power of the rounds, twice as slowly as the model has it."""
    rng = np.random.default_rng(3)
    width = []
    for count in (4, 16, 64):
        done = np.linspace(0.05, 1.0, count)
        fallen = (done / 2.0) ** 0.6 * np.exp(rng.normal(0.0, 0.05, count))
        pace = estimate_pace(done, 3.0 - 1.5 * fallen, 3.0, 1.5)
        assert pace.low < 2.0 < pace.high
        width.append(pace.high / pace.low)
    assert width[0] > width[1] > width[2]
    assert pace.factor == pytest.approx(2.0, rel=0.1)


def test_pace_is_the_models_before_any_loss_and_stays_near_it_after_one() -> None:
    assert estimate_pace([], [], 3.0, 2.0).factor == pytest.approx(1.0, rel=1e-9)
    early = estimate_pace([0.01], [2.999], 3.0, 2.0)
    assert early.low < 1.0 < early.high


def test_losses_that_do_not_fall_tell_that_the_target_is_far() -> None:
    done = np.linspace(0.1, 1.0, 10)
    assert estimate_pace(done, np.full(10, 3.1), 3.0, 2.0).low > 1.5


@given(st.floats(1e-3, 1e3), st.floats(-10, 10))
def test_unit_and_zero_of_the_loss_do_not_matter(unit: float, zero: float) -> None:
    done, loss = np.array([0.1, 0.3, 0.5]), np.array([2.8, 2.6, 2.3])
    one = estimate_pace(done, loss, 3.0, 2.0)
    other = estimate_pace(done, unit * loss + zero, unit * 3.0 + zero, unit * 2.0 + zero)
    assert other.factor == pytest.approx(one.factor, rel=1e-4)


@pytest.mark.parametrize("target", [3.0, 4.0, np.nan])
def test_pace_refuses_a_target_behind_the_start(target: float) -> None:
    with pytest.raises(ValueError, match="give less than the loss at the start"):
        estimate_pace([0.1], [2.9], 3.0, target)


@pytest.mark.parametrize(
    "model",
    [
        Progress(14.0, 3.0, 0.8),
        SamplingTerm(14.0, 3.0),
        RankCost(14.0, 3.0, 2.0),
        SmoothnessScaled(14.0, 3.0),
    ],
)
@pytest.mark.parametrize("factor", [0.9, 1.0, 2.5])
def test_rescaled_model_gives_the_factor_at_its_plan(
    model: Any, factor: float, make_problem: MakeProblem
) -> None:
    problem = make_problem(6, 1, rounds=model)
    rank, q = np.minimum(problem.rank_cap, 3), np.full(6, 0.4)
    changed = rescaled(problem, rank, q, factor)
    assert isinstance(changed, type(model))
    assert changed.sampling == model.sampling
    ratio = rank / problem.rank
    rounds = changed.rounds(problem.weight, problem.variance, ratio, q)
    assert rounds == pytest.approx(factor * problem.rounds_of(rank, q), rel=1e-9)


def test_base_stays_positive_and_tables_stay_as_they_are(make_problem: MakeProblem) -> None:
    problem = make_problem(6, 1, rounds=Progress(14.0, 300.0, 0.8))
    rank, q = problem.rank_cap, np.full(6, 0.1)
    assert rescaled(problem, rank, q, 1e-3).base == pytest.approx(0.7, rel=1e-12)
    tables = Tables(10.0, np.ones((8, 6)), np.zeros((8, 6)))
    problem = make_problem(6, 1, rounds=tables)
    assert rescaled(problem, rank, q, 2.0) is tables
