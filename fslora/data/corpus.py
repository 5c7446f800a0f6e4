"""Text before tokens: where documents come from, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


class DataError(ValueError):
    """The data a caller named cannot be read or does not fit the task."""


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of text with the group it came from and, if it has one, its class.

    Parameters
    ----------
    text
        The text itself.
    group
        Index into `Corpus.group_names`: the natural origin that a partition may follow.
    label
        Index into `Corpus.label_names`, or None for unlabelled text.
    prompt
        What stands before the text and is given to a causal model, which learns the text alone;
        None for plain text.
    """

    text: str
    group: int
    label: int | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents split into a training and a held-out part.

    Parameters
    ----------
    train, held_out
        The two parts, in a fixed order.
    group_names
        Names of the natural groups.
    label_names
        Names of the classes; empty if the corpus has none.
    continuous
        True if a document is a stretch of running text that is cut into chunks of the training
        length, False if each document is one example.
    """

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    group_names: tuple[str, ...]
    label_names: tuple[str, ...]
    continuous: bool

    def sha256(self) -> str:
        """SHA-256 over every document with its part, group, label and prompt, in order."""
        digest = hashlib.sha256()
        for part, documents in (("train", self.train), ("held_out", self.held_out)):
            for document in documents:
                text = document.text.encode("utf-8", "surrogatepass")
                head = f"{part}|{document.group}|{document.label}|{len(text)}|"
                digest.update(head.encode())
                digest.update(text)
                if document.prompt is not None:
                    prompt = document.prompt.encode("utf-8", "surrogatepass")
                    digest.update(f"prompt|{len(prompt)}|".encode())
                    digest.update(prompt)
        return digest.hexdigest()


def every_nth(documents: Sequence[Document], n: int) -> tuple[list[Document], list[Document]]:
    """Split documents into (train, held out): within each group every `n`-th is held out."""
    train: list[Document] = []
    held_out: list[Document] = []
    seen: dict[int, int] = {}
    for document in documents:
        position = seen[document.group] = seen.get(document.group, 0) + 1
        (held_out if position % n == 0 else train).append(document)
    return train, held_out
