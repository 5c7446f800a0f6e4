"""Reading a table of a run directory: by Arrow if it is sound, word by word if it is not."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sim.errors import InputError
from sim.parquet import csv_options, parquet_path, schema
from sim.timeline import cell_types, columns


def read_table(path: Path, row: type[Any]) -> pd.DataFrame:
    """A table with the columns it must have: whole numbers int64, or float64 where some may be
    missing.

    Parameters
    ----------
    path
        The CSV file; if there is none, the table may be kept as Parquet beside it.
    row
        Type of its rows.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, has other columns, or a cell is not of its type.
    """
    if not path.exists() and parquet_path(path).exists():
        return _from_parquet(parquet_path(path), row)
    try:
        frame = _by_arrow(path, row)
    except (OSError, ValueError):
        frame = None
    # What is wrong, and where, is found word by word.
    return _word_by_word(path, row) if frame is None else frame


def _by_arrow(path: Path, row: type[Any]) -> pd.DataFrame | None:
    """A CSV file of sound cells, or None."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if any(data.find(prefix) >= 0 for prefix in (b"0x", b"0X")):
            return None  # A whole number to Arrow, but to nobody else.
    table = pa.csv.read_csv(path, **csv_options(row))
    if table.column_names != columns(row):
        return None
    return None if _bad_column(table, row) is not None else _frame(table, row)


def _from_parquet(path: Path, row: type[Any]) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    wanted = schema(row)
    if table.schema.names != wanted.names or table.schema.types != wanted.types:
        raise InputError(f"{path}: its columns must be {', '.join(map(_shown, wanted))}")
    name = _bad_column(table, row)
    if name is not None:
        raise InputError(f"{path}: {name} has cells that are no numbers")
    return _frame(table, row)


def _shown(field: pa.Field) -> str:
    return f"{field.name} ({field.type})"


def _bad_column(table: pa.Table, row: type[Any]) -> str | None:
    """First column with a cell missing that may not be, or not finite."""
    for name, (kind, optional) in cell_types(row).items():
        column = table[name]
        if column.null_count and not optional:
            return name
        if kind is float:
            values = column.to_numpy()
            if np.count_nonzero(np.isfinite(values)) != len(values) - column.null_count:
                return name
    return None


def _frame(table: pa.Table, row: type[Any]) -> pd.DataFrame:
    may_miss = [name for name, (_, optional) in cell_types(row).items() if optional]
    frame: pd.DataFrame = table.to_pandas().astype(dict.fromkeys(may_miss, "float64"))
    return frame


def _word_by_word(path: Path, row: type[Any]) -> pd.DataFrame:
    try:
        words = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if list(words.columns) != columns(row):
        raise InputError(f"{path}: its header must be {','.join(columns(row))}")
    return pd.DataFrame(
        {
            name: _parsed(path, words[name], kind, optional)
            for name, (kind, optional) in cell_types(row).items()
        }
    )


def _parsed(path: Path, words: pd.Series[str], kind: type[Any], optional: bool) -> pd.Series[Any]:
    """A column as numbers, unless it is of words; empty cells are NaN where it may be None."""
    if kind is str:
        return words
    values: list[float] = []
    for number, word in enumerate(words):
        if word == "" and optional:
            values.append(math.nan)
            continue
        try:
            values.append(kind(word))
        except ValueError:
            values.append(math.inf)
        if not abs(values[-1]) < (2**63 if kind is int else math.inf):
            expected = "a whole number" if kind is int else "a number"
            raise InputError(
                f"{path} line {number + 2}: {words.name} is '{word}', expected {expected}"
            )
    return pd.Series(values, dtype="int64" if kind is int and not optional else "float64")
