"""Step traces against a walk from row to row, with and without repetition."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wireless.trace_rows import queries
from wireless.traces import StepTrace, whole_periods


class Walk:
    """One device's step function, by loops over rows and repetitions."""

    def __init__(self, rows, period_s):
        self.rows, self.period_s = sorted(rows), period_s

    def pieces(self, until_s):
        """List (start, end, value) up to a time."""
        times = [time for time, _ in self.rows]
        found, cycle = [], 0
        while True:
            begin = cycle * self.period_s if math.isfinite(self.period_s) else 0.0
            ends = [*times[1:], self.period_s]
            for (time, value), end in zip(self.rows, ends, strict=True):
                found.append((begin + time, begin + end, value))
            cycle += 1
            if found[-1][1] > until_s:
                return found

    def value(self, time_s):
        return next(value for a, b, value in self.pieces(time_s) if a <= time_s < b)

    def next_change(self, time_s):
        horizon = time_s if math.isinf(self.period_s) else time_s + 2 * self.period_s
        now = self.value(time_s)
        return next(
            (a for a, _, value in self.pieces(horizon) if a > time_s and value != now), math.inf
        )

    def integral(self, start_s, end_s):
        return sum(
            value * (min(b, end_s) - max(a, start_s))
            for a, b, value in self.pieces(end_s)
            if a < end_s and b > start_s
        )

    def finish(self, start_s, amount):
        if amount == 0:
            return start_s
        total = sum(value for _, value in self.rows)
        if total == 0 or (math.isinf(self.period_s) and self.rows[-1][1] == 0):
            reach = self.rows[-1][0] + start_s + 1
        elif math.isinf(self.period_s):
            reach = self.rows[-1][0]
        else:
            per_cycle = self.integral(0, self.period_s)
            reach = start_s + self.period_s * (amount / per_cycle + 2)
        done = 0
        for a, b, value in self.pieces(reach):
            a = max(a, start_s)
            if b > a and value > 0:
                if done + value * (b - a) >= amount:
                    return a + (amount - done) / value
                done += value * (b - a)
        return math.inf


# Times and values are quarters and amounts eighths: all sums are exact in floating point, so that
# equality with the walk is exact but for the one division in `finish_s`.
quarters = st.integers(0, 60).map(lambda n: n / 4)
levels = st.sampled_from([0.0, 0.0, 0.25, 1.0, 3.0])


@st.composite
def traces(draw):
    devices = draw(st.integers(1, 4))
    rows = []
    for device in range(devices):
        times = {0.0, *draw(st.lists(quarters, max_size=5))}
        rows += [(device, time, draw(levels)) for time in times]
    rows = draw(st.permutations(rows))
    period_s = draw(st.sampled_from([math.inf, 15.25, 20.0]))
    trace = StepTrace(*(np.array(column) for column in zip(*rows, strict=True)), period_s)
    walks = [Walk([row[1:] for row in rows if row[0] == n], period_s) for n in range(devices)]
    return trace, walks


@settings(max_examples=150)
@given(traces(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 900), st.integers(0, 300))))
def test_queries_agree_with_a_walk_over_rows(case, asked):
    trace, walks = case
    device = np.array([n for n, _, _ in asked], dtype=np.int64)
    start = np.array([time / 8 for _, time, _ in asked])
    amount = np.array([size / 8 for _, _, size in asked])
    walk = [walks[n % len(walks)] for n in device]
    each = list(zip(walk, start, amount, strict=True))

    assert trace.value(device, start).tolist() == [w.value(t) for w, t, _ in each]
    assert trace.next_change(device, start).tolist() == [w.next_change(t) for w, t, _ in each]
    assert trace.integral(device, start, start + amount).tolist() == [
        w.integral(t, t + a) for w, t, a in each
    ]
    # One division and one addition, on times below 1e5 s: a few parts in 1e16.
    np.testing.assert_allclose(
        trace.finish_s(device, start, amount), [w.finish(t, a) for w, t, a in each], rtol=1e-14
    )


@settings(max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-3, 1e5),
    st.one_of(st.floats(0, 1e2), st.floats(0, 1e9)),
)
def test_changes_have_happened_when_announced(seed, period_s, start_s):
    # Times without a finite binary form, late in a repeating trace: rounding must not let a chain
    # of `next_change` stand still, jump over a change or announce one that does not come.
    rng = np.random.default_rng(seed)
    time = period_s * np.array([0.0, 0.1, 0.3, 0.7])
    trace = StepTrace(np.zeros(4, int), time, rng.integers(0, 3, 4) * 1.0, period_s)
    if len(trace.level) == 1:
        assert trace.next_change(0, start_s) == math.inf
        return
    at = start_s
    for _ in range(6):
        after = trace.next_change(0, at).item()
        assert after > at
        before = np.nextafter(after, 0)
        assert trace.value(0, before) == trace.value(0, at) != trace.value(0, after)
        at = after


@settings(max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([math.inf, 77.7]))
def test_work_ends_when_the_integral_reaches_it(seed, period_s):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, 70, (5, 6)), axis=1)
    time[:, 0] = 0
    trace = StepTrace(np.repeat(np.arange(5), 6), time.ravel(), rng.random(30), period_s)
    device, start, amount = np.arange(5), rng.uniform(0, 500, 5), rng.uniform(0, 300, 5)
    end = trace.finish_s(device, start, amount)
    # Sums of at most 1e3 carry errors of some 1e-13; the slowest speed here is above 1e-6.
    np.testing.assert_allclose(trace.integral(device, start, end), amount, rtol=1e-12, atol=1e-12)
    middle = start + rng.random(5) * (end - start)
    np.testing.assert_allclose(
        trace.integral(device, start, middle) + trace.integral(device, middle, end),
        trace.integral(device, start, end),
        rtol=1e-12,
        atol=1e-12,
    )


def test_constant_speed_needs_amount_over_speed():
    for period_s in (math.inf, 1e3):
        trace = StepTrace([0], [0.0], [2.5], period_s)
        assert trace.finish_s(3, 10.0, 4.0) == 10 + 4 / 2.5
        assert trace.integral(3, 10.0, 1e6) == 2.5 * (1e6 - 10)
        assert trace.next_change(3, 0.0) == math.inf
        assert trace.long_run_mean(3) == 2.5


def test_repetition_is_exact_after_a_million_periods():
    # 3 s on, 5 s off: in each period of 8 s the integral grows by 3.
    trace = StepTrace([0, 0], [0.0, 3.0], [1.0, 0.0], 8.0)
    late = 8.0 * 1_000_000
    assert trace.integral(0, 1.0, late + 2) == 3 * 1_000_000 + 1
    assert trace.finish_s(0, 0.0, 3.0 * 1_000_000) == late - 5
    assert trace.finish_s(0, 4.0, 3.0 * 1_000_000) == late + 3
    assert trace.long_run_mean(0) == 3 / 8


def test_earliest_time_counts_where_the_speed_is_zero():
    trace = StepTrace([0, 0, 0], [0.0, 2.0, 4.0], [1.0, 0.0, 1.0])
    assert trace.finish_s(0, 0.0, 2.0) == 2
    assert trace.finish_s(0, 0.0, 2.5) == 4.5
    assert trace.finish_s(0, 3.0, 0.0) == 3
    dead = StepTrace([0, 0], [0.0, 2.0], [1.0, 0.0])
    assert dead.finish_s(0, [0.0, 0.0, 3.0, 3.0], [2.0, 2.01, 0.0, 1.0]).tolist() == [
        2,
        math.inf,
        3,
        math.inf,
    ]
    assert StepTrace([0], [0.0], [0.0], 5.0).finish_s(0, 1.0, [0.0, 1.0]).tolist() == [1, math.inf]


def test_last_moment_of_a_repetition_is_found_despite_rounding():
    # 7 w / w rounds to more than 7 for this w: the work of seven periods must not wait for the
    # eighth, which begins with a pause.
    work = 0.39161900052816123
    assert 7 * work / work > 7
    trace = StepTrace([0, 0], [0.0, 1.0], [0.0, work], 2.0)
    assert trace.finish_s(0, 0.0, 7 * work) == 14


def test_fleet_follows_the_trace_devices_in_turn():
    trace = StepTrace([0, 1, 2], [0.0, 0.0, 0.0], [5.0, 6.0, 7.0])
    assert len(trace) == 3
    assert trace.value(np.arange(8), 1.0).tolist() == [5, 6, 7, 5, 6, 7, 5, 6]
    assert trace.value(np.arange(8)[:, None], [0.0, 1.0]).shape == (8, 2)
    assert trace.long_run_mean(np.arange(4)).tolist() == [5, 6, 7, 5]


def test_devices_do_not_touch_each_other():
    # A device's answers are the same to the last bit alone and beside a device of huge values.
    rng = np.random.default_rng(1)
    time = np.concatenate(([0.0], np.sort(rng.uniform(0, 9, 40))))
    level = rng.random(41)
    alone = StepTrace(np.zeros(41, int), time, level, 10.0)
    beside = StepTrace([0, *np.ones(41, int)], [0, *time], [1e20, *level], 10.0)
    start, amount = rng.uniform(0, 99, 200), rng.uniform(0, 99, 200)
    assert np.array_equal(alone.finish_s(0, start, amount), beside.finish_s(1, start, amount))
    assert np.array_equal(alone.integral(0, start, 50.0), beside.integral(1, start, 50.0))


def test_rows_that_repeat_a_value_are_no_change():
    trace = StepTrace([0, 0, 0], [0.0, 1.0, 2.0], [1.0, 1.0, 0.0])
    assert trace.time_s.tolist() == [0, 2]
    assert trace.next_change(0, 0.0) == 2


@given(st.floats(0, 1e12), st.floats(1e-3, 1e6))
def test_whole_periods_bracket_the_time(time_s, period_s):
    count = whole_periods(np.array([time_s]), period_s).item()
    assert count == math.floor(count)
    assert count * period_s <= time_s < (count + 1) * period_s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), "device must be a row of at least one integer, got float64 (0,)"),
        (([0.0], [0.0], [1.0]), "device must be a row of at least one integer, got float64 (1,)"),
        (([0, 0], [0.0], [1.0]), "time_s must have shape (2,), got (1,)"),
        (([0], [0.0], [math.nan]), "level must be finite, got nan"),
        (([0], [0.0], [-2.0]), "level must not be negative, got -2"),
        (([0], [5.0], [1.0]), "the first time_s of a device must be 0, got 5; add a row"),
        (([0, 0], [-1.0, 0.0], [1.0, 1.0]), "the first time_s of a device must be 0, got -1"),
        (([0, 0, 0], [0, 3, 3], [1, 1, 2]), "the same device has another row at time_s = 3"),
        (([0, 2], [0.0, 0.0], [1.0, 1.0]), "device must number the trace devices 0, 1, ..."),
        (([-1], [0.0], [1.0]), "device must number the trace devices 0, 1, ..."),
        (([0, 0], [0, 9], [1, 2], 9.0), "time_s must be below period_s = 9, got 9; lengthen"),
        (([0], [0.0], [1.0], 0.0), "period_s must be positive, got 0.0"),
        (([0], [0.0], [1.0], math.nan), "period_s must be positive, got nan"),
    ],
)
def test_bad_rows_are_refused(arguments, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        StepTrace(*arguments)


def test_bad_queries_are_refused():
    trace = StepTrace([0], [0.0], [1.0])
    with pytest.raises(TypeError, match="device must be integers, got float64"):
        trace.value(1.5, 0.0)
    with pytest.raises(ValueError, match="device must be 0 or more, got -1"):
        trace.value([3, -1], 0.0)
    for time in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"time_s must be finite and not negative, got {time}"):
            queries([0, 1], [0.0, time])
    for amount in (-1.0, math.inf):
        with pytest.raises(ValueError, match="amount must be finite and not negative"):
            trace.finish_s(0, 0.0, amount)
