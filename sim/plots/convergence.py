"""Held-out loss against simulated time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sim.errors import InputError
from sim.rundir import RunFiles, group_labels


def convergence(runs: Sequence[RunFiles]) -> Figure:
    """Held-out loss against simulated time, one line per run, one colour per scenario.

    Parameters
    ----------
    runs
        Finished runs; if their scenarios name one target loss, it is drawn as a level.

    Raises
    ------
    InputError
        If a run trained nothing.
    """
    for run in runs:
        if run.scenario.training.timing_only:
            raise InputError(
                f"--kind convergence: {run.folder} has no losses, as it was run without training; "
                "leave it out, or choose another kind"
            )
    levels = {
        run.scenario.stop.target.value
        for run in runs
        if run.scenario.stop.target is not None and run.scenario.stop.target.metric == "eval_loss"
    }
    level = levels.pop() if len(levels) == 1 else None
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, str] = {}
    labels = group_labels(runs)
    for run in runs:
        new = run.group not in colours
        colour = colours.setdefault(run.group, f"C{len(colours) % 10}")
        rounds = run.table("rounds.csv")
        seen = rounds[rounds["eval_loss"].notna()]
        axes.plot(
            seen["end_s"],
            seen["eval_loss"],
            color=colour,
            marker=".",
            markersize=4,
            linewidth=1.3,
            label=labels[run.group] if new else None,
        )
    if level is not None:
        axes.axhline(level, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
        axes.annotate(
            f"target {level:g}",
            (1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            horizontalalignment="right",
            color="0.4",
            fontsize="small",
        )
    axes.set_xlabel("simulated time (s)")
    axes.set_ylabel("held-out loss (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
