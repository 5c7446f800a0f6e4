"""What verification reports, and how a table on disk is compared with recomputed rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sim.timeline import Interval, columns

#: Relative difference that recomputing may show; times are relative to the end of the run.
TOLERANCE = 1e-9

#: Columns that are means over an interval, or proportional to its length.
_PER_SECOND = ("rate_bps", "bandwidth_hz", "energy_j")


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


def compare_rows(
    file: str, frame: pd.DataFrame, expected: list[Any], keys: list[str], scale: float
) -> Iterator[Finding]:
    """Compare a table with recomputed rows, matched by key; `scale` is of the times."""
    names = columns(type(expected[0])) if expected else []
    place: dict[tuple[Any, ...], int] = {}
    for number, key in enumerate(zip(*(frame[name] for name in keys), strict=True)):
        shown = _key(key)
        if shown in place:
            # Which of the two is the stranger cannot be known.
            yield Finding(file, place[shown] + 2, f"{_named(keys, shown)} comes twice")
            yield Finding(file, number + 2, f"{_named(keys, shown)} comes twice")
        place[shown] = number
    for row in expected:
        key = _key(getattr(row, name) for name in keys)
        number = place.pop(key, -1)
        if number < 0:
            yield Finding(file, None, f"a row is missing: {_named(keys, key)}")
            continue
        for name in names:
            wanted, found = getattr(row, name), frame[name].iloc[number]
            absolute = scale if name in ("start_s", "end_s") else 0.0
            if isinstance(row, Interval) and name in _PER_SECOND:
                absolute = abs(wanted or 0.0) * _blur(row)
            if not close(found, wanted, absolute):
                yield Finding(
                    file, number + 2, f"{_named(keys, key)}: {name} is {found}, expected {wanted}"
                )
    for key, number in place.items():
        yield Finding(file, number + 2, f"unexpected row: {_named(keys, key)}")


def _blur(row: Interval) -> float:
    """What the clock's spacing makes of a quantity over the interval, in parts of the tolerance."""
    seconds = row.end_s - row.start_s
    return 64 * math.ulp(row.end_s) / seconds / TOLERANCE if seconds > 0 else 0.0


def _key(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(
        value
        if isinstance(value, str)
        else None
        if value is None or pd.isna(value)
        else int(value)
        if float(value).is_integer()
        else float(value)
        for value in values
    )


def _named(keys: list[str], key: tuple[Any, ...]) -> str:
    return ", ".join(
        f"{name} {'server' if value is None else value}"
        for name, value in zip(keys, key, strict=True)
    )


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
