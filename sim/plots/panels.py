"""Panels side by side, one per run."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.errors import InputError
from sim.rundir import RunFiles

_MOST = 6


def panels(runs: Sequence[RunFiles], size_inches: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel per run, titled by name and seed.

    Raises
    ------
    InputError
        If there are more runs than fit.
    """
    if len(runs) > _MOST:
        raise InputError(f"{len(runs)} runs: a picture of this kind shows at most {_MOST}")
    figure = Figure(figsize=(size_inches[0] * len(runs), size_inches[1]), layout="constrained")
    axes = [figure.add_subplot(1, len(runs), number + 1) for number in range(len(runs))]
    if len(runs) > 1:
        for run, place in zip(runs, axes, strict=True):
            place.set_title(f"{run.scenario.name}, seed {run.scenario.seed}", fontsize="medium")
    return figure, axes
