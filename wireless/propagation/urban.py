"""Urban macrocell (UMa) and street canyon (UMi) of TR 38.901."""

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
    """Breakpoint d'_BP for an effective environment height of 1 m (table 7.4.1-1, note 1)."""
    return 4 * (bs_height_m - 1) * (ut_height_m - 1) * carrier_hz / REPORT_LIGHT_M_PER_S


def _two_slope_db(
    distance_2d_m: NDArray[np.float64],
    log_3d: NDArray[np.float64],
    near_slope_db: float,
    carrier_hz: float,
    bs_height_m: float,
    ut_height_m: float,
) -> NDArray[np.float64]:
    """Distance term of a path loss that rises by 40 dB a decade past the breakpoint."""
    breakpoint_m = _breakpoint_distance_m(carrier_hz, bs_height_m, ut_height_m)
    # The report's 9 and 9.5 dB are half of what makes the two slopes meet at the breakpoint.
    drop_db = (40 - near_slope_db) * math.log10(math.hypot(breakpoint_m, bs_height_m - ut_height_m))
    return np.where(distance_2d_m <= breakpoint_m, near_slope_db * log_3d, 40 * log_3d - drop_db)


def _ground_los_probability(
    distance_2d_m: ArrayLike, decay_m: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of at least 18 m, and the LOS probability at them near the ground."""
    # Up to 18 m the report sets 1, which the formula gives at 18 m.
    distance = np.maximum(np.asarray(distance_2d_m, dtype=np.float64), 18)
    near = 18 / distance
    return distance, near + np.exp(-distance / decay_m) * (1 - near)


@dataclass(frozen=True, slots=True)
class UMa(ReportEnvironment):
    """Urban macrocell, base station above the roofs.

    Notes
    -----
    The breakpoint is that of an effective environment height of 1 m. For devices above 13 m the
    report draws it at random per link, which only shortens the breakpoint distance of some links
    in line of sight.

    References
    ----------
    TR 38.901 (v17): tables 7.4.1-1 (path loss, shadowing), 7.4.2-1 (line of sight), 7.5-6
    (decorrelation of shadowing, K) and 7.6.3.1-2 (decorrelation of line of sight).
    """

    name: ClassVar[str] = "uma"
    bs_height_m: ClassVar[float] = 25.0
    ut_height_m: ClassVar[float] = 1.5
    los_decorrelation_m: ClassVar[float] = 50.0
    rician_k_db: ClassVar[tuple[float, float]] = (9.0, 3.5)
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.0, 6.0)
    _decorrelation_m: ClassVar[tuple[float, float]] = (37.0, 50.0)

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
        The report gives formulas with the base station's height in them, and 25 m as its value.
        10 to 150 m are the bounds of TR 36.873, where they come from.
        """
        check_range(self.name, "carrier_hz", carrier_hz, 0.5e9, 100e9)
        check_range(self.name, "bs_height_m", bs_height_m, 10.0, 150.0)
        check_range(self.name, "ut_height_m", ut_height_m, 1.5, 22.5)
        check_distances(self.name, min_distance_m, max_distance_m, 10.0, 5000.0)

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,).

        Raises
        ------
        ValueError
            If the devices are above 23 m, where the report gives no probability.
        """
        del bs_height_m  # not in the formula
        if ut_height_m > 23:
            raise ValueError(f"ut_height_m must be at most 23, got {ut_height_m}")
        distance, probability = _ground_los_probability(distance_2d_m, 63.0)
        if ut_height_m > 13:
            lift = ((ut_height_m - 13) / 10) ** 1.5
            # At 18 m the product would be just above 1.
            probability = np.minimum(
                probability * (1 + lift * 1.25 * (distance / 100) ** 3 * np.exp(-distance / 150)),
                1.0,
            )
        return probability

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
        log_3d = np.log10(distance_3d_m(distance, bs_height_m, ut_height_m))
        carrier_db = 20 * math.log10(carrier_hz / 1e9)
        in_sight = (
            28
            + carrier_db
            + _two_slope_db(distance, log_3d, 22.0, carrier_hz, bs_height_m, ut_height_m)
        )
        out_of_sight = 13.54 + carrier_db - 0.6 * (ut_height_m - 1.5) + 39.08 * log_3d
        return by_state(los, in_sight, out_of_sight)


@dataclass(frozen=True, slots=True)
class UMi(ReportEnvironment):
    """Urban microcell in a street canyon, base station below the roofs.

    References
    ----------
    TR 38.901 (v17): tables 7.4.1-1 (path loss, shadowing), 7.4.2-1 (line of sight), 7.5-6
    (decorrelation of shadowing, K) and 7.6.3.1-2 (decorrelation of line of sight).
    """

    name: ClassVar[str] = "umi"
    bs_height_m: ClassVar[float] = 10.0
    ut_height_m: ClassVar[float] = 1.5
    los_decorrelation_m: ClassVar[float] = 50.0
    rician_k_db: ClassVar[tuple[float, float]] = (9.0, 5.0)
    _shadowing_std_db: ClassVar[tuple[float, float]] = (4.0, 7.82)
    _decorrelation_m: ClassVar[tuple[float, float]] = (10.0, 13.0)

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
        The report gives 10 m as the base station's height. The bounds are our own: from a lamp
        post of 3 m to the roof of the report's tallest building, 8 floors of 3 m.
        """
        check_range(self.name, "carrier_hz", carrier_hz, 0.5e9, 100e9)
        check_range(self.name, "bs_height_m", bs_height_m, 3.0, 24.0)
        check_range(self.name, "ut_height_m", ut_height_m, 1.5, 22.5)
        check_distances(self.name, min_distance_m, max_distance_m, 10.0, 5000.0)

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,)."""
        del bs_height_m, ut_height_m  # not in the formula
        return _ground_los_probability(distance_2d_m, 36.0)[1]

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
        log_3d = np.log10(distance_3d_m(distance, bs_height_m, ut_height_m))
        log_carrier = math.log10(carrier_hz / 1e9)
        in_sight = (
            32.4
            + 20 * log_carrier
            + _two_slope_db(distance, log_3d, 21.0, carrier_hz, bs_height_m, ut_height_m)
        )
        out_of_sight = 22.4 + 21.3 * log_carrier - 0.3 * (ut_height_m - 1.5) + 35.3 * log_3d
        return by_state(los, in_sight, out_of_sight)
