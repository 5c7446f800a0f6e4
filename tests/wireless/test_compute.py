"""Time of local training, and its fit to measured steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import kstest

from wireless.compute import (
    compute_jitter,
    compute_time_s,
    fit_compute,
    speed_from_tokens,
    throttled_time_s,
)

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


def test_jitter_is_log_normal_with_mean_one():
    """Kolmogorov-Smirnov at the 0.1 % level; the mean within four standard errors."""
    sigma, count = 0.78, 200_000
    factor = compute_jitter(3, np.arange(count), 5, sigma)
    assert kstest(np.log(factor), "norm", (-(sigma**2) / 2, sigma)).pvalue > 1e-3
    error = np.sqrt(np.expm1(sigma**2) / count)
    assert abs(factor.mean() - 1) < 4 * error


def test_dispatches_of_one_device_are_independent():
    """Correlation of 100,000 pairs within four standard errors of zero."""
    logs = np.log(compute_jitter(3, np.arange(100_000)[:, None], [0, 1], 0.5))
    assert abs(np.corrcoef(logs.T)[0, 1]) < 4 / np.sqrt(100_000)


def test_jitter_is_a_function_of_device_and_dispatch():
    device, dispatch = np.array([4, 0, 2]), np.array([9, 9, 1])
    whole = compute_jitter(1, np.arange(5)[:, None], np.arange(10), 0.3)
    np.testing.assert_array_equal(compute_jitter(1, device, dispatch, 0.3), whole[device, dispatch])
    assert (compute_jitter(1, device, dispatch, 0) == 1).all()


@pytest.mark.parametrize("sigma", [-0.1, np.nan, np.inf])
def test_jitter_of_no_distribution_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma must be finite and at least 0"):
        compute_jitter(0, [0], [0], sigma)


@given(
    flops=st.floats(1e6, 1e13),
    speed=st.floats(1e8, 1e12),
    after_s=st.floats(0, 1e4),
    share=st.floats(0.05, 1),
)
def test_throttled_time_does_the_work(flops, speed, after_s, share):
    """The integral of the speed over the time is the work, by the trapezoidal rule on both parts.

    The rule is exact for piecewise constants; 1e-9 is left to rounding.
    """
    time_s = float(throttled_time_s(flops, speed, after_s, share))
    cold = np.linspace(0, min(time_s, after_s), 50)
    hot = np.linspace(min(time_s, after_s), time_s, 50)
    done = trapezoid(np.full(50, speed), cold) + trapezoid(np.full(50, speed * share), hot)
    assert done == pytest.approx(flops, rel=1e-9)


def test_throttled_time():
    # 10 s of work; throttled to half after 4 s, the other 6 take 12.
    assert throttled_time_s(1e10, 1e9, 4.0, 0.5) == 16.0
    after_s = np.array([np.inf, 10.0, 0.0])
    np.testing.assert_allclose(throttled_time_s(1e10, 1e9, after_s, 0.25), [10, 10, 40])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.0, 1.0, 0.5), "compute_flops must be positive and finite, got 0"),
        ((1.0, 1.0, -1.0, 0.5), "throttle_after_s must be at least 0, got -1"),
        ((1.0, 1.0, np.nan, 0.5), "throttle_after_s must be at least 0"),
        ((1.0, 1.0, 1.0, 0.0), "throttled_share must be above 0 and at most 1, got 0"),
        ((1.0, 1.0, 1.0, 1.1), "throttled_share must be above 0 and at most 1, got 1.1"),
    ],
)
def test_impossible_throttling_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        throttled_time_s(*arguments)


def test_speed_from_tokens_gives_back_their_rate():
    speed = speed_from_tokens([3.0, 40.0], 1.07e9)
    np.testing.assert_allclose(512 / compute_time_s(512 * 1.07e9, 1, speed, 0), [3.0, 40.0])
    with pytest.raises(ValueError, match="tokens_per_s must be positive and finite, got 0"):
        speed_from_tokens(0.0, 1e9)
