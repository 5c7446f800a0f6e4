"""What every propagation environment offers, and what those of TR 38.901 share."""

import math
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The report computes its breakpoint distances with this rounded value (table 7.4.1-1, note 1).
REPORT_LIGHT_M_PER_S = 3e8


class Environment(Protocol):
    """Large-scale propagation between one base station and N devices.

    Distances are horizontal ("2-D") and in metres, shape (N,); lines of sight are bool, shape
    (N,); both broadcast. Carrier and antenna heights are scalars. The methods compute, whatever
    the ranges for which a model was fitted: `check` holds a deployment against those once.
    """

    name: ClassVar[str]
    """Name that scenarios use."""
    bs_height_m: ClassVar[float]
    """Default antenna height of the base station in metres."""
    ut_height_m: ClassVar[float]
    """Default antenna height of the devices in metres."""

    @property
    def los_decorrelation_m(self) -> float:
        """Distance in metres over which the line-of-sight state decorrelates to 1/e."""
        ...

    @property
    def rician_k_db(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the Rician K factor in dB, in line of sight.

        Out of sight there is none: fading is Rayleigh. None where nothing is ever in sight;
        a mean of infinity where nothing scatters, hence nothing fades.
        """
        ...

    def check(
        self,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
        min_distance_m: float,
        max_distance_m: float,
    ) -> None:
        """Check a deployment against the ranges of the model.

        Parameters
        ----------
        carrier_hz : float
            Carrier frequency in Hz.
        bs_height_m, ut_height_m : float
            Antenna heights of the base station and of the devices in metres.
        min_distance_m, max_distance_m : float
            Smallest and largest horizontal distance of a device in metres.

        Raises
        ------
        ValueError
            If a value is outside its range; the message names it.
        """
        ...

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return the probabilities of line of sight, shape (N,)."""
        ...

    def path_loss_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the mean path losses in dB, without shadowing, shape (N,)."""
        ...

    def shadowing_std_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the standard deviations of log-normal shadowing in dB, shape (N,)."""
        ...

    def shadowing_decorrelation_m(self, los: ArrayLike) -> NDArray[np.float64]:
        """Return the distances in metres over which shadowing decorrelates to 1/e, shape (N,)."""
        ...


class ReportEnvironment:
    """Shadowing of the environments of TR 38.901: one value per line-of-sight state."""

    __slots__ = ()

    _shadowing_std_db: ClassVar[tuple[float, float]]
    _decorrelation_m: ClassVar[tuple[float, float]]

    def shadowing_std_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the standard deviations of shadowing in dB (table 7.4.1-1), shape (N,)."""
        del carrier_hz, bs_height_m, ut_height_m  # only the rural macrocell depends on them
        _, sight = np.broadcast_arrays(distance_2d_m, los)
        return np.where(sight, *self._shadowing_std_db)

    def shadowing_decorrelation_m(self, los: ArrayLike) -> NDArray[np.float64]:
        """Return the decorrelation distances of shadowing in metres (table 7.5-6), shape (N,)."""
        return np.where(los, *self._decorrelation_m)


def distance_3d_m(
    distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
) -> NDArray[np.float64]:
    """Return the distances between the antennas in metres.

    Parameters
    ----------
    distance_2d_m : array_like, shape (N,)
        Horizontal distances in metres.
    bs_height_m, ut_height_m : float
        Antenna heights in metres.

    Returns
    -------
    ndarray, shape (N,)
        Distances in metres.
    """
    distance = np.asarray(distance_2d_m, dtype=np.float64)
    return np.asarray(np.hypot(distance, bs_height_m - ut_height_m))


def by_state(
    los: ArrayLike, in_sight_db: NDArray[np.float64], out_of_sight_db: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the path losses of a state; out of sight never loses less than in sight.

    Parameters
    ----------
    los : array_like of bool, shape (N,)
        Whether the device is in line of sight.
    in_sight_db, out_of_sight_db : ndarray, shape (N,)
        Path losses in dB by the formulas of the two states.

    Returns
    -------
    ndarray, shape (N,)
        Path losses in dB.
    """
    return np.where(los, in_sight_db, np.maximum(in_sight_db, out_of_sight_db))


def check_range(environment: str, name: str, value: float, low: float, high: float) -> None:
    """Check that a finite value lies in a closed range.

    Parameters
    ----------
    environment, name : str
        Environment and field, for the message.
    value, low, high : float
        Value and its bounds.

    Raises
    ------
    ValueError
        If the value is not finite or outside the range.
    """
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(
            f"{name} must be finite, from {low:g} to {high:g} in environment {environment!r}, "
            f"got {value}"
        )


def check_distances(
    environment: str,
    min_distance_m: float,
    max_distance_m: float,
    low_m: float,
    high_m: float,
    height_m: float = 0.0,
) -> None:
    """Check that all distances between two horizontal ones lie in a closed range.

    Parameters
    ----------
    environment : str
        Name of the environment, for the message.
    min_distance_m, max_distance_m : float
        Smallest and largest horizontal distance in metres.
    low_m, high_m : float
        Bounds in metres.
    height_m : float
        Difference of the antenna heights if the bounds are of the 3-D distance.

    Raises
    ------
    ValueError
        If the distances are negative or out of order, or a bound is broken.
    """
    check_range(environment, "max_distance_m", max_distance_m, 0.0, math.inf)
    check_range(environment, "min_distance_m", min_distance_m, 0.0, max_distance_m)
    for name, value in (("min_distance_m", min_distance_m), ("max_distance_m", max_distance_m)):
        if not low_m <= math.hypot(value, height_m) <= high_m:
            kind = "3-D distance" if height_m else "distance"
            raise ValueError(
                f"{name} must give a {kind} from {low_m:g} to {high_m:g} m in environment "
                f"{environment!r}, got {value}"
            )
