"""Tables come back as they were written, and a bad cell is named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim.reading
from sim.errors import InputError
from sim.reading import read_table
from sim.timeline import CsvTable, Interval, LabelRow, Spectrum, columns
from tests.sim.recorded import DATA, known_rows

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(-(2**53), 2**53)
intervals = st.builds(
    Interval,
    counts,
    st.none() | counts,
    st.sampled_from(["compute", "uplink"]),
    finite,
    finite,
    st.none() | counts,
    st.none() | finite,
    st.none() | finite,
    st.none() | finite,
    st.sampled_from(["done", "late"]),
)
#: Without the end of a text and surrogates, which no UTF-8 file holds.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
labels = st.builds(LabelRow, counts, words, counts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def written(folder: Path, name: str, rows: list[Any]) -> Path:
    with CsvTable(folder, name) as table:
        for row in rows:
            table.write(row)
    return folder / name


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=st.lists(intervals, max_size=20))
def test_intervals_come_back_as_written(rows: list[Interval], folder: Path) -> None:
    table = read_table(written(folder, "timeline.csv", rows), Interval)
    assert list(table.columns) == columns(Interval)
    found = [Interval(*row) for row in table.astype(object).itertuples(index=False)]
    assert [tuple(None if x != x else x for x in row) for row in found] == rows


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=st.lists(labels, max_size=5))
def test_words_come_back_as_written(rows: list[LabelRow], folder: Path) -> None:
    table = read_table(written(folder, "labels.csv", rows), LabelRow)
    assert [LabelRow(*row) for row in table.itertuples(index=False)] == rows


def test_both_ways_of_reading_agree() -> None:
    for name, row in (("timeline.csv", Interval), ("spectrum.csv", Spectrum)):
        fast = sim.reading._by_arrow(DATA / name, row)
        pd.testing.assert_frame_equal(fast, sim.reading._word_by_word(DATA / name, row))


@pytest.mark.parametrize(
    ("column", "word", "expected"),
    [
        ("round", "1.0", "a whole number"),
        ("round", "0x1F", "a whole number"),
        ("round", "", "a whole number"),
        ("round", str(2**63), "a whole number"),
        ("device", "two", "a whole number"),
        ("device", "nan", "a whole number"),
        ("bytes", "1e3", "a whole number"),
        ("start_s", "", "a number"),
        ("start_s", "nan", "a number"),
        ("end_s", "inf", "a number"),
        ("end_s", "1e400", "a number"),
        ("rate_bps", "-Infinity", "a number"),
        ("energy_j", "nan", "a number"),
        ("energy_j", "much", "a number"),
    ],
)
def test_a_bad_cell_is_named(column: str, word: str, expected: str, tmp_path: Path) -> None:
    lines = (DATA / "timeline.csv").read_text(encoding="utf-8").splitlines()
    cells = lines[4].split(",")
    cells[columns(Interval).index(column)] = word
    lines[4] = ",".join(cells)
    path = tmp_path / "timeline.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_table(path, Interval)
    assert str(error.value) == f"{path} line 5: {column} is '{word}', expected {expected}"


def test_numbers_only_python_reads_are_read(tmp_path: Path) -> None:
    path = tmp_path / "spectrum.csv"
    path.write_text("time_s,bandwidth_in_use_hz,active,cell\n+1.5,1_000,+2, 3 \n", encoding="utf-8")
    assert read_table(path, Spectrum).iloc[0].tolist() == [1.5, 1000.0, 2, 3]


@pytest.mark.parametrize("text", ["", "time_s,band\n", "time_s,bandwidth_in_use_hz,active,cell\n1"])
def test_a_damaged_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "spectrum.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_table(path, Spectrum)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"spectrum\.csv: cannot be read"):
        read_table(tmp_path / "spectrum.csv", Spectrum)


def test_bad_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spectrum.parquet"
    good = pa.Table.from_pylist([row._asdict() for row in known_rows("spectrum.csv", Spectrum)])
    changes: dict[str, Any] = {
        "its columns must be time_s (double), ": good.drop_columns("cell"),
        "its columns must be": good.set_column(2, "active", pa.array([0.5] * len(good))),
        "time_s has cells": good.set_column(0, "time_s", pa.array([np.inf] * len(good))),
        "active has cells": good.set_column(2, "active", pa.array([None] * len(good), pa.int64())),
    }
    for message, table in changes.items():
        pq.write_table(table, path)
        with pytest.raises(InputError, match=re.escape(f"{path}: {message}")):
            read_table(tmp_path / "spectrum.csv", Spectrum)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"spectrum\.parquet: cannot be read"):
        read_table(tmp_path / "spectrum.csv", Spectrum)
