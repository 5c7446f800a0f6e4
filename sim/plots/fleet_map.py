"""Where the devices of a run are, and how well they are heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, RegularPolygon

from sim.physical import radio_parameters
from sim.plots.panels import panels
from sim.rundir import RunFiles
from wireless.radio import RadioParameters


def fleet_map(runs: Sequence[RunFiles]) -> Figure:
    """Devices in their cells at the start of the run, coloured by mean uplink SNR, a panel per run.

    Parameters
    ----------
    runs
        Finished runs.
    """
    tables = [run.table("devices.csv") for run in runs]
    low = min(float(table["snr_db"].min()) for table in tables)
    high = max(float(table["snr_db"].max()) for table in tables)
    figure, axes = panels(runs, (4.8, 4.4))
    for run, table, place in zip(runs, tables, axes, strict=True):
        _cells(place, radio_parameters(run.scenario))
        for los, marker, name in ((1, "o", "in line of sight"), (0, "s", "out of sight")):
            some = table[table["los"] == los]
            dots = place.scatter(
                some["x_m"],
                some["y_m"],
                c=some["snr_db"],
                vmin=low,
                vmax=high,
                cmap="viridis",
                marker=marker,
                s=float(np.clip(2e4 / len(table), 2, 28)),
                linewidths=0,
                label=name if len(some) else None,
            )
        place.set_aspect("equal")
        place.set_xlabel("x (m)")
        place.set_ylabel("y (m)")
        place.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper right", fontsize="x-small", frameon=True)
    figure.colorbar(dots, ax=axes, label="mean uplink SNR over the band (dB)", shrink=0.8)
    return figure


def _cells(axes: Axes, radio: RadioParameters) -> None:
    """Outlines of the cells and their base stations."""
    if radio.layout is None:
        axes.add_patch(Circle((0, 0), radio.cell_radius_m, fill=False, edgecolor="0.7"))
        axes.plot(0, 0, marker="^", color="black", markersize=7, linestyle="none")
        return
    sites = list(zip(radio.layout.x_m, radio.layout.y_m, strict=True))
    for site in sites:
        corner_m = radio.layout.inter_site_m / np.sqrt(3)
        axes.add_patch(RegularPolygon(site, 6, radius=corner_m, fill=False, edgecolor="0.7"))
    axes.plot(*zip(*sites, strict=True), marker="^", color="black", markersize=5, linestyle="none")
