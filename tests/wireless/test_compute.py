"""Time of local training, and its fit to measured steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireless.compute import compute_time_s, fit_compute

#: Operations of one step over three decades.
FLOPS = np.geomspace(1e8, 1e11, 27)


def squared_error(flops, step_s, speed, overhead_s):
    """What the fit minimises."""
    return float(np.sum((compute_time_s(flops, 1, speed, overhead_s) / step_s - 1) ** 2))


def test_time_is_overhead_per_step_and_arithmetic():
    # 5 steps of 0.2 s and 6 GFLOP at 3 GFLOP/s; one step and no arithmetic; no overhead.
    time_s = compute_time_s([6e9, 0, 6e9], [5, 1, 7], 3e9, [0.2, 0.2, 0])
    np.testing.assert_allclose(time_s, [3.0, 0.2, 2.0], rtol=1e-15)


def test_splitting_a_job_into_jobs_changes_nothing():
    whole = compute_time_s(9e9, 6, 2e9, 0.3)
    np.testing.assert_allclose(whole, 3 * compute_time_s(3e9, 2, 2e9, 0.3))


@given(
    speed=st.floats(1e6, 1e15),
    overhead_share=st.floats(0, 0.999),
)
def test_fit_recovers_the_model_from_its_own_times(speed, overhead_share):
    overhead_s = overhead_share * FLOPS.mean() / speed
    fit = fit_compute(FLOPS, compute_time_s(FLOPS, 1, speed, overhead_s))
    assert fit.flops == pytest.approx(speed, rel=1e-9)
    assert fit.step_overhead_s == pytest.approx(overhead_s, rel=1e-9, abs=1e-12 * FLOPS[0] / speed)
    assert fit.worst_error < 1e-9


def test_fit_under_noise_errs_as_least_squares_theory_says():
    """Multiplicative noise of 5 %: the error is that of the linearised problem, without bias."""
    speed, overhead_s, sigma = 5e9, 0.8, 0.05
    exact = compute_time_s(FLOPS, 1, speed, overhead_s)
    rng = np.random.default_rng(4)
    fits = [fit_compute(FLOPS, exact * rng.lognormal(0, sigma, len(FLOPS))) for _ in range(400)]
    # Sensitivity of the relative residuals to relative changes of overhead and of 1 / speed.
    share = np.stack([overhead_s / exact, FLOPS / speed / exact], axis=1)
    theory = sigma * np.sqrt(np.diag(np.linalg.inv(share.T @ share)))
    error = np.array([[f.step_overhead_s / overhead_s - 1, speed / f.flops - 1] for f in fits])
    np.testing.assert_allclose(error.std(axis=0), theory, rtol=0.15)
    assert (np.abs(error.mean(axis=0)) < 0.01).all()
    # Two of 27 degrees of freedom go into the parameters.
    rms = np.sqrt(np.mean([fit.rms_error**2 for fit in fits]))
    assert rms == pytest.approx(sigma * np.sqrt(25 / 27), rel=0.05)


@given(
    noise=st.lists(st.floats(0.5, 2.0), min_size=27, max_size=27),
    step=st.sampled_from([(1.001, 1.0), (0.999, 1.0), (1.0, 1.001), (1.0, 0.999)]),
)
def test_no_neighbour_fits_better(noise, step):
    times = compute_time_s(FLOPS, 1, 5e9, 0.8) * np.array(noise)
    fit = fit_compute(FLOPS, times)
    best = squared_error(FLOPS, times, fit.flops, fit.step_overhead_s)
    near = squared_error(FLOPS, times, fit.flops * step[0], fit.step_overhead_s * step[1])
    assert best <= near * (1 + 1e-12)


def test_overhead_is_never_negative():
    """Times that grow faster than the operations: all of them is arithmetic, at its best speed."""
    times = 1e-9 * FLOPS**1.1
    fit = fit_compute(FLOPS, times)
    ratio = FLOPS / times
    assert fit.step_overhead_s == 0
    assert fit.flops == pytest.approx(np.sum(ratio**2) / np.sum(ratio))


def test_errors_are_those_of_the_fitted_times():
    times = compute_time_s(FLOPS, 1, 5e9, 0.8) * np.resize([1.1, 0.9], len(FLOPS))
    fit = fit_compute(FLOPS, times)
    predicted = fit.step_overhead_s + FLOPS / fit.flops
    np.testing.assert_allclose(fit.fitted_s, predicted)
    np.testing.assert_allclose(fit.relative_error, (predicted - times) / times)
    assert fit.rms_error == pytest.approx(np.sqrt(np.mean(((predicted - times) / times) ** 2)))
    assert fit.worst_error == pytest.approx(max(abs(predicted - times) / times))


def test_scaling_all_times_scales_the_fit():
    times = compute_time_s(FLOPS, 1, 5e9, 0.8) * np.resize([1.1, 0.9], len(FLOPS))
    fit, slow = fit_compute(FLOPS, times), fit_compute(FLOPS, 3 * times)
    assert slow.flops == pytest.approx(fit.flops / 3)
    assert slow.step_overhead_s == pytest.approx(3 * fit.step_overhead_s)
    np.testing.assert_allclose(slow.relative_error, fit.relative_error, atol=1e-12)


@pytest.mark.parametrize(
    ("flops", "step_s", "message"),
    [
        ([1e9, 2e9], [1.0], "equal length"),
        ([1e9], [1.0], "two steps"),
        ([1e9, 1e9], [1.0, 2.0], "two steps"),
        ([1e9, 2e9], [1.0, 0.0], "step_s must be positive"),
        ([1e9, np.nan], [1.0, 2.0], "flops must be positive"),
        ([1e9, 2e9, 3e9], [3.0, 2.0, 1.0], "do not grow"),
    ],
)
def test_what_tells_no_speed_is_refused(flops, step_s, message):
    with pytest.raises(ValueError, match=message):
        fit_compute(flops, step_s)
