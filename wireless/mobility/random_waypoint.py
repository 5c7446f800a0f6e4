"""Devices that walk from one random place to the next."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams
from wireless.mobility.base import Places, check_range, queried, starting_places


@dataclass(frozen=True, slots=True, eq=False)
class RandomWaypoint:
    """Devices that walk from one random place to the next, each leg at its own speed.

    A device goes straight to a place drawn uniformly from the ring, at a speed drawn uniformly
    for the leg, rests there, and goes on. The first leg starts at the given place at time zero.

    Parameters
    ----------
    seed : int
        Root seed of the run; places and speeds are keyed by device and leg.
    x_m, y_m : ndarray, shape (N,)
        Places in metres at time zero.
    min_distance_m, radius_m : float
        Inner and outer radius of the ring of waypoints in metres, 0 <= inner < outer.
    low_m_s, high_m_s : float
        Slowest and fastest speed of a leg in m/s, 0 < slowest <= fastest.
    pause_s : float
        Rest at each waypoint in seconds, >= 0.

    Raises
    ------
    ValueError
        If a number is outside its range or a start outside the disc.

    Notes
    -----
    Two effects of this model are well known. The devices drift: starting uniform in the disc,
    they end up denser in its centre, since legs between uniform places cross it; the density
    without rests at distance r in the disc of radius 1 is
    45 (1 - r^2) / (64 pi) times the integral of sqrt(1 - r^2 cos^2 phi) over phi from 0 to pi.
    And they slow down: over time the mean speed falls to 1 / E[1 / v], since slow legs last
    longer; a slowest speed of zero would stop everybody, and is refused.

    The leg under way is remembered per device, so time that advances costs one step per leg. An
    earlier time walks the path again from its start. Neither changes an answer.

    References
    ----------
    C. Bettstetter, G. Resta and P. Santi, "The node distribution of the random waypoint mobility
    model for wireless ad hoc networks", IEEE Trans. Mobile Computing, 2003; J. Yoon, M. Liu and
    B. Noble, "Random waypoint considered harmful", INFOCOM 2003; E. Hyytia, P. Lassila and
    J. Virtamo, "Spatial node distribution of the random waypoint mobility model with
    applications", IEEE Trans. Mobile Computing, 2006 (density in the disc).
    """

    seed: int
    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    min_distance_m: float
    radius_m: float
    low_m_s: float
    high_m_s: float
    pause_s: float = 0.0
    _leg: NDArray[np.intp] = field(init=False, repr=False)
    _begin_s: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Validate the ranges and put everybody on the first leg."""
        check_range("min_distance_m", self.min_distance_m, 0)
        check_range("radius_m", self.radius_m, self.min_distance_m, above=True)
        check_range("low_m_s", self.low_m_s, 0, above=True)
        check_range("high_m_s", self.high_m_s, self.low_m_s)
        check_range("pause_s", self.pause_s, 0)
        x, y = starting_places(self.x_m, self.y_m, self.radius_m)
        object.__setattr__(self, "x_m", x)
        object.__setattr__(self, "y_m", y)
        object.__setattr__(self, "_leg", np.zeros(len(x), dtype=np.intp))
        object.__setattr__(self, "_begin_s", np.zeros(len(x)))

    def _waypoint(self, device: NDArray[np.intp], leg: NDArray[np.intp]) -> Places:
        """Return where a leg begins."""
        inner, outer = self.min_distance_m**2, self.radius_m**2
        share = streams.uniform(self.seed, "mobility.radius", device, leg)
        angle = 2 * np.pi * streams.uniform(self.seed, "mobility.angle", device, leg)
        distance = np.sqrt(inner + (outer - inner) * share)
        first = leg == 0
        return (
            np.where(first, self.x_m[device], distance * np.cos(angle)),
            np.where(first, self.y_m[device], distance * np.sin(angle)),
        )

    def _walk(
        self, device: NDArray[np.intp], leg: NDArray[np.intp]
    ) -> tuple[Places, Places, NDArray[np.float64]]:
        """Return begin and end of a leg and its walking time in seconds."""
        begin, end = self._waypoint(device, leg), self._waypoint(device, leg + 1)
        share = streams.uniform(self.seed, "mobility.speed", device, leg)
        speed = self.low_m_s + (self.high_m_s - self.low_m_s) * share
        return begin, end, np.hypot(end[0] - begin[0], end[1] - begin[1]) / speed

    def _find(
        self, device: NDArray[np.intp], time_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the leg of each device at its time and when that leg began, and remember them."""
        leg, begin_s = self._leg[device], self._begin_s[device]
        earlier = time_s < begin_s
        leg[earlier], begin_s[earlier] = 0, 0.0
        late = np.arange(device.size)
        while late.size:
            *_, walk_s = self._walk(device[late], leg[late])
            end_s = begin_s[late] + (walk_s + self.pause_s)
            over = end_s <= time_s[late]
            late = late[over]
            leg[late] += 1
            begin_s[late] = end_s[over]
        self._leg[device], self._begin_s[device] = leg, begin_s
        return leg, begin_s

    def position_m(self, device: ArrayLike, time_s: ArrayLike) -> Places:
        """Return the coordinates in metres, shape (M,), of devices (M,) at times () or (M,)."""
        number, time = queried(device, time_s, len(self.x_m))
        shape, number, time = number.shape, number.ravel(), time.ravel()
        leg, begin_s = self._find(number, time)
        begin, end, walk_s = self._walk(number, leg)
        walking = time - begin_s < walk_s
        share = np.where(walking, (time - begin_s) / np.where(walking, walk_s, 1), 1)
        x, y = (a + share * (b - a) for a, b in zip(begin, end, strict=True))
        return x.reshape(shape), y.reshape(shape)
