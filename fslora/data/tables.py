"""Labelled or plain text from a CSV or JSONL file, or from the `datasets` library."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fslora.data.corpus import Corpus, DataError, Document, every_nth

#: Without a held-out file, every eighth document of each group is held out.
HELD_OUT_EVERY = 8


class _Row(NamedTuple):
    """What the named columns hold; None where none is named."""

    text: str
    label: str | None
    group: str
    prompt: str | None


def load_table(
    source: str,
    text_column: str,
    label_column: str | None,
    group_column: str | None,
    held_out: str | None,
    prompt_column: str | None = None,
) -> Corpus:
    """Read documents from `source`.

    Parameters
    ----------
    source
        Path of a `.csv` or `.jsonl` file, or `datasets:NAME`, whose `train` split is read.
    text_column, label_column, group_column
        Names of the columns; a document's group is its label where no group column is named.
    held_out
        A second file, or the name of a split, to evaluate on; by default every eighth document
        of each group is set aside.
    prompt_column
        Name of the column of what is given before the text, joined to it without a space.

    Raises
    ------
    DataError
        If the file or a column is missing or a row cannot be read.
    """
    columns = text_column, label_column, group_column, prompt_column
    rows = list(_rows(source, "train", *columns))
    later = [] if held_out is None else list(_rows(source, held_out, *columns))
    labels = tuple(sorted({row.label for row in rows + later if row.label is not None}))
    groups = tuple(sorted({row.group for row in rows + later}))
    unseen = {row.label for row in later} - {row.label for row in rows}
    if unseen:
        raise DataError(f"held-out label '{min(map(str, unseen))}' never occurs in training")
    label_number = {label: number for number, label in enumerate(labels)}
    group_number = {group: number for number, group in enumerate(groups)}

    def numbered(part: list[_Row]) -> list[Document]:
        return [
            Document(
                row.text,
                group_number[row.group],
                None if row.label is None else label_number[row.label],
                row.prompt,
            )
            for row in part
        ]

    if held_out is None:
        train, apart = every_nth(numbered(rows), HELD_OUT_EVERY)
    else:
        train, apart = numbered(rows), numbered(later)
    return Corpus(tuple(train), tuple(apart), groups, labels, continuous=False)


def _rows(
    source: str,
    split: str,
    text_column: str,
    label_column: str | None,
    group_column: str | None,
    prompt_column: str | None,
) -> Iterable[_Row]:
    if source.startswith("datasets:"):
        name, rows = f"{source} split {split}", _hub_rows(source.removeprefix("datasets:"), split)
    else:
        name = source if split == "train" else split
        rows = _file_rows(Path(name))
    for number, row in enumerate(rows, start=1):
        for column in (text_column, label_column, group_column, prompt_column):
            if column is not None and row.get(column) is None:
                known = ", ".join(str(key) for key in row if key is not None)
                raise DataError(f"{name}: row {number} has no '{column}'; its columns: {known}")
        label = None if label_column is None else str(row[label_column])
        group = str(row[group_column]) if group_column is not None else label or ""
        prompt = None if prompt_column is None else str(row[prompt_column])
        yield _Row(str(row[text_column]), label, group, prompt)


def _file_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix == ".csv":
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        try:
            yield from csv.DictReader(io.StringIO(text, newline=""))
        except csv.Error as error:
            raise DataError(f"{path}: is not CSV ({error})") from None
    elif path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _json_row(path, number, line)
    else:
        raise DataError(f"{path}: expected a .csv or .jsonl file")


def _json_row(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {number} is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}: line {number} is not a JSON object")
    return row


def _hub_rows(name: str, split: str) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            "a 'datasets:' source needs the extra: pip install 'fslora-sim[datasets]'"
        ) from None
    try:
        yield from load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        raise DataError(f"datasets:{name}: cannot load split '{split}' ({error})") from None
