"""Path losses of a single slope: a fitted logarithm of distance, and free space."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import speed_of_light

from wireless.propagation.base import check_distances, check_range, distance_3d_m


@dataclass(frozen=True, slots=True)
class LogDistance:
    """Path loss that rises with the logarithm of distance, the same in and out of sight.

    Parameters
    ----------
    intercept_db : float
        Path loss at the reference distance in dB; it holds for one carrier, by default 2 GHz.
    reference_distance_m : float
        Reference distance, > 0 m.
    exponent : float
        Path-loss exponent, >= 1; the slope is ten times that in dB per decade.
    std_db : float
        Standard deviation of shadowing in dB, >= 0.
    decorrelation_m : float
        Decorrelation distance of shadowing, > 0 m.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.

    Notes
    -----
    The distance is the horizontal one; carrier and heights do not enter. Nothing is in line of
    sight, since the law was fitted to all places of a macrocell together and most are not; hence
    there is no K factor and fading is Rayleigh.

    References
    ----------
    The defaults, 128.1 + 37.6 lg(d/km) dB, are the macrocell of 3GPP TR 36.942 at 2 GHz with an
    antenna 15 m above the roofs. With 8 dB of shadowing, which decorrelates over 50 m, they are
    the macrocell of case 1 in TR 36.814, and a usual choice in work on wireless federated
    learning.
    """

    name: ClassVar[str] = "log-distance"
    bs_height_m: ClassVar[float] = 25.0
    ut_height_m: ClassVar[float] = 1.5
    rician_k_db: ClassVar[None] = None

    intercept_db: float = 128.1
    reference_distance_m: float = 1000.0
    exponent: float = 3.76
    std_db: float = 8.0
    decorrelation_m: float = 50.0

    def __post_init__(self) -> None:
        """Check every range."""
        largest = math.inf
        check_range(self.name, "intercept_db", self.intercept_db, 0.0, largest)
        check_range(self.name, "exponent", self.exponent, 1.0, largest)
        check_range(self.name, "std_db", self.std_db, 0.0, largest)
        for name in ("reference_distance_m", "decorrelation_m"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and positive, got {value}")

    @property
    def los_decorrelation_m(self) -> float:
        """The distance of shadowing; the state never changes, so any would do."""
        return self.decorrelation_m

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
        A fitted law has no physical range but one: a device must not receive more power than
        was sent, which bounds the smallest distance.
        """
        largest = math.inf
        check_range(self.name, "carrier_hz", carrier_hz, 1.0, largest)
        check_range(self.name, "bs_height_m", bs_height_m, 0.0, largest)
        check_range(self.name, "ut_height_m", ut_height_m, 0.0, largest)
        lossless_m = self.reference_distance_m * 10 ** (-self.intercept_db / (10 * self.exponent))
        check_distances(self.name, min_distance_m, max_distance_m, lossless_m, largest)

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return zeros, shape (N,)."""
        del bs_height_m, ut_height_m
        return np.zeros(np.shape(distance_2d_m))

    def path_loss_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the mean path losses in dB, shape (N,)."""
        del carrier_hz, bs_height_m, ut_height_m
        distance, _ = np.broadcast_arrays(distance_2d_m, los)
        decades = np.log10(distance / self.reference_distance_m)
        return np.asarray(self.intercept_db + 10 * self.exponent * decades)

    def shadowing_std_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the standard deviations of shadowing in dB, shape (N,)."""
        del carrier_hz, bs_height_m, ut_height_m
        return np.full(np.broadcast(distance_2d_m, los).shape, self.std_db)

    def shadowing_decorrelation_m(self, los: ArrayLike) -> NDArray[np.float64]:
        """Return the decorrelation distances of shadowing in metres, shape (N,)."""
        return np.full(np.shape(los), self.decorrelation_m)


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Nothing but two isotropic antennas: always in line of sight, no shadowing, no fading.

    References
    ----------
    H. T. Friis, "A note on a simple transmission formula", Proceedings of the IRE, 1946.
    """

    name: ClassVar[str] = "free-space"
    bs_height_m: ClassVar[float] = 25.0
    ut_height_m: ClassVar[float] = 1.5
    # The state never changes and shadowing is zero: any distance would do.
    los_decorrelation_m: ClassVar[float] = 50.0
    rician_k_db: ClassVar[tuple[float, float]] = (math.inf, 0.0)

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
        The formula is one of the far field, which we take to begin a wavelength away.
        """
        largest = math.inf
        check_range(self.name, "carrier_hz", carrier_hz, 1.0, largest)
        check_range(self.name, "bs_height_m", bs_height_m, 0.0, largest)
        check_range(self.name, "ut_height_m", ut_height_m, 0.0, largest)
        check_distances(
            self.name,
            min_distance_m,
            max_distance_m,
            speed_of_light / carrier_hz,
            largest,
            bs_height_m - ut_height_m,
        )

    def los_probability(
        self, distance_2d_m: ArrayLike, bs_height_m: float, ut_height_m: float
    ) -> NDArray[np.float64]:
        """Return ones, shape (N,)."""
        del bs_height_m, ut_height_m
        return np.ones(np.shape(distance_2d_m))

    def path_loss_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return the path losses in dB, shape (N,)."""
        distance, _ = np.broadcast_arrays(distance_2d_m, los)
        wavelengths = distance_3d_m(distance, bs_height_m, ut_height_m) * (
            carrier_hz / speed_of_light
        )
        return np.asarray(20 * np.log10(4 * math.pi * wavelengths))

    def shadowing_std_db(
        self,
        distance_2d_m: ArrayLike,
        los: ArrayLike,
        carrier_hz: float,
        bs_height_m: float,
        ut_height_m: float,
    ) -> NDArray[np.float64]:
        """Return zeros, shape (N,)."""
        del carrier_hz, bs_height_m, ut_height_m
        return np.zeros(np.broadcast(distance_2d_m, los).shape)

    def shadowing_decorrelation_m(self, los: ArrayLike) -> NDArray[np.float64]:
        """Return one distance in metres for all, shape (N,); shadowing is zero."""
        return np.full(np.shape(los), self.los_decorrelation_m)
