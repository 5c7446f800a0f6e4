"""Cohorts: independent, unbiased, reproducible."""

import numpy as np
import pytest

from optimizer import Certificate, Plan, draw_cohort


def plan_of(probability):
    q = np.asarray(probability)
    rank = np.arange(1, len(q) + 1)
    return Plan("test", rank, q, 1.0, 1.0, 1.0, Certificate(0.0, 1, 0.0, float(q.sum())))


def test_weights_are_unbiased():
    """sum_n v_n f_n averages to sum_n a_n f_n, and sum_n v_n to one."""
    weight, value = np.array([0.1, 0.2, 0.3, 0.4]), np.array([5.0, -1.0, 2.0, 0.5])
    plan = plan_of([0.2, 0.9, 1.0, 0.5])
    cohorts = [draw_cohort(plan, weight, 7, t) for t in range(4000)]
    estimate = np.array([c.weight @ value[c.device] for c in cohorts])
    sums = np.array([c.weight.sum() for c in cohorts])
    for sample, truth in ((estimate, weight @ value), (sums, 1.0)):
        assert abs(sample.mean() - truth) < 4 * sample.std() / np.sqrt(len(sample))


def test_members_keep_their_ranks_and_weights():
    cohort = draw_cohort(plan_of([1.0, 1e-9, 1.0]), np.array([0.5, 0.2, 0.3]), 0, 0)
    np.testing.assert_array_equal(cohort.device, [0, 2])
    np.testing.assert_array_equal(cohort.rank, [1, 3])
    np.testing.assert_allclose(cohort.weight, [0.5, 0.3])


def test_a_cohort_may_be_empty():
    cohort = draw_cohort(plan_of([1e-9, 1e-9]), np.array([0.5, 0.5]), 0, 0)
    assert len(cohort.device) == len(cohort.rank) == len(cohort.weight) == 0


def test_devices_are_drawn_independently_and_rounds_anew():
    plan = plan_of([0.5, 0.5])
    member = np.zeros((2000, 2))
    for t in range(2000):
        member[t, draw_cohort(plan, np.full(2, 0.5), 3, t).device] = 1
    assert member.mean() == pytest.approx(0.5, abs=0.04)
    assert abs(np.corrcoef(member.T)[0, 1]) < 0.08
    assert abs(np.corrcoef(member[1:, 0], member[:-1, 0])[0, 1]) < 0.08
    again = draw_cohort(plan, np.full(2, 0.5), 3, 11)
    np.testing.assert_array_equal(np.flatnonzero(member[11]), again.device)
