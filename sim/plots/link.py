"""Uplink rate against distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from sim.physical import radio_parameters
from sim.plots.panels import panels
from sim.rundir import RunFiles
from wireless.coverage import coverage

_POINTS = 200
_MBPS = 1e6


def link(runs: Sequence[RunFiles]) -> Figure:
    """Rate of one device alone over the whole band, by distance, with the mix of sight.

    Lines are outdoors, without interference, and without shadowing but for the mean, which is over
    sight and shadowing. Dots are the run's devices with all that they have to bear.

    Parameters
    ----------
    runs
        Finished runs.
    """
    figure, axes = panels(runs, (5.6, 4.0))
    for run, place in zip(runs, axes, strict=True):
        radio = radio_parameters(run.scenario)
        table = run.table("devices.csv")
        reach = max(float(table["distance_m"].max()), radio.reach_m)
        distance = np.geomspace(radio.min_distance_m, reach, _POINTS)
        alone = coverage(radio, float(table["tx_power_dbm"].median()), distance)
        place.plot(distance, alone.los_bps / _MBPS, color="C0", label="in line of sight")
        place.plot(distance, alone.nlos_bps / _MBPS, color="C1", label="out of sight")
        place.plot(distance, alone.mean_bps / _MBPS, color="black", label="mean")
        colours = np.where(table["los"] == 1, "C0", "C1")
        place.scatter(
            table["distance_m"], table["solo_rate_bps"] / _MBPS, c=colours, s=9, linewidths=0
        )
        place.set_yscale("log")
        # Plain numbers; those between powers of ten where the range is short.
        place.yaxis.set_major_formatter(LogFormatter())
        place.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        place.set_xlabel("distance (m)")
        place.set_ylabel("uplink rate over the whole band (Mbit/s)")
        sight = place.twinx()
        sight.fill_between(distance, alone.los_probability, color="0.9", zorder=0)
        sight.set_ylim(0, 1)
        sight.set_ylabel("probability of line of sight")
        place.set_zorder(sight.get_zorder() + 1)
        place.patch.set_visible(False)
        place.spines["top"].set_visible(False)
        sight.spines["top"].set_visible(False)
    axes[0].legend(frameon=False)
    return figure
