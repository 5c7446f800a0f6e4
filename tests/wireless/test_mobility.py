"""Mobility: pure functions of device and time, continuous, inside the cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from wireless.mobility import Linear, RandomWaypoint, Static, Waypoints

RADIUS = 500.0
DEVICES = np.arange(400)


def _starts(devices=400, inner=35.0):
    rng = np.random.default_rng(1)
    distance = np.sqrt(rng.uniform(inner**2, RADIUS**2, devices))
    angle = rng.uniform(0, 2 * np.pi, devices)
    return distance * np.cos(angle), distance * np.sin(angle)


def _recorded():
    rng = np.random.default_rng(2)
    device, time = np.repeat(DEVICES, 6), rng.uniform(0, 900, (len(DEVICES), 6))
    time[:, 0] = 0
    rows = rng.permutation(device.size)
    return Waypoints(device[rows], time.ravel()[rows], *rng.uniform(-300, 300, (2, device.size)))


def _models():
    x, y = _starts()
    pace = 0.5 + DEVICES % 7
    return {
        "static": Static(x, y),
        "linear": Linear(3, x, y, RADIUS, pace),
        "random-waypoint": RandomWaypoint(3, x, y, 35.0, RADIUS, 1.0, 7.0, 20.0),
        "waypoints": _recorded(),
    }


MODELS = ["static", "linear", "random-waypoint", "waypoints"]


@pytest.mark.parametrize("name", MODELS)
def test_starts_at_the_given_place_and_stays_inside(name):
    model = _models()[name]
    if name != "waypoints":
        np.testing.assert_allclose(model.position_m(DEVICES, 0.0), _starts(), rtol=0, atol=1e-9)
    for time in np.linspace(0, 5000, 60):
        assert np.hypot(*model.position_m(DEVICES, time)).max() <= RADIUS + 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_nobody_jumps(name):
    """Between two times a device goes no farther than its fastest speed takes it."""
    model = _models()[name]
    if name == "waypoints":
        way_m = np.hypot(np.diff(model.x_m), np.diff(model.y_m))
        within = np.diff(model.device) == 0
        pace = way_m[within] / np.diff(model.time_s)[within]
        fastest = pace.reshape(len(DEVICES), 5).max(axis=1)
    else:
        fastest = {"static": 0.0, "linear": 0.5 + DEVICES % 7, "random-waypoint": 7.0}[name]
    time, before = 0.0, model.position_m(DEVICES, 0.0)
    for step in np.random.default_rng(4).exponential(7.0, 300):
        time += step
        now = model.position_m(DEVICES, time)
        moved = np.hypot(now[0] - before[0], now[1] - before[1])
        assert (moved <= fastest * step + 1e-9).all()
        before = now


@pytest.mark.parametrize("name", MODELS)
def test_answers_do_not_depend_on_the_questions(name):
    rng = np.random.default_rng(5)
    device, time = rng.integers(0, len(DEVICES), 600), rng.uniform(0, 4000, 600)
    expected = np.array(_models()[name].position_m(device, time))
    model = _models()[name]
    for each in rng.permutation(600):
        place = model.position_m(device[each], time[each])
        assert place[0].shape == ()
        np.testing.assert_array_equal(place, expected[:, each])
    ascending = np.argsort(time)
    np.testing.assert_array_equal(
        model.position_m(device[ascending], time[ascending]), expected[:, ascending]
    )


@pytest.mark.parametrize("name", ["linear", "random-waypoint"])
def test_a_device_walks_alike_in_every_fleet(name):
    x, y = _starts()
    for few in (1, 30):
        model = {
            "linear": lambda n: Linear(3, x[:n], y[:n], RADIUS, 2.0),
            "random-waypoint": lambda n: RandomWaypoint(3, x[:n], y[:n], 35.0, RADIUS, 1.0, 7.0),
        }[name]
        np.testing.assert_array_equal(
            model(few).position_m(np.arange(few), 777.0),
            model(400).position_m(np.arange(few), 777.0),
        )
        other = _models()[name].position_m(DEVICES, 777.0)
        assert not np.isclose(other[0][1:], other[0][:-1]).any()


@given(
    distance=st.floats(0, 1),
    angle=st.floats(0, 6.3),
    pace=st.floats(0.01, 100),
    time=st.floats(0, 1e5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80)
def test_linear_repeats_itself_after_two_chords(distance, angle, pace, time, seed):
    x, y = RADIUS * distance * np.cos([angle]), RADIUS * distance * np.sin([angle])
    model = Linear(seed, x, y, RADIUS, pace)
    # The direction from two early places, then the chord through the start in that direction.
    ahead = np.array(model.position_m([0], 1e-3 / pace)).ravel() - np.array([x[0], y[0]])
    if np.hypot(*ahead) < 0.9e-3:  # turned within the first millimetre
        return
    ahead /= np.hypot(*ahead)
    aside = abs(x[0] * ahead[1] - y[0] * ahead[0])
    chord = 2 * np.sqrt(max(RADIUS**2 - aside**2, 0))
    if chord < 1:
        return
    here = np.array(model.position_m([0], time))
    assert np.hypot(*here).item() <= RADIUS + 1e-9
    # On the line through the start; the direction is known to 1e-10 from the first millimetre.
    across = (here[0] - x[0]) * ahead[1] - (here[1] - y[0]) * ahead[0]
    assert abs(across).item() < 1e-5
    later = np.array(model.position_m([0], time + 2 * chord / pace))
    # Walks of up to 1e7 m keep 2e-9 m; the chord itself is known to about 1e-5 m near the rim.
    np.testing.assert_allclose(later, here, rtol=0, atol=1e-3)


def test_linear_reflects_at_the_rim():
    model = Linear(8, np.zeros(50), np.zeros(50), RADIUS, 10.0)
    device = np.arange(50)
    rim = np.array(model.position_m(device, 50.0))
    np.testing.assert_allclose(np.hypot(*rim), RADIUS, rtol=1e-12)
    before, after = (np.array(model.position_m(device, time)) for time in (43.0, 57.0))
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.array(model.position_m(device, 150.0)), -rim, atol=1e-9)
    # Headings all around: the mean direction of 50 has length 1/sqrt(50) = 0.14.
    assert np.hypot(*(rim.mean(axis=1) / RADIUS)) < 0.5


def test_random_waypoint_legs_have_constant_speed_and_rest():
    x, y = _starts(1)
    model = RandomWaypoint(2, x, y, 35.0, RADIUS, 2.0, 6.0, 30.0)
    times = np.arange(0, 20_000, 0.25)
    place = np.array(model.position_m(np.zeros(times.size, int), times))
    speed = np.hypot(*np.diff(place)) / 0.25
    edges = np.flatnonzero(np.diff(speed > 0)) + 1
    walks, rests = np.split(speed, edges)[::2], np.split(speed, edges)[1::2]  # it starts walking
    # The first and last quarter of a second of a walk are partly rest.
    whole = [walk[1:-1] for walk in walks[:-1] if len(walk) > 2]
    assert len(whole) > 50
    for walk in whole:
        # Places within 500 m hold 1e-13 m.
        np.testing.assert_allclose(walk, walk[0], rtol=0, atol=1e-11)
        assert 2 - 1e-11 <= walk[0] <= 6 + 1e-11
    durations = [0.25 * len(rest) for rest in rests[: len(walks) - 1]]
    np.testing.assert_allclose(durations, 30, atol=0.25)
    # It rests on the waypoints, in the ring.
    distance = np.hypot(*place[:, edges[::2]])
    assert ((distance >= 35 - 1e-9) & (distance <= RADIUS + 1e-9)).all()


def test_first_waypoints_are_uniform_in_the_ring():
    """An endless rest keeps everybody at the first waypoint."""
    x, y = _starts(10_000, inner=0.0)
    model = RandomWaypoint(2, x, y, 100.0, RADIUS, 1.0, 2.0, 1e12)
    place = np.array(model.position_m(np.arange(10_000), 1e6))
    area = (np.sum(place**2, axis=0) - 100**2) / (RADIUS**2 - 100**2)
    turn = np.arctan2(place[1], place[0]) / (2 * np.pi) + 0.5
    assert stats.kstest(area, "uniform").pvalue > 0.001
    assert stats.kstest(turn, "uniform").pvalue > 0.001


def test_mean_leg_is_the_mean_distance_in_a_disc():
    """128 R / (45 pi) between uniform places in a disc; its standard deviation is 0.42 R."""
    x, y = _starts(10_000, inner=0.0)
    model = RandomWaypoint(2, x, y, 0.0, RADIUS, 1.0, 2.0, 1e12)
    end = model.position_m(np.arange(10_000), 1e6)
    leg = np.hypot(end[0] - x, end[1] - y) / RADIUS
    assert leg.mean() == pytest.approx(128 / (45 * np.pi), abs=4 * 0.42 / 100)


def test_mean_speed_falls_to_the_harmonic_mean():
    """Long after the start, the mean speed is (high - low) / ln(high / low), not the middle."""
    devices = 4000
    model = RandomWaypoint(4, *_starts(devices), 0.0, RADIUS, 1.0, 9.0)

    def mean_speed(time_s):
        """From a step of 10 ms, in which hardly one of them turns."""
        here, there = (
            np.array(model.position_m(np.arange(devices), each)) for each in (time_s, time_s + 0.01)
        )
        return np.hypot(*(there - here)).mean() / 0.01

    assert mean_speed(0.0) == pytest.approx(5, abs=0.15)
    # Standard deviation 2.2 over 4000 devices: 0.035.
    assert mean_speed(20_000.0) == pytest.approx(8 / np.log(9), abs=0.14)


def test_devices_drift_to_the_centre_by_the_known_density():
    def density(r):
        chord = integrate.quad(lambda phi: np.sqrt(1 - (r * np.cos(phi)) ** 2), 0, np.pi)[0]
        return 2 * np.pi * r * 45 * (1 - r**2) / (64 * np.pi) * chord

    assert integrate.quad(density, 0, 1)[0] == pytest.approx(1, rel=1e-8)
    square = integrate.quad(lambda r: r**2 * density(r), 0, 1)[0]
    devices = 4000
    model = RandomWaypoint(5, *_starts(devices), 0.0, RADIUS, 2.0, 4.0)
    place = np.hypot(*model.position_m(np.arange(devices), 5000.0)) / RADIUS
    # Standard error 0.2 / sqrt(4000) = 0.003; uniform devices would have 0.5.
    assert np.mean(place**2) == pytest.approx(square, abs=0.013)
    assert square < 0.4


def test_waypoints_follow_the_records():
    model = Waypoints(
        np.array([1, 0, 1, 1, 0]),
        np.array([10.0, 0.0, 0.0, 30.0, 6.0]),
        np.array([100.0, 1.0, 0.0, 100.0, 4.0]),
        np.array([0.0, 1.0, 0.0, 40.0, 5.0]),
    )
    assert len(model) == 2
    x, y = model.position_m(1, [0.0, 2.5, 10.0, 15.0, 30.0, 1e6])
    np.testing.assert_allclose(x, [0, 25, 100, 100, 100, 100])
    np.testing.assert_allclose(y, [0, 0, 0, 10, 40, 40])
    x, y = model.position_m([0, 0, 0, 1], [0.0, 3.0, 9.0, 5.0])
    np.testing.assert_allclose(x, [1, 2.5, 4, 50])
    np.testing.assert_allclose(y, [1, 3, 5, 0])
    # Devices 2 and 3 follow the two recorded ones, and so on.
    later = model.position_m(np.arange(8), 5.0)
    np.testing.assert_array_equal(later, np.tile(model.position_m([0, 1], 5.0), 4))


def test_waypoints_agree_with_interpolation_device_by_device():
    model, rng = _recorded(), np.random.default_rng(6)
    time = rng.uniform(0, 1000, 50)
    for device in (0, 17, 399):
        rows = model.device == device
        x, y = model.position_m(device, time)
        np.testing.assert_allclose(x, np.interp(time, model.time_s[rows], model.x_m[rows]))
        np.testing.assert_allclose(y, np.interp(time, model.time_s[rows], model.y_m[rows]))


def test_meaningless_arguments_are_refused():
    x, y = np.array([3.0, 600.0]), np.zeros(2)
    with pytest.raises(ValueError, match=r"x_m, y_m must lie within radius_m = 500.0, got 600.0"):
        Linear(1, x, y, RADIUS, 1.0)
    with pytest.raises(ValueError, match=r"pace_m_s must be finite and not negative, got -1"):
        Linear(1, y, y, RADIUS, [1.0, -1.0])
    with pytest.raises(ValueError, match=r"low_m_s must be finite and above 0, got 0"):
        RandomWaypoint(1, y, y, 0.0, RADIUS, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"high_m_s must be finite and at least 2.0, got 1"):
        RandomWaypoint(1, y, y, 0.0, RADIUS, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"y_m must have the shape of x_m, \(2,\), got \(3,\)"):
        Static(x, np.zeros(3))
    with pytest.raises(ValueError, match="x_m must be finite, got nan"):
        Static(np.array([np.nan]), np.zeros(1))
    with pytest.raises(ValueError, match="device must be from 0 to 1, got 2"):
        Static(x, y).position_m([0, 2], 0.0)
    with pytest.raises(ValueError, match="time_s must be finite and not negative, got -1"):
        Static(x, y).position_m(0, -1.0)
    with pytest.raises(ValueError, match="the same device has another row at time_s = 0"):
        Waypoints([0, 0], [0.0, 0.0], y, y)
    with pytest.raises(ValueError, match="the first time_s of a device must be 0, got 5"):
        Waypoints([0, 1], [0.0, 5.0], y, y)
    with pytest.raises(ValueError, match="device must number the trace devices 0, 1"):
        Waypoints([0, 2], [0.0, 0.0], y, y)
    with pytest.raises(ValueError, match=r"y_m must have shape \(1,\), got \(2,\)"):
        Waypoints([0], [0.0], [1.0], y)
    with pytest.raises(ValueError, match="x_m must be finite, got nan"):
        Waypoints([0], [0.0], [np.nan], [1.0])
