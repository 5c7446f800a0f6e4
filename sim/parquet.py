"""Tables as Parquet files: written by columns, copied from CSV files, read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sim.timeline import TABLES, cell_types, writing

#: Bytes of a CSV file that make a row group of the copy, some 200,000 rows.
_BLOCK_BYTES = 1 << 24

_ARROW = MappingProxyType({int: pa.int64(), float: pa.float64(), str: pa.string()})


def schema(row: type[Any]) -> pa.Schema:
    """Arrow's names and types for the columns of a row type."""
    return pa.schema([(name, _ARROW[kind]) for name, (kind, _) in cell_types(row).items()])


def parquet_path(path: Path) -> Path:
    """Where a table is that is kept as Parquet, given the path of its CSV file."""
    return path.with_suffix(".parquet")


class ParquetTable:
    """A Parquet file of rows of one type, which takes them by columns, each time as a row group.

    Unlike a CSV file it can be read only once it is closed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._schema = schema(TABLES[name])
        self._path = parquet_path(folder / name)
        with writing(self._path):
            self._file = self._path.open("wb")
            self._writer = pq.ParquetWriter(self._file, self._schema)

    def write_columns(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Append rows given by their columns; NaN becomes null."""
        arrays = [
            pa.array(each, field.type, mask=_missing(each))
            for each, field in zip(values.values(), self._schema, strict=True)
        ]
        table = pa.table(arrays, schema=self._schema)
        if len(table):
            with writing(self._path):
                self._writer.write_table(table)
                self._file.flush()

    def close(self) -> None:
        """Complete and close the file."""
        with writing(self._path), self._file:
            self._writer.close()


def copy_csv(folder: Path, name: str) -> None:
    """Copy a CSV file of a run directory into a Parquet file beside it, a block at a time.

    Raises
    ------
    RunError
        If the copy cannot be written.
    """
    path = folder / name
    with writing(parquet_path(path)), parquet_path(path).open("wb") as file:
        reader = pa.csv.open_csv(path, **csv_options(TABLES[name]))
        with pq.ParquetWriter(file, schema(TABLES[name])) as writer:
            for batch in reader:
                writer.write_batch(batch)


def csv_options(row: type[Any]) -> dict[str, Any]:
    """How Arrow is to read a CSV file of rows of one type."""
    return {
        "read_options": pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
        # A name of a class may hold a line break.
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(column_types=schema(row), null_values=[""]),
    }


def _missing(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    return np.isnan(values) if values.dtype.kind == "f" else None
