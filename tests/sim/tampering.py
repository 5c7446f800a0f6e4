"""Runs whose files are changed by hand, and what verification then finds."""

import csv
import re
from pathlib import Path

from sim.errors import InputError
from sim.findings import Finding
from sim.rundir import open_run
from sim.verify import verify


def findings_of(folder: Path) -> tuple[Finding, ...]:
    """What verification finds; a cell that cannot even be read is a finding too."""
    try:
        return verify(open_run(folder)).findings
    except InputError as error:
        file, line = re.findall(rf"^{folder}/(\S+) line (\d+): ", str(error))[0]
        return (Finding(file, int(line), str(error)),)


def read(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def write(file: Path, rows: list[list[str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
