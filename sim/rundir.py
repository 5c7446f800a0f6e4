"""Reading a finished run's directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from sim.errors import InputError
from sim.reading import read_table
from sim.scenario import Scenario
from sim.timeline import COURSE, TABLES


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run left behind.

    Parameters
    ----------
    folder
        Run directory.
    scenario
        Resolved scenario.
    summary
        Contents of `summary.json`.
    """

    folder: Path
    scenario: Scenario
    summary: dict[str, Any]

    @property
    def group(self) -> str:
        """Key that runs share when they differ in nothing but the seed."""
        return self.scenario.model_copy(update={"seed": 0}).model_dump_json()

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables by the name of its CSV file, whether it is kept as CSV or as Parquet.

        Raises
        ------
        InputError
            If the run wrote none, it cannot be read, has other columns, or a cell is not of its
            type.
        """
        course, level = COURSE["full"], self.scenario.output.timeline
        if name in course and name not in COURSE[level]:
            needed = next(each for each, names in COURSE.items() if name in names)
            raise InputError(
                f"{self.folder}: has no {name}, as output.timeline is '{level}'; "
                f"run it with --timeline {needed}"
            )
        return read_table(self.folder / name, TABLES[name])


def open_run(folder: Path) -> RunFiles:
    """Open a finished run's directory.

    Raises
    ------
    InputError
        If it is not one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run directory; `sim run` makes one")
    try:
        tree = yaml.safe_load((folder / "scenario.yaml").read_text(encoding="utf-8"))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if not isinstance(summary, dict):
            raise ValueError("summary.json holds no object")
        return RunFiles(folder, Scenario.model_validate(tree), summary)
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise InputError(f"{folder}: has no {name}; not the directory of a finished run") from None
    except (OSError, ValueError, yaml.YAMLError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: not the directory of a finished run ({reason})") from None


def group_labels(runs: Sequence[RunFiles]) -> dict[str, str]:
    """Label per group: the scenario's name, and where names repeat, the keys that differ.

    Parameters
    ----------
    runs
        Finished runs.

    Returns
    -------
    dict
        Label by `RunFiles.group`, in order of first appearance.
    """
    leaves = {run.group: _leaves(run.scenario.model_dump(exclude={"seed"})) for run in runs}
    names = {run.group: run.scenario.name for run in runs}
    labels = {}
    for group, name in names.items():
        alike = [leaves[other] for other in names if names[other] == name]
        differing = [
            f"{key}={value}"
            for key, value in leaves[group].items()
            if any(other.get(key) != value for other in alike)
        ]
        labels[group] = " ".join([name, *differing])
    return labels


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested mapping by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
