"""Sites on a hexagonal grid, the wrap-around that removes their edge, and devices dropped on them.

A cluster of R rings has S = 1, 7 or 19 sites, neighbours at distance D, and copies of it tile the
plane. With wrap-around every site serves and disturbs a place from its nearest copy, so that an
outer cell sees as many neighbours as the central one (SEAMCAT handbook, section 7.6.3). In the
complex plane the sites are D (m + n w) with w = exp(i pi / 3), and the copies are displaced by the
triangular lattice of T = D (R + 1 + R w), whose |T|^2 = S D^2 gives each copy the room of S cells
(own derivation; T is the handbook's (3, 2) for 19 sites).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wireless import streams

_ROOT3 = math.sqrt(3)

# Unit steps to the six neighbours in the lattice coordinates (i, j), counter-clockwise.
_STEPS = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))


def _nearest_lattice_point(
    u: NDArray[np.float64], v: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the nearest point of the unit triangular lattice to each (u, v).

    The lattice is a grid of 1 by sqrt(3) rectangles and a second one through their centres, and in
    each of the two the nearest point is found by rounding.
    """
    corner_u, corner_v = np.rint(u), _ROOT3 * np.rint(v / _ROOT3)
    centre_u, centre_v = np.rint(u - 0.5) + 0.5, _ROOT3 * (np.rint(v / _ROOT3 - 0.5) + 0.5)
    corner = (u - corner_u) ** 2 + (v - corner_v) ** 2 <= (u - centre_u) ** 2 + (v - centre_v) ** 2
    return np.where(corner, corner_u, centre_u), np.where(corner, corner_v, centre_v)


@dataclass(frozen=True, slots=True)
class Layout:
    """Hexagonal sites around the origin, numbered from the centre outwards.

    Parameters
    ----------
    rings : {0, 1, 2}
        Rings of sites around the central one: 1, 7 or 19 sites in all.
    inter_site_m : float
        Distance between neighbouring sites in metres, > 0.
    wrap : bool
        Whether distances wrap around the edge of the cluster.

    Raises
    ------
    ValueError
        If a value is outside its range; the message names the field.
    """

    rings: int
    inter_site_m: float
    wrap: bool = True

    def __post_init__(self) -> None:
        """Check every range."""
        if self.rings not in (0, 1, 2):
            raise ValueError(f"rings must be 0, 1 or 2, got {self.rings}")
        if not 0 < self.inter_site_m < math.inf:
            raise ValueError(f"inter_site_m must be finite and positive, got {self.inter_site_m}")

    def __len__(self) -> int:
        """Return the number of sites S."""
        return 1 + 3 * self.rings * (self.rings + 1)

    def _place(self, lattice: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the places in metres of lattice coordinates (i, j), shape (..., 2)."""
        i, j = np.moveaxis(np.asarray(lattice, dtype=np.float64), -1, 0)
        return self.inter_site_m * (i + j / 2), self.inter_site_m * (_ROOT3 / 2) * j

    def _sites(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the places of the sites: the centre, then each ring counter-clockwise."""
        lattice = [(0, 0)]
        for ring in range(1, self.rings + 1):
            for side, (i, j) in enumerate(_STEPS):
                # The side of a ring runs in the direction two steps on from the one to its corner.
                along_i, along_j = _STEPS[(side + 2) % 6]
                lattice += [(ring * i + k * along_i, ring * j + k * along_j) for k in range(ring)]
        return self._place(lattice)

    @property
    def x_m(self) -> NDArray[np.float64]:
        """Eastings of the sites in metres, shape (S,)."""
        return self._sites()[0]

    @property
    def y_m(self) -> NDArray[np.float64]:
        """Northings of the sites in metres, shape (S,)."""
        return self._sites()[1]

    @property
    def translations_m(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Eastings and northings in metres from the cluster to its six nearest copies, (6,) each.

        Counter-clockwise; integer multiples of the first two add up to every other copy's.
        """
        # Multiplying by w, a turn of 60 degrees, takes (i, j) to (-j, i + j).
        turns = [(self.rings + 1, self.rings)]
        for _ in range(5):
            i, j = turns[-1]
            turns.append((-j, i + j))
        return self._place(turns)

    def _shortest(
        self, dx_m: NDArray[np.float64], dy_m: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the shortest of all displacements that end on copies of one place."""
        if not self.wrap:
            return dx_m, dy_m
        east, north = (float(values[0]) for values in self.translations_m)
        # In units of the first translation and turned into its direction, the copies of a place
        # lie on the unit triangular lattice.
        area = east**2 + north**2
        u, v = (dx_m * east + dy_m * north) / area, (dy_m * east - dx_m * north) / area
        a, b = _nearest_lattice_point(u, v)
        return dx_m - (a * east - b * north), dy_m - (a * north + b * east)

    def displacement(
        self, x_m: ArrayLike, y_m: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the way from each site, or with wrap-around its nearest copy, to each place.

        Parameters
        ----------
        x_m, y_m : array_like, shape (N,)
            Places in metres, anywhere in the plane.

        Returns
        -------
        tuple of ndarray, shape (N, S)
            Eastings and northings in metres.
        """
        x, y = np.broadcast_arrays(np.asarray(x_m, np.float64), np.asarray(y_m, np.float64))
        dx, dy = (np.empty((*x.shape, len(self))) for _ in range(2))
        # One site at a time, for the memory of a million devices.
        for site, (east, north) in enumerate(zip(*self._sites(), strict=True)):
            dx[..., site], dy[..., site] = self._shortest(x - east, y - north)
        return dx, dy

    def distance_m(self, x_m: ArrayLike, y_m: ArrayLike) -> NDArray[np.float64]:
        """Return the horizontal distance from each site to each place.

        Parameters
        ----------
        x_m, y_m : array_like, shape (N,)
            Places in metres, anywhere in the plane.

        Returns
        -------
        ndarray, shape (N, S)
            Distances in metres, with wrap-around those to the nearest copies of the sites.
        """
        x, y = np.broadcast_arrays(np.asarray(x_m, np.float64), np.asarray(y_m, np.float64))
        distance = np.empty((*x.shape, len(self)))
        for site, (east, north) in enumerate(zip(*self._sites(), strict=True)):
            distance[..., site] = np.hypot(*self._shortest(x - east, y - north))
        return distance

    def draw(
        self, seed: int, device: ArrayLike, min_distance_m: float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw places uniform over the hexagons of all sites, less a disc around each site.

        Parameters
        ----------
        seed : int
            Root seed of the run.
        device : array_like of int, shape (N,)
            Numbers of the devices; a device's place depends on its own number alone.
        min_distance_m : float
            Smallest distance to the site of the hexagon in metres, from 0 to below half the
            distance between sites. It changes the places of those devices alone that the disc
            would hold.

        Returns
        -------
        tuple of ndarray, shape (N,)
            Eastings and northings in metres.

        Raises
        ------
        ValueError
            If the smallest distance is outside its range.
        """
        if not 0 <= min_distance_m < self.inter_site_m / 2:
            raise ValueError(
                f"min_distance_m must be from 0 to below half of inter_site_m = "
                f"{self.inter_site_m}, got {min_distance_m}"
            )
        number = np.asarray(device)
        flat = number.reshape(-1)
        site = (len(self) * streams.uniform(seed, "layout.site", flat)).astype(np.intp)
        x, y = np.empty(flat.shape), np.empty(flat.shape)
        pending = np.arange(flat.size)
        attempt = 0
        while pending.size:
            x[pending], y[pending] = self._draw_hexagon(seed, flat[pending], attempt)
            pending = pending[np.hypot(x[pending], y[pending]) < min_distance_m]
            attempt += 1
        east, north = self._sites()
        return (x + east[site]).reshape(number.shape), (y + north[site]).reshape(number.shape)

    def _draw_hexagon(
        self, seed: int, device: NDArray[np.integer], attempt: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return places uniform over the hexagon around the origin, shape (N,)."""
        # Three corners, 120 degrees apart, span three equal rhombi that fill the hexagon.
        turn = np.pi / 6 + 2 * np.pi / 3 * np.arange(3)
        corner_x = self.inter_site_m / _ROOT3 * np.cos(turn)
        corner_y = self.inter_site_m / _ROOT3 * np.sin(turn)
        first = (3 * streams.uniform(seed, "layout.rhombus", device, attempt)).astype(np.intp)
        second = (first + 1) % 3
        a, b = (streams.uniform(seed, "layout.place", device, attempt, side) for side in (0, 1))
        return a * corner_x[first] + b * corner_x[second], a * corner_y[first] + b * corner_y[
            second
        ]
