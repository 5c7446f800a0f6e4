"""Reading a finished run's directory."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from sim.errors import InputError
from sim.scenario import Scenario
from sim.timeline import TABLES, columns


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
        """One of the CSV files, with the columns it must have.

        Raises
        ------
        InputError
            If the file is missing, cannot be read, has other columns, or a cell is not of its type.
        """
        path, row = self.folder / name, TABLES[name]
        try:
            words = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
        if list(words.columns) != columns(row):
            raise InputError(f"{path}: its header must be {','.join(columns(row))}")
        kinds = {field.name: str(field.type) for field in dataclasses.fields(row)}
        return pd.DataFrame(
            {column: _parsed(path, words[column], kind) for column, kind in kinds.items()}
        )


def _parsed(path: Path, words: pd.Series[str], kind: str) -> pd.Series[Any]:
    """A column as the type of its row's field says; empty cells are NaN where it may be None."""
    parse = {"int": int, "float": float}.get(kind.partition(" ")[0])
    if parse is None:
        return words
    values: list[float] = []
    for number, word in enumerate(words):
        if word == "" and kind.endswith("| None"):
            values.append(math.nan)
            continue
        try:
            values.append(parse(word))
        except ValueError:
            values.append(math.inf)
        if math.isinf(values[-1]) or math.isnan(values[-1]):
            expected = "a whole number" if parse is int else "a number"
            raise InputError(
                f"{path} line {number + 2}: {words.name} is '{word}', expected {expected}"
            )
    return pd.Series(values, dtype="int64" if kind == "int" else "float64")


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
