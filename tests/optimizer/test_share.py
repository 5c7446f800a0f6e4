"""Expected bandwidth of a device, where it is known."""

import numpy as np
import pytest

from optimizer.share import expected_bandwidth
from wireless.link import LinearLink
from wireless.spectrum import RULES

SAME = {
    "weight": np.full(4, 0.25),
    "gradient_norm": np.ones(4),
    "compute_base_s": np.full(4, 2.0),
    "compute_per_rank_s": np.zeros(4),
    "link": LinearLink(np.full(4, 3.0)),
    "rank_cap": np.full(4, 8),
}


def test_alone_in_the_cell_a_device_gets_the_whole_band(make_problem) -> None:
    problem = make_problem(1, 0)
    band = expected_bandwidth(problem, problem.rank_cap, [0.3], seed=1)
    np.testing.assert_allclose(band, problem.bandwidth_hz, rtol=1e-9)


def test_equal_devices_that_always_take_part_share_equally(make_problem) -> None:
    problem = make_problem(4, 0, **SAME)
    band = expected_bandwidth(problem, np.full(4, 8), np.ones(4), seed=1)
    np.testing.assert_allclose(band, problem.bandwidth_hz / 4, rtol=1e-9)


def test_equal_devices_get_the_mean_of_one_over_the_cohort(make_problem) -> None:
    # Given that a device is in, 1 + Binomial(3, q) share; E[1/(1+K)] = (1-(1-q)^4) / (4 q).
    problem, q = make_problem(4, 0, **SAME), 0.4
    band = expected_bandwidth(problem, np.full(4, 8), np.full(4, q), seed=1)
    expected = problem.bandwidth_hz * (1 - (1 - q) ** 4) / (4 * q)
    # About 1600 of 4096 draws, of a share whose deviation is below 0.3 of the band.
    assert band == pytest.approx(np.full(4, expected), abs=5 * 0.3e6 / 40)


def test_small_tables_change_nothing(make_problem, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(6, 3)
    rank, q = problem.rank_cap, np.linspace(0.1, 1.0, 6)
    monkeypatch.setattr("optimizer.share._NUMBERS", 3000)
    whole = expected_bandwidth(problem, rank, q, seed=2)
    monkeypatch.setattr("optimizer.share._COHORTS", 500)
    monkeypatch.setattr("optimizer.share._NUMBERS", 20_000_000)
    np.testing.assert_allclose(expected_bandwidth(problem, rank, q, seed=2), whole, rtol=1e-12)


def test_device_that_is_never_drawn_has_no_share(make_problem) -> None:
    problem = make_problem(4, 0, **SAME, min_probability=1e-9, min_cohort=0.0)
    band = expected_bandwidth(problem, np.full(4, 8), [1.0, 1.0, 1.0, 1e-9], seed=1)
    assert np.isnan(band).tolist() == [False, False, False, True]


@pytest.mark.parametrize("allocation", RULES)
def test_rules_agree_where_everybody_is_ready_at_once(make_problem, allocation: str) -> None:
    """Equal devices: shared evenly or, one at a time, held whole for a share of the time."""
    problem = make_problem(4, 0, **SAME, allocation=allocation)
    band = expected_bandwidth(problem, np.full(4, 8), np.ones(4), seed=1)
    alone = allocation == "time-division"
    np.testing.assert_allclose(band, problem.bandwidth_hz / (1 if alone else 4), rtol=1e-9)


def test_cells_have_bands_of_their_own(make_problem) -> None:
    problem = make_problem(4, 0, **SAME, cell=np.array([0, 0, 0, 5]))
    band = expected_bandwidth(problem, np.full(4, 8), np.ones(4), seed=1)
    np.testing.assert_allclose(band, problem.bandwidth_hz / np.array([3, 3, 3, 1]), rtol=1e-9)


def test_large_fleets_are_spared_cohorts_of_many_events(make_problem, monkeypatch) -> None:
    """Two of four devices: four steps a cohort from event to event, none in closed form."""
    monkeypatch.setattr("optimizer.share._MANY", 3)
    monkeypatch.setattr("optimizer.share._STEPS", 3)
    rank, q = np.full(4, 8), np.full(4, 0.5)
    for allocation, known in (("work-conserving", False), ("time-division", True)):
        problem = make_problem(4, 0, **SAME, allocation=allocation)
        band = expected_bandwidth(problem, rank, q, seed=1)
        assert np.isfinite(band).tolist() == [known] * 4
