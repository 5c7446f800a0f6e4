"""What a problem accepts, and what its arrays mean."""

import csv
from pathlib import Path

import numpy as np
import pytest

from optimizer import Progress
from wireless.link import LinearLink


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weight", [0.5, 0.5, 0.5]),
        ("weight", [1.5, -0.5, 0.0]),
        ("weight", [[1.0]]),
        ("gradient_norm", [0.0, 0.0, 0.0]),
        ("gradient_norm", [1.0, 1.0]),
        ("compute_base_s", [1.0, np.nan, 1.0]),
        ("compute_per_rank_s", [1.0, -1.0, 1.0]),
        ("fixed_bits", -1.0),
        ("bits_per_rank", np.inf),
        ("link", LinearLink(np.ones(2))),
        ("bandwidth_hz", 0.0),
        ("overhead_s", 0.0),
        ("rank", 0),
        ("rank_cap", [1, 2, 9]),
        ("rank_cap", [0, 2, 8]),
        ("rank_cap", [1.5, 2, 8]),
        ("min_probability", 0.0),
        ("min_probability", 1.5),
        ("min_cohort", 4.0),
        ("min_cohort", -1.0),
        ("max_noise", 0.0),
        ("max_noise", np.nan),
    ],
)
def test_bad_field_is_named(make_problem, field, value):
    with pytest.raises(ValueError, match=f"^{field} "):
        make_problem(3, 0, **{field: value})


def test_an_upload_without_bits_is_refused(make_problem):
    with pytest.raises(ValueError, match="bits_per_rank"):
        make_problem(3, 0, fixed_bits=0.0, bits_per_rank=0.0)
    with pytest.raises(ValueError, match="bits_per_rank"):
        make_problem(3, 0, fixed_bits=[1.0, 0.0, 1.0], bits_per_rank=0.0)


@pytest.mark.parametrize("field", ["base", "sampling", "rank_exponent"])
def test_round_model_names_bad_constants(field):
    with pytest.raises(ValueError, match=f"^{field} "):
        Progress(**{field: -1.0})


def test_noise_is_the_variance_of_a_sketched_and_sampled_mean(make_problem):
    """Of ``sum_n v_n g_n``: E|.|^2 over its mean square, by drawing cohorts and sketches."""
    p = make_problem(3, 2, completion=np.array([1.0, 0.5, 0.8]), rank_cap=[8, 8, 8])
    rank, q = np.array([2, 4, 8]), np.array([0.3, 0.6, 0.9])
    rng, draws = np.random.default_rng(0), 200_000
    there = rng.uniform(size=(draws, 3)) < q * p.completion
    # Gradients at right angles, each of one number per rank; a sketch keeps some ranks, times r/k.
    second = np.zeros(draws)
    for n in range(3):
        kept = rng.random((draws, 8)).argsort(axis=1) < rank[n]
        step = p.weight[n] / (q[n] * p.completion[n]) * p.gradient_norm[n] / np.sqrt(8)
        second += there[:, n] * ((kept * 8 / rank[n] * step) ** 2).sum(axis=1)
    mean_square = np.dot(p.weight, p.gradient_norm**2)
    error = second.std() / np.sqrt(draws) / mean_square
    assert abs(second.mean() / mean_square - p.noise(rank, q)) < 4 * error


def test_time_and_bits_are_affine_in_the_rank(make_problem):
    p = make_problem(4, 0)
    ranks = np.array([[1, 1, 1, 1], [2, 3, 4, 5]])
    np.testing.assert_allclose(p.compute_s(ranks), p.compute_base_s + ranks * p.compute_per_rank_s)
    np.testing.assert_allclose(p.upload_bits(ranks), 1e4 + ranks * p.bits_per_rank)


def test_each_device_has_bits_of_its_own(make_problem):
    """Told apart where ranks of some devices are given, in whatever order."""
    p = make_problem(
        4,
        0,
        fixed_bits=[0.0, 1e5, 2e6, 3e7],
        download_bps=np.full(4, 1e6),
        fixed_down_bits=[4e6, 0.0, 2e6, 1e6],
    )
    rank, order = np.array([1, 2, 3, 4]), np.array([3, 0, 2])
    slope = rank * p.bits_per_rank
    np.testing.assert_allclose(p.upload_bits(rank), np.add([0.0, 1e5, 2e6, 3e7], slope))
    np.testing.assert_allclose(p.upload_bits(rank[order], order), p.upload_bits(rank)[order])
    np.testing.assert_allclose(p.download_s(rank), [4.0, 0.0, 2.0, 1.0])


def test_the_unit_of_the_gradients_does_not_matter(make_problem):
    p = make_problem(5, 1)
    scaled = make_problem(5, 1, gradient_norm=7.0 * p.gradient_norm)
    np.testing.assert_allclose(scaled.variance, p.variance)
    even = make_problem(5, 1, weight=np.full(5, 0.2), gradient_norm=np.full(5, 3.0))
    np.testing.assert_allclose(even.variance, 1 / 25)


def test_default_round_model_against_the_measured_pilots():
    """Twenty plans on three seeds, each seed with a factor of its own."""
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "2026-11-20-round-model.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["use"] != "edge"]
    # One device that has the mean rank, and as much noise as all of them.
    ratio = np.array([[float(row["mean_rank"]) / 16] for row in rows])
    noise = np.array([[float(row["noise"])] for row in rows])
    predicted = np.array(
        [Progress().rounds([1.0], n * x, x, [1.0]) for n, x in zip(noise, ratio, strict=True)]
    )
    error = np.log(predicted / [float(row["rounds"]) for row in rows])
    seeds = np.array([row["seed"] for row in rows])
    for seed in np.unique(seeds):
        error[seeds == seed] -= error[seeds == seed].mean()
    plans = np.array([row["plan"] for row in rows])
    of_plan = [abs(np.expm1(error[plans == plan].mean())) for plan in np.unique(plans)]
    assert len(of_plan) == 20
    assert np.median(of_plan) <= 0.15
    assert max(of_plan) <= 0.3


def test_full_participation_at_full_rank_takes_base_and_noise():
    rounds = Progress(base=10, sampling=4).rounds([0.5, 0.5], [0.25, 0.25], [1, 1], [1, 1])
    assert rounds == pytest.approx(12.0)
