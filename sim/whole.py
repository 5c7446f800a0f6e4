"""Files that are there whole or not at all, whatever stops the program."""

from __future__ import annotations

import os
from pathlib import Path

#: Ending of a file that is being written.
PART = ".part"


def write_whole(path: Path, *parts: memoryview | bytes) -> None:
    """Write a file so that, whatever happens, either the old or the new one is there, whole.

    Raises
    ------
    OSError
        If it cannot be written; the old one, if any, is still there.
    """
    partial = path.with_name(path.name + PART)
    try:
        with partial.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
