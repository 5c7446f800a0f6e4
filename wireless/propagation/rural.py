"""Rural macrocell (RMa) of TR 38.901."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless.propagation.base import (
    REPORT_LIGHT_M_PER_S,
    ReportEnvironment,
    by_state,
    check_distances,
    check_range,
    distance_3d_m,
)


def _breakpoint_distance_m(carrier_hz: float, bs_height_m: float, ut_height_m: float) -> float:
    """Breakpoint d_BP (table 7.4.1-1, note 5)."""
    return 2 * math.pi * bs_height_m * ut_height_m * carrier_hz / REPORT_LIGHT_M_PER_S


@dataclass(frozen=True, slots=True)
class RMa(ReportEnvironment):
    """Rural macrocell.

    Parameters
    ----------
    street_width_m : float
        Average width of the streets W, 5 to 50 m.
    building_height_m : float
        Average height of the buildings h, 5 to 50 m.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.

    Notes
    -----
    At the breakpoint the report takes the horizontal distance for the 3-D one, so that the path
    loss in line of sight steps there: by less than 0.02 dB for the default heights.

    References
    ----------
    TR 38.901 (v17): tables 7.4.1-1 (path loss, shadowing), 7.4.2-1 (line of sight), 7.5-6
    (decorrelation of shadowing, K) and 7.6.3.1-2 (decorrelation of line of sight).
    """

    name: ClassVar[str] = "rma"
    bs_height_m: ClassVar[float] = 35.0
    ut_height_m: ClassVar[float] = 1.5
    los_decorrelation_m: ClassVar[float] = 60.0
    rician_k_db: ClassVar[tuple[float, float]] = (7.0, 4.0)
    _near_shadowing_std_db: ClassVar[float] = 4.0
    # In line of sight past the breakpoint, and out of sight.
    _shadowing_std_db: ClassVar[tuple[float, float]] = (6.0, 8.0)
    _decorrelation_m: ClassVar[tuple[float, float]] = (37.0, 120.0)

    street_width_m: float = 20.0
    building_height_m: float = 5.0

    def __post_init__(self) -> None:
        """Check both ranges."""
        check_range(self.name, "street_width_m", self.street_width_m, 5.0, 50.0)
        check_range(self.name, "building_height_m", self.building_height_m, 5.0, 50.0)

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
        The report goes to 10 km in line of sight and to 5 km out of it. A cell has devices in
        both states, so 5 km is the bound here. The carrier ends at 30 GHz (note 2).
        """
        check_range(self.name, "carrier_hz", carrier_hz, 0.5e9, 30e9)
        check_range(self.name, "bs_height_m", bs_height_m, 10.0, 150.0)
        check_range(self.name, "ut_height_m", ut_height_m, 1.0, 10.0)
        check_distances(self.name, min_distance_m, max_distance_m, 10.0, 5000.0)

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,)."""
        del bs_height_m, ut_height_m  # not in the formula
        distance = np.asarray(distance_2d_m, dtype=np.float64)
        return np.asarray(np.exp(-np.maximum(distance - 10, 0) / 1000))

    def path_loss_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the mean path losses in dB, shape (N,)."""
        distance = np.asarray(distance_2d_m, dtype=np.float64)
        distance_3d = distance_3d_m(distance, bs_height_m, ut_height_m)
        log_3d = np.log10(distance_3d)
        log_carrier = math.log10(carrier_hz / 1e9)
        breakpoint_m = _breakpoint_distance_m(carrier_hz, bs_height_m, ut_height_m)
        log_breakpoint = math.log10(breakpoint_m)

        before = self._near_db(distance_3d, log_3d, log_carrier)
        at_breakpoint = self._near_db(
            np.asarray(breakpoint_m), np.asarray(log_breakpoint), log_carrier
        )
        after = at_breakpoint + 40 * (log_3d - log_breakpoint)
        in_sight = np.where(distance <= breakpoint_m, before, after)

        log_bs = math.log10(bs_height_m)
        out_of_sight = (
            161.04
            - 7.1 * math.log10(self.street_width_m)
            + 7.5 * math.log10(self.building_height_m)
            - (24.37 - 3.7 * (self.building_height_m / bs_height_m) ** 2) * log_bs
            + (43.42 - 3.1 * log_bs) * (log_3d - 3)
            + 20 * log_carrier
            - (3.2 * math.log10(11.75 * ut_height_m) ** 2 - 4.97)
        )
        return by_state(los, in_sight, out_of_sight)

    def shadowing_std_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the standard deviations of shadowing in dB (table 7.4.1-1), shape (N,)."""
        breakpoint_m = _breakpoint_distance_m(carrier_hz, bs_height_m, ut_height_m)
        past_breakpoint, out_of_sight = self._shadowing_std_db
        near = np.asarray(distance_2d_m) <= breakpoint_m
        return np.where(
            los, np.where(near, self._near_shadowing_std_db, past_breakpoint), out_of_sight
        )

    def _near_db(
        self,
        distance_3d_m: NDArray[np.float64],
        log_3d: NDArray[np.float64],
        log_carrier: float,
    ) -> NDArray[np.float64]:
        """Path loss PL1 in line of sight up to the breakpoint."""
        height = self.building_height_m**1.72
        slope_db = 20 + min(0.03 * height, 10)
        offset_db = 20 * (math.log10(40 * math.pi / 3) + log_carrier) - min(0.044 * height, 14.77)
        return np.asarray(
            offset_db
            + slope_db * log_3d
            + 0.002 * math.log10(self.building_height_m) * distance_3d_m
        )
