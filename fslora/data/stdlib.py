"""`builtin:stdlib`: the source of the running interpreter's standard library as text.

Real text, present on every machine that can run this program, and different by nature from one
package to the next, so devices that hold different packages hold different data. The text depends
on the Python version; the hash of what was read goes into every run's summary.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from fslora.data.corpus import Corpus, DataError, Document, every_nth

#: Packages that every supported Python ships whole; none of them is pre-training text.
PACKAGES = (
    "asyncio",
    "email",
    "encodings",
    "http",
    "importlib",
    "logging",
    "multiprocessing",
    "unittest",
    "urllib",
    "xml",
)

#: A document is a stretch of this many characters, and every eighth stretch is held out: long
#: enough that few training chunks touch a held-out one, short enough that every file is in both.
BLOCK_CHARS = 2048
HELD_OUT_EVERY = 8

_TEST_FOLDERS = {"test", "tests"}


def stdlib_root() -> Path:
    """Folder of the interpreter's pure-Python standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def load_stdlib() -> Corpus:
    """Read the ten packages, one group and one class per package.

    Raises
    ------
    DataError
        If a package's source is missing, as in interpreters that ship only byte code.
    """
    documents = []
    for group, package in enumerate(PACKAGES):
        text = _package_text(stdlib_root() / package)
        if not text:
            raise DataError(
                f"builtin:stdlib: no source of package '{package}' under {stdlib_root()}; "
                "this interpreter ships without library sources, name a data file instead"
            )
        documents += [
            Document(text[start : start + BLOCK_CHARS], group, group)
            for start in range(0, len(text), BLOCK_CHARS)
        ]
    train, held_out = every_nth(documents, HELD_OUT_EVERY)
    return Corpus(tuple(train), tuple(held_out), PACKAGES, PACKAGES, continuous=True)


def load_modules() -> str:
    """Text of the single-file modules (`ast.py`, `argparse.py`, ...): the pre-training text.

    `_sysconfigdata*.py` is left out: it records how and where an interpreter was built.
    """
    files = sorted(stdlib_root().glob("*.py"))
    return "".join(_read(path) for path in files if not path.name.startswith("_sysconfigdata"))


def _package_text(folder: Path) -> str:
    files = (
        path
        for path in sorted(folder.rglob("*.py"))
        if not _TEST_FOLDERS & set(path.relative_to(folder).parts)
    )
    return "".join(_read(path) for path in files)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")
