"""Pictures of finished runs, one kind per file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib as mpl
from matplotlib.figure import Figure

from sim.errors import InputError
from sim.plots.convergence import convergence
from sim.plots.fleet_map import fleet_map
from sim.plots.gantt import gantt
from sim.plots.link import link
from sim.rundir import RunFiles

_FORMATS = (".png", ".svg", ".pdf")

#: Fixed identifiers and no date, so that equal runs give equal files.
_METADATA: Mapping[str, Mapping[str, None]] = MappingProxyType(
    {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; equal figures give equal bytes.

    Raises
    ------
    InputError
        If the ending is not a known picture format or the file cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise InputError(f"-o {path}: give a name ending in {', '.join(_FORMATS)}")
    with mpl.rc_context({"svg.hashsalt": "fslora-sim"}):
        try:
            figure.savefig(path, dpi=150, metadata=dict(_METADATA[path.suffix]))
        except OSError as error:
            raise InputError(f"-o {path}: cannot be written ({error.strerror})") from None


KINDS: Mapping[str, Callable[[Sequence[RunFiles]], Figure]] = MappingProxyType(
    {"convergence": convergence, "map": fleet_map, "link": link, "gantt": gantt}
)
"""Kinds of pictures by the name that the command line uses."""
