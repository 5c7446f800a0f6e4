"""Rows of a run's tables, and the streaming writer of CSV files."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, NoneType, TracebackType
from typing import Any, Literal, NamedTuple, Self, get_args, get_type_hints

import numpy as np
import orjson
from numpy.typing import NDArray

from sim.errors import RunError

Phase = Literal["plan", "wait", "downlink", "compute", "uplink", "aggregate", "evaluate"]
Outcome = Literal["done", "dropped", "late", "cancelled", "lost"]

#: Rows that are held back and written together.
BLOCK = 4096


class Interval(NamedTuple):
    """One row of `timeline.csv`: what someone did from one moment to another.

    Parameters
    ----------
    round
        Number of the round, from 1.
    device
        Device number, or None for the server.
    phase
        What was done. The server's downlink row is the broadcast itself; a device's is its
        reception.
    start_s, end_s
        Simulated seconds from the start of the run.
    bytes
        Payload transferred, None where nothing is.
    bandwidth_hz, rate_bps
        Of a transfer, averaged over its time.
    energy_j
        Energy the device spent.
    outcome
        How it ended: done; dropped, as the device failed; late, as nobody waited for it any more;
        cancelled, as the server cut it off; lost, if it will be tried again.
    """

    round: int
    device: int | None
    phase: Phase
    start_s: float
    end_s: float
    bytes: int | None = None
    bandwidth_hz: float | None = None
    rate_bps: float | None = None
    energy_j: float | None = None
    outcome: Outcome = "done"


class Spectrum(NamedTuple):
    """One row of `spectrum.csv`: the uplink band of a cell in use from a moment on."""

    time_s: float
    bandwidth_in_use_hz: float
    active: int
    cell: int = 0


class Piece(NamedTuple):
    """One row of `pieces.csv`: a span of an upload over which it held a constant band."""

    round: int
    device: int
    start_s: float
    end_s: float
    bandwidth_hz: float
    rate_bps: float


@dataclass(frozen=True, slots=True)
class Round:
    """One row of `rounds.csv`; round 0 is the state before training.

    `expected_s` is predicted before the cohort is drawn, `cohort_s` after. `bytes_down` counts a
    broadcast once. `queue_s` is the virtual queue of a policy that keeps one, after the round.
    `progress` is the share of the way to the target after it, where that is estimated. What was not
    measured is None.
    """

    round: int
    start_s: float
    end_s: float
    duration_s: float
    expected_s: float | None = None
    cohort_s: float | None = None
    sampled: int = 0
    completed: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    energy_j: float = 0.0
    train_loss: float | None = None
    eval_loss: float | None = None
    eval_metric: float | None = None
    queue_s: float | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One row of `devices.csv`: who the device is, and what it did over the run.

    Places and links are those at the start of the run; `solo_rate_bps` is what plans reckon with
    for the device alone on the whole band.
    """

    device: int
    weight: float
    compute_flops: float
    distance_m: float
    path_loss_db: float
    snr_db: float
    samples: int
    rank_cap: int
    rounds_sampled: int
    rounds_completed: int
    bytes_up: int
    bytes_down: int
    busy_s: float
    energy_j: float
    kind: str
    x_m: float
    y_m: float
    cell: int
    los: int
    downlink_snr_db: float
    step_overhead_s: float
    tx_power_dbm: float
    solo_rate_bps: float


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of `labels.csv`: how many training examples of a class a device holds, if any."""

    device: int
    label: str
    samples: int


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One row of `plan.csv`: a device's part in the plan that holds from `round` on.

    The first plan has a row for every device, a later one for those whose rank or probability it
    changes.
    `expected_bandwidth_hz` is None for a device so rare that no drawn cohort contains it.
    """

    round: int
    device: int
    rank: int
    probability: float
    compute_s: float
    upload_bits: float
    expected_bandwidth_hz: float | None


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """One row of `updates.csv`: what the server learnt from a device that completed a round.

    Round 0 holds what an oracle measured before the run; such updates have no aggregation weight.
    `update_norm` is the Frobenius norm of the change of the device's factors, as the server adds
    it; `rank_kept` how many ranks a device that prunes itself trains from now on at most.
    """

    round: int
    device: int
    rank: int
    weight: float | None
    loss: float
    update_norm: float
    rank_kept: int | None = None


@dataclass(frozen=True, slots=True)
class HostRow:
    """One row of `host.csv`: real seconds of one part of the program."""

    round: int
    part: str
    host_s: float


#: The tables of a run directory and the rows they hold; see `sim.records.tables_of`.
TABLES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "timeline.csv": Interval,
        "spectrum.csv": Spectrum,
        "pieces.csv": Piece,
        "rounds.csv": Round,
        "devices.csv": DeviceRow,
        "labels.csv": LabelRow,
        "plan.csv": PlanRow,
        "updates.csv": UpdateRow,
        "host.csv": HostRow,
    }
)

#: Tables of the course of rounds that each level of `output.timeline` writes.
COURSE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rounds": (),
        "devices": ("timeline.csv", "spectrum.csv"),
        "full": ("timeline.csv", "spectrum.csv", "pieces.csv"),
    }
)


def columns(row: type[Any]) -> list[str]:
    """Column names of a row type, in order."""
    if issubclass(row, tuple):
        return list(row._fields)  # type: ignore[attr-defined]  # a NamedTuple's
    return [field.name for field in dataclasses.fields(row)]


def cell_types(row: type[Any]) -> dict[str, tuple[type[Any], bool]]:
    """Per column of a row type: int, float or str, and whether the cell may be empty."""
    found = {}
    for name, hint in get_type_hints(row).items():
        options = (hint, *get_args(hint))
        kind = next((kind for kind in (int, float) if kind in options), str)
        found[name] = (kind, NoneType in options)
    return found


def cells(values: NDArray[Any]) -> list[Any]:
    """A column's values as a row holds them: Python numbers and words, None for NaN."""
    if values.dtype.kind == "f" and np.isnan(values).any():
        return [None if value != value else value for value in values.tolist()]
    return list(values.tolist())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file into one message.

    Raises
    ------
    RunError
        If the block fails for want of space, of rights, or of the medium.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from None


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as lines."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8")


def _plain_lines(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Rows without words that need quotes as lines, at a fifth of the time.

    Such a row in JSON is a line but for brackets, quotes and null; what takes the time is to find
    the fewest digits of each number.
    """
    text = orjson.dumps([*map(tuple, rows)])[1:-1]
    text = text.replace(b"],[", b"\r\n").replace(b"[", b"").replace(b"]", b"\r\n")
    return text.replace(b'"', b"").replace(b"null", b"")


class CsvTable:
    """A CSV file (RFC 4180, UTF-8) that takes rows of one type as they come.

    Numbers are written with the fewest digits that read back to the same value. Rows are held back
    until there is a block of them; what is in the file are whole lines at any time.
    """

    def __init__(self, folder: Path, name: str) -> None:
        row = TABLES[name]
        self._path = folder / name
        self._cells = None if issubclass(row, tuple) else attrgetter(*columns(row))
        self._rows: list[Any] = []
        self._size = 0
        with writing(self._path):
            # Not buffered: a buffer would be written out in the middle of a line.
            self._file = self._path.open("wb", buffering=0)
        self._write(_lines([columns(row)]))

    def write(self, row: Any) -> None:
        """Append a row; None becomes an empty cell."""
        self._rows.append(row)
        if len(self._rows) >= BLOCK:
            self.flush()

    def write_block(self, rows: Sequence[Any]) -> None:
        """Append rows at once."""
        self.flush()
        self._write(_plain_lines(rows) if self._cells is None else _lines(map(self._cells, rows)))

    def write_columns(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Append rows given by their columns; NaN becomes an empty cell."""
        self.flush()
        self._write(_lines(zip(*map(cells, values.values()), strict=True)))

    def flush(self) -> None:
        """Write what was held back.

        Raises
        ------
        RunError
            If it cannot be written; what is in the file stays as it was.
        """
        if self._rows:
            rows, self._rows = self._rows, []
            self.write_block(rows)

    def close(self) -> None:
        """Write what was held back and close the file."""
        try:
            self.flush()
        finally:
            with writing(self._path):
                self._file.close()

    def _write(self, data: bytes) -> None:
        with writing(self._path):
            try:
                done = 0
                while done < len(data):
                    done += self._file.write(memoryview(data)[done:])
            except OSError:
                with suppress(OSError):
                    self._file.seek(self._size)
                    self._file.truncate()
                raise
        self._size += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
