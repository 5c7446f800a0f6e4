"""When devices are available: switched on, connected and allowed to train.

Every process answers with times, so that a simulation never has to poll, and is a pure function of
(device, time): whatever was asked before, in whatever order, the answer is the same. Available
spells contain their beginning and not their end.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.poisson import Poisson
from wireless.trace_rows import queries
from wireless.traces import StepTrace

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class Availability(Protocol):
    """The on and off spells of devices; devices (M,) and times, scalar or (M,), broadcast."""

    def available(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.bool_]:
        """Return whether the devices are available at the times in seconds, shape (M,)."""
        ...

    def next_available(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times, in seconds, >= the given ones, when devices are available.

        The given time itself if available then, ``inf`` if never again; shape (M,).
        """
        ...

    def next_unavailable(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times, in seconds, >= the given ones, when devices are unavailable.

        The given time itself if unavailable then, ``inf`` if never again; shape (M,).
        """
        ...

    def share(self, device: ArrayLike) -> _Floats:
        """Return the fractions of infinite time that devices are available, shape (M,)."""
        ...


@dataclass(frozen=True, slots=True)
class AlwaysOn:
    """Devices that are always available."""

    def available(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.bool_]:
        """Return True for every device, shape (M,)."""
        return np.ones(queries(device, time_s)[1].shape, dtype=np.bool_)

    def next_available(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the given times in seconds, shape (M,)."""
        return queries(device, time_s)[1].copy()

    def next_unavailable(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return ``inf`` for every device, shape (M,)."""
        return np.full(queries(device, time_s)[1].shape, np.inf)

    def share(self, device: ArrayLike) -> _Floats:
        """Return 1 for every device, shape (M,)."""
        return np.ones(queries(device, 0.0)[1].shape)


@dataclass(frozen=True, slots=True)
class Markov:
    """On and off spells of exponential lengths, stationary from time 0 on.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    mean_on_s, mean_off_s : float
        Mean lengths of the spells in seconds, positive and finite.

    Raises
    ------
    ValueError
        If a mean length is not positive and finite.

    Notes
    -----
    Two Poisson processes of marks drive a device: "on" marks, mean_off_s apart on average, and
    "off" marks, mean_on_s apart. Its state is the kind of the last mark. From the moment that it
    turns on, the time to the next "off" mark is exponential of mean mean_on_s, and likewise the
    other way round, so this is the two-state Markov process; marks before time 0 make it
    stationary (own derivation). No spell depends on the sum of those before it, so a query costs
    the same at any time.
    """

    seed: int
    mean_on_s: float
    mean_off_s: float

    def __post_init__(self) -> None:
        """Check the mean lengths."""
        for name in ("mean_on_s", "mean_off_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}")

    def _turning_on(self) -> Poisson:
        return Poisson(self.seed, "availability.on", self.mean_off_s)

    def _turning_off(self) -> Poisson:
        return Poisson(self.seed, "availability.off", self.mean_on_s)

    def available(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.bool_]:
        """Return whether the devices are on at the times in seconds, shape (M,)."""
        number, time = queries(device, time_s)
        return np.asarray(
            self._turning_on().last(number, time) > self._turning_off().last(number, time)
        )

    def next_available(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, of being on, shape (M,)."""
        number, time = queries(device, time_s)
        result, off = np.array(time), ~self.available(number, time)
        result[off] = self._turning_on().next(number[off], time[off])
        return result

    def next_unavailable(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, of being off, shape (M,)."""
        number, time = queries(device, time_s)
        result, on = np.array(time), self.available(number, time)
        result[on] = self._turning_off().next(number[on], time[on])
        return result

    def share(self, device: ArrayLike) -> _Floats:
        """Return mean_on_s / (mean_on_s + mean_off_s) for every device, shape (M,)."""
        share = self.mean_on_s / (self.mean_on_s + self.mean_off_s)
        return np.full(queries(device, 0.0)[1].shape, share)


@dataclass(frozen=True, slots=True)
class Diurnal:
    """One spell a day, such as the hours at night when a phone is idle and charging.

    A device's spells have one length, log-normal over devices, and lie around an hour of its own,
    normal over devices; every day shifts the spell as a whole by a uniform jitter.

    Parameters
    ----------
    seed : int
        Root seed of the run.
    length_s : float
        Median length of the spells in seconds, at most period_s - 2 jitter_s; longer draws are
        cut to that, so that the spells of two days never meet.
    length_sigma : float
        Standard deviation of the natural logarithm of the length, >= 0.
    middle_s : float
        Mean time of day of the middle of a spell, in seconds after simulated time 0.
    middle_std_s : float
        Standard deviation over devices of that time, in seconds, >= 0.
    jitter_s : float
        Largest shift of a day's spell in seconds, >= 0 and below half the period.
    period_s : float
        Length of a day in seconds.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.

    References
    ----------
    Bonawitz et al., "Towards federated learning at scale: system design", arXiv:1902.01046:
    phones train while idle, charging and on an unmetered network, mostly at night, and four times
    as many take part at the busiest hour as at the quietest. The default spread of the middle
    gives this ratio; simulated time 0 is midnight.

    Notes
    -----
    Own model; the length, its spread and the jitter are estimates.
    """

    seed: int
    length_s: float = 8 * 3600.0
    length_sigma: float = 0.3
    middle_s: float = 3 * 3600.0
    middle_std_s: float = 5.2 * 3600.0
    jitter_s: float = 1800.0
    period_s: float = 86400.0

    def __post_init__(self) -> None:
        """Check every range."""
        if not 0 < self.period_s < math.inf:
            raise ValueError(f"period_s must be positive and finite, got {self.period_s}")
        for name in ("length_sigma", "middle_std_s", "jitter_s"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not math.isfinite(self.middle_s):
            raise ValueError(f"middle_s must be finite, got {self.middle_s}")
        if not 2 * self.jitter_s < self.period_s:
            raise ValueError(
                f"jitter_s must be below half of period_s = {self.period_s:g}, got {self.jitter_s}"
            )
        if not 0 < self.length_s <= self._longest_s:
            raise ValueError(
                "length_s must be positive and at most period_s - 2 jitter_s = "
                f"{self._longest_s:g}, got {self.length_s}"
            )

    @property
    def _longest_s(self) -> float:
        return self.period_s - 2 * self.jitter_s

    def _length_s(self, device: _Integers) -> _Floats:
        """Lengths of the devices' spells, shape (M,)."""
        # The order of magnitude is cut first, for the sake of the exponential.
        log = self.length_sigma * streams.normal(self.seed, "availability.length", device)
        log = np.minimum(log, math.log(self._longest_s / self.length_s))
        return np.minimum(self.length_s * np.exp(log), self._longest_s)

    def _spell(self, device: _Integers, time_s: _Floats) -> tuple[_Floats, _Floats]:
        """Return start and end of the first spell that ends after each time, both (M,)."""
        length = self._length_s(device)
        middle = self.middle_s + self.middle_std_s * streams.normal(
            self.seed, "availability.middle", device
        )
        middle = np.mod(middle, self.period_s)
        # Day d reaches half a period to either side of middle + d period_s and holds its spell.
        day = np.floor((time_s - middle) / self.period_s + 0.5)
        _, end = self._day(device, day, middle, length)
        start, end = self._day(device, day + (end <= time_s), middle, length)
        # Without a gap from one day to the next there is no end.
        endless = length > self.period_s * (1 - 1e-9)
        return np.where(endless, -np.inf, start), np.where(endless, np.inf, end)

    def _day(
        self, device: _Integers, day: _Floats, middle_s: _Floats, length_s: _Floats
    ) -> tuple[_Floats, _Floats]:
        """Return start and end of the spells of given days, both (M,)."""
        draw = streams.uniform(self.seed, "availability.day", device, day.astype(np.int64))
        jitter = self.jitter_s * (2 * draw - 1)
        start = day * self.period_s + (middle_s + jitter - length_s / 2)
        return start, start + length_s

    def available(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.bool_]:
        """Return whether the times in seconds lie in a spell, shape (M,)."""
        number, time = queries(device, time_s)
        return np.asarray(self._spell(number, time)[0] <= time)

    def next_available(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, of a spell, shape (M,)."""
        number, time = queries(device, time_s)
        return np.asarray(np.maximum(self._spell(number, time)[0], time))

    def next_unavailable(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, between spells, shape (M,)."""
        number, time = queries(device, time_s)
        start, end = self._spell(number, time)
        return np.where(start <= time, end, time)

    def share(self, device: ArrayLike) -> _Floats:
        """Return the devices' lengths over the period, shape (M,)."""
        return np.asarray(self._length_s(queries(device, 0.0)[0]) / self.period_s)


@dataclass(frozen=True, slots=True)
class TraceAvailability:
    """Spells of a trace.

    Parameters
    ----------
    trace : StepTrace
        1 while a device is available, 0 while it is not.

    Raises
    ------
    ValueError
        If the trace holds other values.
    """

    trace: StepTrace

    def __post_init__(self) -> None:
        """Check the values."""
        level = self.trace.level
        other = level[(level != 0) & (level != 1)]
        if len(other):
            raise ValueError(f"trace must hold 0 and 1 alone, got {other[0]:g}")

    def available(self, device: ArrayLike, time_s: ArrayLike) -> NDArray[np.bool_]:
        """Return whether the trace is 1 at the times in seconds, shape (M,)."""
        return np.asarray(self.trace.value(device, time_s) == 1)

    def next_available(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, of a 1, shape (M,)."""
        _, time = queries(device, time_s)
        return np.where(
            self.available(device, time_s), time, self.trace.next_change(device, time_s)
        )

    def next_unavailable(self, device: ArrayLike, time_s: ArrayLike) -> _Floats:
        """Return the earliest times in seconds, >= the given ones, of a 0, shape (M,)."""
        _, time = queries(device, time_s)
        return np.where(
            self.available(device, time_s), self.trace.next_change(device, time_s), time
        )

    def share(self, device: ArrayLike) -> _Floats:
        """Return the fractions of the period at 1, or the values held for ever, shape (M,)."""
        return self.trace.long_run_mean(device)
