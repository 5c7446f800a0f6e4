"""What verification reports, and how tables on disk are compared with what they should hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Relative difference that recomputing may show.
TOLERANCE = 1e-9

#: Findings that one check reports at most; where so much is wrong, the first ones tell.
MOST = 200

#: How many of the smallest steps of the clock a length of time may be off by.
_STEPS = 64

Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold.

    Parameters
    ----------
    file
        File name within the run directory.
    line
        Line of the file, the header being line 1; None if it concerns the file as a whole.
    message
        What was expected and what was found.
    """

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file} line {self.line}"
        return f"{place}: {self.message}"


def close(found: Any, expected: Any, scale: float = 0.0) -> bool:
    """Whether a value on disk is the expected one; `scale` times the tolerance is let pass."""
    if expected is None or isinstance(expected, str):
        return bool(pd.isna(found)) if expected is None else found == expected
    if pd.isna(found) or isinstance(found, str):
        return False
    return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale)


def differs(
    found: NDArray[Any], expected: NDArray[Any], slack: NDArray[np.float64] | float = 0.0
) -> NDArray[np.bool_]:
    """Where values (M,) are not those expected (M,): words and whole numbers exactly, others but
    for the tolerance and an absolute slack; nan where nothing is expected.
    """
    if expected.dtype.kind not in "fc":
        return np.asarray(found != expected, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        most = np.maximum(np.abs(found), np.abs(expected))
        near = np.abs(found - expected) <= np.maximum(TOLERANCE * most, slack)
        near = (near & np.isfinite(most)) | (found == expected)
    return np.asarray(~near & ~(np.isnan(found) & np.isnan(expected)))


def of_clock(end_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds (M,) that the clock's spacing at some moments makes of a length of time."""
    return _STEPS * np.spacing(np.abs(end_s))


def where(
    file: str, frame: pd.DataFrame, wrong: NDArray[np.bool_], message: str
) -> Iterator[Finding]:
    """Findings for those rows of a table that are wrong.

    Parameters
    ----------
    file, frame
        The table; its index tells the lines.
    wrong
        (M,) mask over the rows.
    message
        What is wrong, with names of columns in braces.
    """
    for place in np.flatnonzero(wrong)[:MOST]:
        line = int(frame.index[place]) + 2
        yield Finding(file, line, message.format(**_shown(frame.iloc[place])))


def compare(
    file: str,
    frame: pd.DataFrame,
    expected: Columns,
    keys: Sequence[str] = (),
    slack: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Compare rows of a table with those expected in their places.

    Parameters
    ----------
    file, frame
        The table, M rows; its index tells the lines.
    expected
        Columns (M,) to compare.
    keys
        Columns that name a row in messages.
    slack
        Absolute difference, (M,) or one for all, that a column may show.
    """
    for name, wanted in expected.items():
        found = frame[name].to_numpy()
        wrong = differs(found, wanted, 0.0 if slack is None else slack.get(name, 0.0))
        for place in np.flatnonzero(wrong)[:MOST]:
            value = _value(wanted[place])
            yield Finding(
                file,
                int(frame.index[place]) + 2,
                f"{_named(keys, frame.iloc[place])}{name} is {_value(found[place])}, "
                f"expected {value}",
            )


def compare_table(
    file: str,
    frame: pd.DataFrame,
    expected: Columns,
    keys: Sequence[str],
    slack: Mapping[str, Any] | None = None,
) -> Iterator[Finding]:
    """Compare a whole table with the rows it should have, in their order.

    Rows are matched by their keys; of rows with equal keys the first with the first.

    Parameters
    ----------
    file, frame
        The table; its index tells the lines.
    expected
        Its columns as they should be.
    keys
        Columns to match by.
    slack
        As for `compare`.
    """
    place = matched(frame, expected, keys)
    there = place >= 0
    for missing in np.flatnonzero(~there)[:MOST]:
        row = {name: expected[name][missing] for name in keys}
        yield Finding(file, None, f"a row is missing: {_named(keys, row)[:-2]}")
    strange = np.ones(len(frame), dtype=np.bool_)
    strange[place[there]] = False
    if strange.any():
        yield from _strangers(file, frame, strange, keys)
    in_file = np.argsort(place[there], kind="stable")
    early = in_file < np.maximum.accumulate(in_file)
    yield from where(
        file, frame.iloc[np.sort(place[there])], early, "comes after rows that should follow it"
    )
    rows = frame.iloc[place[there]]
    of_those = {name: values[there] for name, values in expected.items() if name not in keys}
    slack = {} if slack is None else slack
    there_only = {n: s if np.ndim(s) == 0 else np.asarray(s)[there] for n, s in slack.items()}
    yield from compare(file, rows, of_those, keys, there_only)


def _strangers(
    file: str, frame: pd.DataFrame, strange: NDArray[np.bool_], keys: Sequence[str]
) -> Iterator[Finding]:
    """Rows that are not expected; where others have the same keys, who is the stranger cannot be
    known.
    """
    names = pd.MultiIndex.from_frame(frame[list(keys)])
    alike = names.isin(names[strange]) & names.duplicated(keep=False)
    for chosen, what in ((alike, "comes twice"), (strange & ~alike, "unexpected row")):
        for number in np.flatnonzero(chosen)[:MOST]:
            row = _named(keys, frame.iloc[number])[:-2]
            yield Finding(file, int(frame.index[number]) + 2, f"{what}: {row}")


def matched(frame: pd.DataFrame, expected: Columns, keys: Sequence[str]) -> NDArray[np.intp]:
    """For every expected row the place of its row in the table; -1 where there is none."""
    columns = [(frame[name].to_numpy(), np.asarray(expected[name])) for name in keys]
    found, wanted = len(frame), len(columns[0][1])
    if found == wanted and not any(differs(*pair).any() for pair in columns):
        return np.arange(wanted, dtype=np.intp)
    code = np.zeros(found + wanted, dtype=np.int64)
    for pair in columns:
        kind = object if any(each.dtype.kind not in "iufb" for each in pair) else np.float64
        number, values = pd.factorize(np.concatenate([each.astype(kind) for each in pair]))
        # Nothing in the cell counts as one more value.
        code = code * (len(values) + 1) + number + 1
        code = np.unique(code, return_inverse=True)[1]
    mine, theirs = _occurrence(code[:found]), _occurrence(code[found:])
    most = max([0, *mine[:1], mine.max(initial=0), theirs.max(initial=0)]) + 1
    _, first, second = np.intersect1d(
        code[:found] * most + mine, code[found:] * most + theirs, return_indices=True
    )
    place = np.full(wanted, -1, dtype=np.intp)
    place[second] = first
    return place


def _occurrence(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal codes come before each."""
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    count = np.diff(np.append(first, len(code)))
    occurrence = np.empty(len(code), dtype=np.int64)
    occurrence[order] = np.arange(len(code)) - np.repeat(first, count)
    return occurrence


def _named(keys: Sequence[str], row: Any) -> str:
    return "".join(f"{name} {_key(row[name])}, " for name in keys)[:-2] + (": " if keys else "")


def _key(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "server"
    return int(value) if float(value).is_integer() else float(value)


def _shown(row: Any) -> dict[str, Any]:
    return {
        str(name): _key(value) if name == "device" else _value(value) for name, value in row.items()
    }


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}'"
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and math.isnan(value):
        return "empty"
    return value


def stated(
    section: str, stated: object, wanted: Mapping[str, Any], source: str
) -> Iterator[Finding]:
    """Compare a section of `summary.json` (null counts as empty) with what a file gives."""
    found = stated if isinstance(stated, dict) else {}
    for name, value in wanted.items():
        if not close(found.get(name), value):
            key = f"{section}.{name}" if section else name
            yield Finding(
                "summary.json", None, f"{key} is {found.get(name)}, {source} gives {value}"
            )
