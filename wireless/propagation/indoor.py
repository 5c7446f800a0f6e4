"""Indoor hotspot (InH) of TR 38.901: open and mixed offices."""

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


class Office(ReportEnvironment):
    """What both offices share, which is everything but the probability of line of sight.

    References
    ----------
    TR 38.901 (v17): tables 7.4.1-1 (path loss, shadowing), 7.4.2-1 (line of sight), 7.5-6
    (decorrelation of shadowing, K) and 7.6.3.1-2 (decorrelation of line of sight).
    """

    __slots__ = ()

    name: ClassVar[str]
    bs_height_m: ClassVar[float] = 3.0
    ut_height_m: ClassVar[float] = 1.0
    los_decorrelation_m: ClassVar[float] = 10.0
    rician_k_db: ClassVar[tuple[float, float]] = (7.0, 4.0)
    _shadowing_std_db: ClassVar[tuple[float, float]] = (3.0, 8.03)
    _decorrelation_m: ClassVar[tuple[float, float]] = (10.0, 6.0)

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
        The heights enter through the 3-D distance alone, which the report bounds by 150 m.
        """
        check_range(self.name, "carrier_hz", carrier_hz, 0.5e9, 100e9)
        check_range(self.name, "bs_height_m", bs_height_m, 0.0, 150.0)
        check_range(self.name, "ut_height_m", ut_height_m, 0.0, 150.0)
        check_distances(
            self.name, min_distance_m, max_distance_m, 1.0, 150.0, bs_height_m - ut_height_m
        )

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
        in_sight = 32.4 + 20 * log_carrier + 17.3 * log_3d
        out_of_sight = 17.3 + 24.9 * log_carrier + 38.3 * log_3d
        return by_state(los, in_sight, out_of_sight)


def _two_piece_los_probability(
    distance_2d_m: ArrayLike,
    certain_m: float,
    near_decay_m: float,
    switch_m: float,
    far_factor: float,
    far_decay_m: float,
) -> NDArray[np.float64]:
    """LOS probability 1 up to one distance, then exponential with another decay from a second."""
    distance = np.asarray(distance_2d_m, dtype=np.float64)
    near = np.exp(-np.maximum(distance - certain_m, 0) / near_decay_m)
    # Clipped where the other piece holds, so that no exponential overflows.
    far = far_factor * np.exp(-np.maximum(distance - switch_m, 0) / far_decay_m)
    return np.where(distance <= switch_m, near, far)


@dataclass(frozen=True, slots=True)
class InHOpen(Office):
    """Open office.

    Notes
    -----
    The probability of line of sight steps up at 49 m, from 0.5372 to 0.54, as in the report.
    """

    name: ClassVar[str] = "inh-open"

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,)."""
        del bs_height_m, ut_height_m  # not in the formula
        return _two_piece_los_probability(distance_2d_m, 5.0, 70.8, 49.0, 0.54, 211.7)


@dataclass(frozen=True, slots=True)
class InHMixed(Office):
    """Mixed office: rooms, corridors and open areas."""

    name: ClassVar[str] = "inh-mixed"

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,)."""
        del bs_height_m, ut_height_m  # not in the formula
        return _two_piece_los_probability(distance_2d_m, 1.2, 4.7, 6.5, 0.32, 32.6)
