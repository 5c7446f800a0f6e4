"""Facts about a model, found without torch in this process, and remembered.

What torch and transformers tell of a model before any training is a card and a tokenizer. A process
of its own imports them, is asked for one of both, and answers in JSON; the answer is kept in the
user's cache folder. `python -m fslora.apart` is that process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fslora.card import Card, Question, TooLong, make_card
from fslora.data.corpus import DataError
from fslora.data.tokens import ByteTokenizer, HubTokenizer, Tokenizer
from fslora.lora import UnknownHead, UnknownTarget
from fslora.models import BUILTIN, CutError, ModelError, load_tokenizer

#: Whose versions an answer depends on.
_PACKAGES = ("fslora-sim", "torch", "transformers", "tokenizers")

#: Files of a model's folder that its shape and tokenizer are read from; weights are not.
_READ_FROM = (".json", ".jinja", ".model", ".tiktoken", ".txt")

#: What the other process may refuse a question with.
_REFUSALS: Mapping[str, type[ValueError]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (CutError, DataError, ModelError, TooLong, UnknownHead, UnknownTarget)
    }
)


def card_apart(question: Question) -> Card:
    """The card that `make_card` makes, without torch in this process.

    Raises
    ------
    CutError, ModelError, TooLong, UnknownHead, UnknownTarget
        As `make_card`.
    """
    return Card.from_json(_ask("card", question.model, question.to_json()))


def tokenizer_apart(name: str) -> Tokenizer:
    """The tokenizer that `load_tokenizer` loads, without torch in this process.

    Raises
    ------
    ModelError
        If there is none under that name.
    DataError
        If it is slow, or cannot be written down.
    """
    if name == BUILTIN:
        return ByteTokenizer()
    return HubTokenizer.from_json(_ask("tokenizer", name, {"name": name}))


def _card(values: Mapping[str, Any]) -> Any:
    return make_card(Question.from_json(values)).to_json()


def _tokenizer(values: Mapping[str, Any]) -> Any:
    tokenizer = load_tokenizer(values["name"])
    assert isinstance(tokenizer, HubTokenizer)
    return tokenizer.to_json()


_ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = MappingProxyType(
    {"card": _card, "tokenizer": _tokenizer}
)


def _ask(what: str, model: str, values: Mapping[str, Any]) -> Any:
    """The answer to a question about a model, from the cache or from another process."""
    asked = json.dumps([what, values])
    file = _cache_file(what, model, asked)
    answer = None if file is None else _recall(file)
    if answer is None:
        answer = _from_another_process(model, asked)
        if file is not None:
            _remember(file, answer)
    return answer


def _from_another_process(model: str, asked: str) -> Any:
    # What is imported there is what would be imported here, whatever the working directory.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fslora.apart"],
        input=asked,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ModelError(
            f"model '{model}': looking at it ended with code {done.returncode}: {last}"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "refused" in answer:
        raise _REFUSALS[answer["refused"]](answer["reason"])
    return answer["found"]


def _cache_file(what: str, model: str, asked: str) -> Path | None:
    """Where the answer is kept: a name for all that it depends on; None where there is no home."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # By the standard of these folders a relative one is none.
        cache = Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"
    except RuntimeError:
        return None
    digest = hashlib.sha256(asked.encode())
    for package in _PACKAGES:
        digest.update(f"{package} {version(package)}\n".encode())
    # A version is not raised with every change to this package.
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    folder = Path(model)
    read_from = sorted(folder.iterdir()) if folder.is_dir() else []
    for file in (*sources, *(each for each in read_from if each.suffix in _READ_FROM)):
        if file.is_file():
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.name} {content}\n".encode())
    return cache / "fslora-sim" / f"{what}-{digest.hexdigest()}.json"


def _recall(file: Path) -> Any | None:
    """What a file keeps; None if there is none, or it is not as it was written."""
    try:
        digest, _, text = file.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return json.loads(text) if digest == _sha256(text) else None


def _remember(file: Path, answer: Any) -> None:
    """Keep an answer, whole or not at all; where that is not allowed, it is asked for again."""
    text = json.dumps(answer)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent)
    except OSError:
        return
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{_sha256(text)}\n{text}")
        os.replace(name, file)
    except OSError:
        Path(name).unlink(missing_ok=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Answer the question on standard input by one line on standard output."""
    what, values = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        answer = {"found": _ANSWERS[what](values)}
    except tuple(_REFUSALS.values()) as error:
        answer = {"refused": type(error).__name__, "reason": str(error)}
    # On a line of its own, whatever libraries have printed.
    print(f"\n{json.dumps(answer)}")


if __name__ == "__main__":
    main()
