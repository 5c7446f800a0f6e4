"""Sample averages of the round time, cheap enough to optimise over."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from optimizer.problem import IntArray, Problem
from optimizer.rounds import FloatArray
from optimizer.roundtime import EXACT_DEVICES, BoolArray, all_cohorts, cohort_mass
from optimizer.times.base import Toggles, in_series
from optimizer.times.chain import Chain
from optimizer.times.table import Table
from wireless.streams import uniform


class Ends(Protocol):
    """When cohorts of n devices that share one band end."""

    def end_s(self, device: IntArray, rank: FloatArray, present: BoolArray) -> FloatArray:
        """Return when each cohort ends.

        Parameters
        ----------
        device : ndarray of int, shape (n,)
            The devices that share the band.
        rank : ndarray, shape (N,)
            Ranks of the fleet.
        present : ndarray of bool, shape (J, n)
            Members of each cohort among them.

        Returns
        -------
        ndarray, shape (J,)
            Seconds; zero for an empty cohort.
        """
        ...

    def toggles(
        self,
        device: IntArray,
        rank: FloatArray,
        candidate: FloatArray,
        present: BoolArray,
        mass: FloatArray,
        floor_s: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return when cohorts end on average without each device, and with it.

        Parameters
        ----------
        device, rank, present : ndarray
            As above.
        candidate : ndarray, shape (C, N)
            Ranks that each device takes in turn while the others keep theirs.
        mass : ndarray, shape (J,)
            Weights of the cohorts in the mean.
        floor_s : ndarray, shape (J,)
            Times (s) before which no cohort is over: ends of the other bands.

        Returns
        -------
        without_s : ndarray, shape (n,)
            Mean ends (s) without device n.
        with_s : ndarray, shape (C, n)
            Mean ends (s) with it.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Expected round time over fixed cohort draws; see `optimizer.times.base.TimeModel`.

    On linear links it is exact for each cohort under every rule that divides the band anew at
    events, and under equal finish up to the interpolation of a table. On other links the table of
    equal finish stands for all rules: an upper bound under work-conserving, while an equal split,
    proportional division and time division may be slower or faster. Every cell has its own band;
    of downloads in turn each device waits for its own alone.

    Parameters
    ----------
    problem : Problem
        The fleet.
    draw : ndarray, shape (J, N), or None
        Uniform numbers: device n is in cohort j when its number is below c_n q_n. None enumerates
        all cohorts, as is done up to 12 devices.
    ends : Ends
        When a cohort ends.

    Notes
    -----
    Enumerated, the toggles are those of `mean_s`. On draws, both estimate the same mean: `mean_s`
    from the cohorts as drawn, the toggles from each of them with and without the device, so that
    they agree on average only. Source: own derivation.
    """

    problem: Problem
    draw: FloatArray | None
    ends: Ends

    @classmethod
    def build(cls, problem: Problem, seed: int, draws: int | None = None) -> Self:
        """Take the draws, and lay the table where one is needed.

        Parameters
        ----------
        problem : Problem
            The fleet.
        seed : int
            Root seed.
        draws : int, optional
            Cohorts to draw, at least 2; by default 2048, fewer above 150 devices, and 128 at the
            fewest.

        Returns
        -------
        Sampled

        Raises
        ------
        ValueError
            If `draws` is below 2.
        """
        if draws is not None and draws < 2:
            raise ValueError(f"draws is {draws}: give 2 or more")
        n, draw = problem.devices, None
        if draws is not None or n > EXACT_DEVICES:
            number = draws or min(max(300_000 // n, 128), 2048)
            draw = uniform(seed, "plan", np.arange(number)[:, None], np.arange(n))
        ends = Chain(problem) if in_series(problem) else Table.build(problem)
        return cls(problem, draw, ends)

    def mean_s(self, rank: ArrayLike, probability: ArrayLike) -> float:
        """Return the mean round time of the cohorts: see `TimeModel.mean_s`."""
        present, mass = self._cohorts(probability)
        end_s = self._ends_s(np.asarray(rank, dtype=np.float64), present)
        return self.problem.overhead_s + float(mass @ end_s.max(axis=0))

    def toggles(self, rank: ArrayLike, probability: ArrayLike, candidate: ArrayLike) -> Toggles:
        """Return the round time along each device: see `TimeModel.toggles`."""
        k, options = np.asarray(rank, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
        present, mass = self._cohorts(probability)
        end_s = self._ends_s(k, present)
        without_s, with_s = np.empty(self.problem.devices), np.empty(options.shape)
        for cell, device in enumerate(self._cells()):
            floor_s = np.delete(end_s, cell, axis=0).max(axis=0, initial=0.0)
            without_s[device], with_s[:, device] = self.ends.toggles(
                device, k, options, present[:, device], mass, floor_s
            )
        return Toggles(
            self.problem.overhead_s + float(mass @ end_s.max(axis=0)),
            self.problem.overhead_s + without_s,
            self.problem.takes_part(with_s - without_s),
        )

    def _cells(self) -> list[IntArray]:
        """Devices of each cell."""
        cell = self.problem.cell
        return [np.flatnonzero(cell == one) for one in np.unique(cell)]

    def _ends_s(self, rank: FloatArray, present: BoolArray) -> FloatArray:
        """When each cohort (J, N) ends in each cell, shape (cells, J)."""
        return np.stack(
            [self.ends.end_s(device, rank, present[:, device]) for device in self._cells()]
        )

    def _cohorts(self, probability: ArrayLike) -> tuple[BoolArray, FloatArray]:
        """Members (J, N) of the cohorts and their weights (J,)."""
        q = self.problem.takes_part(probability)
        if self.draw is None:
            present = all_cohorts(self.problem.devices)
            return present, cohort_mass(present, q)
        return self.draw < q, np.full(len(self.draw), 1 / len(self.draw))
