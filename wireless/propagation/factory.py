"""Indoor factory (InF) of TR 38.901: sparse or dense clutter, low or high base stations."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.propagation.base import (
    ReportEnvironment,
    by_state,
    check_distances,
    check_range,
    distance_3d_m,
)


@dataclass(frozen=True, slots=True)
class Factory(ReportEnvironment):
    """A factory hall whose machines and shelves ("clutter") surround the devices.

    Parameters
    ----------
    clutter_density : float
        Share of the floor under clutter, above 0 and below 0.4 if sparse, from 0.4 and below 1
        if dense.
    clutter_size_m : float
        Typical size of a piece of clutter, > 0 m.
    clutter_height_m : float
        Effective height of the clutter, above 0 and at most 10 m, below the ceiling.
    ceiling_height_m : float
        Height of the hall, 5 to 25 m if sparse, 5 to 15 m if dense.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.

    References
    ----------
    TR 38.901 (v17): tables 7.2-4 (ranges, clutter sizes), 7.8-7 (default density and height of
    the clutter, heights of hall and antennas), 7.4.1-1 (path loss, shadowing), 7.4.2-1 (line of
    sight), 7.5-6 (decorrelation of shadowing, K) and 7.6.3.1-2 (decorrelation of line of sight).
    """

    name: ClassVar[str]
    bs_height_m: ClassVar[float]
    ut_height_m: ClassVar[float] = 1.5
    rician_k_db: ClassVar[tuple[float, float]] = (7.0, 8.0)
    _shadowing_std_db: ClassVar[tuple[float, float]]
    _decorrelation_m: ClassVar[tuple[float, float]] = (10.0, 10.0)
    _dense: ClassVar[bool]
    # Whether the base station is above the clutter.
    _high: ClassVar[bool]
    # Intercept and slope in dB of the laws whose largest holds out of sight.
    _out_of_sight_laws: ClassVar[tuple[tuple[float, float], ...]]

    clutter_density: float
    clutter_size_m: float
    clutter_height_m: float
    ceiling_height_m: float

    def __post_init__(self) -> None:
        """Check every range."""
        low, high = (0.4, 1.0) if self._dense else (0.0, 0.4)
        lowest = "from" if self._dense else "above"
        if not (low <= self.clutter_density < high and self.clutter_density > 0):
            raise ValueError(
                f"clutter_density must be {lowest} {low:g} and below {high:g} in environment "
                f"{self.name!r}, got {self.clutter_density}"
            )
        if not 0 < self.clutter_size_m < math.inf:
            raise ValueError(
                f"clutter_size_m must be finite and positive, got {self.clutter_size_m}"
            )
        check_range(
            self.name, "ceiling_height_m", self.ceiling_height_m, 5.0, 15.0 if self._dense else 25.0
        )
        if not (0 < self.clutter_height_m <= 10 and self.clutter_height_m < self.ceiling_height_m):
            raise ValueError(
                "clutter_height_m must be above 0, at most 10 and below ceiling_height_m = "
                f"{self.ceiling_height_m:g}, got {self.clutter_height_m}"
            )

    @property
    def los_decorrelation_m(self) -> float:
        """Half the clutter size, in metres."""
        return self.clutter_size_m / 2

    def check(
        self,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
        min_distance_m: float,
        max_distance_m: float,
    ) -> None:
        """Check carrier, heights and distances; see `Environment.check`.

        Notes
        -----
        Devices stand in the clutter; so does a low base station, while a high one is above it
        and at most at the ceiling.
        """
        check_range(self.name, "carrier_hz", carrier_hz, 0.5e9, 100e9)
        clutter = self.clutter_height_m
        low, high = (clutter, self.ceiling_height_m) if self._high else (0.0, clutter)
        check_range(self.name, "bs_height_m", bs_height_m, low, high)
        check_range(self.name, "ut_height_m", ut_height_m, 0.0, clutter)
        if self._high:
            self._check_clearance(bs_height_m, ut_height_m)
        check_distances(
            self.name, min_distance_m, max_distance_m, 1.0, 600.0, bs_height_m - ut_height_m
        )

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,).

        Raises
        ------
        ValueError
            If the base station is to be above the clutter, but the clutter's height is not
            between those of the antennas.
        """
        decay_m = -self.clutter_size_m / math.log1p(-self.clutter_density)
        if self._high:
            self._check_clearance(bs_height_m, ut_height_m)
            # Only the lowest part of the ray, below the top of the clutter, can be blocked.
            decay_m *= (bs_height_m - ut_height_m) / (self.clutter_height_m - ut_height_m)
        return np.asarray(np.exp(-np.asarray(distance_2d_m, dtype=np.float64) / decay_m))

    def path_loss_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the mean path losses in dB, shape (N,)."""
        log_3d = np.log10(distance_3d_m(distance_2d_m, bs_height_m, ut_height_m))
        log_carrier = math.log10(carrier_hz / 1e9)
        in_sight = 31.84 + 19 * log_carrier + 21.5 * log_3d
        laws = self._out_of_sight_laws
        out_of_sight = laws[0][0] + laws[0][1] * log_3d
        for intercept_db, slope_db in laws[1:]:
            out_of_sight = np.maximum(out_of_sight, intercept_db + slope_db * log_3d)
        return by_state(los, in_sight, out_of_sight + 20 * log_carrier)

    def _check_clearance(self, bs_height_m: float, ut_height_m: float) -> None:
        """Check that the clutter's top is between device and base station."""
        if not ut_height_m < self.clutter_height_m <= bs_height_m:
            raise ValueError(
                f"clutter_height_m must be above ut_height_m = {ut_height_m} and at most "
                f"bs_height_m = {bs_height_m} in environment {self.name!r}, "
                f"got {self.clutter_height_m}"
            )


_SPARSE_LOW_LAW = (33.0, 25.5)


@dataclass(frozen=True, slots=True)
class InFSL(Factory):
    """Sparse clutter, low base station; see `Factory`."""

    name: ClassVar[str] = "inf-sl"
    bs_height_m: ClassVar[float] = 1.5
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.3, 5.7)
    _dense: ClassVar[bool] = False
    _high: ClassVar[bool] = False
    _out_of_sight_laws: ClassVar[tuple[tuple[float, float], ...]] = (_SPARSE_LOW_LAW,)

    clutter_density: float = 0.2
    clutter_size_m: float = 10.0
    clutter_height_m: float = 2.0
    ceiling_height_m: float = 10.0


@dataclass(frozen=True, slots=True)
class InFDL(Factory):
    """Dense clutter, low base station; see `Factory`."""

    name: ClassVar[str] = "inf-dl"
    bs_height_m: ClassVar[float] = 1.5
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.3, 7.2)
    _dense: ClassVar[bool] = True
    _high: ClassVar[bool] = False
    _out_of_sight_laws: ClassVar[tuple[tuple[float, float], ...]] = (
        _SPARSE_LOW_LAW,
        (18.6, 35.7),
    )

    clutter_density: float = 0.6
    clutter_size_m: float = 2.0
    clutter_height_m: float = 6.0
    ceiling_height_m: float = 10.0


@dataclass(frozen=True, slots=True)
class InFSH(Factory):
    """Sparse clutter, high base station; see `Factory`."""

    name: ClassVar[str] = "inf-sh"
    bs_height_m: ClassVar[float] = 8.0
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.3, 5.9)
    _dense: ClassVar[bool] = False
    _high: ClassVar[bool] = True
    _out_of_sight_laws: ClassVar[tuple[tuple[float, float], ...]] = ((32.4, 23.0),)

    clutter_density: float = 0.2
    clutter_size_m: float = 10.0
    clutter_height_m: float = 2.0
    ceiling_height_m: float = 10.0


@dataclass(frozen=True, slots=True)
class InFDH(Factory):
    """Dense clutter, high base station; see `Factory`."""

    name: ClassVar[str] = "inf-dh"
    bs_height_m: ClassVar[float] = 8.0
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.3, 4.0)
    _dense: ClassVar[bool] = True
    _high: ClassVar[bool] = True
    _out_of_sight_laws: ClassVar[tuple[tuple[float, float], ...]] = ((33.63, 21.9),)

    clutter_density: float = 0.6
    clutter_size_m: float = 2.0
    clutter_height_m: float = 6.0
    ceiling_height_m: float = 10.0
