"""Tokens ready for training: arrays of equal-width examples, with their true lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fslora.data.corpus import Corpus, DataError, Document
from fslora.data.tokens import Tokenizer
from fslora.tasks import Task


@dataclass(frozen=True, slots=True)
class Examples:
    """n examples of at most L tokens, padded on the right.

    Parameters
    ----------
    tokens
        (n, L) token numbers.
    length
        (n,) tokens that are not padding.
    predicted_bytes
        (n,) bytes of text behind the tokens that a causal model predicts, those from `prompt` on.
    group
        (n,) natural origin, an index into `Dataset.group_names`.
    label
        (n,) class, an index into `Dataset.label_names`, or -1.
    prompt
        (n,) leading tokens that are given, not predicted, by a causal model; at least 1.
    """

    tokens: NDArray[np.int64]
    length: NDArray[np.int64]
    predicted_bytes: NDArray[np.int64]
    group: NDArray[np.int64]
    label: NDArray[np.int64]
    prompt: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Training and held-out examples of one task.

    Parameters
    ----------
    task
        `causal-lm` or `classification`.
    train, held_out
        The two parts.
    group_names, label_names
        What `Examples.group` and `Examples.label` index.
    sha256
        Hash of the text the examples came from.
    """

    task: Task
    train: Examples
    held_out: Examples
    group_names: tuple[str, ...]
    label_names: tuple[str, ...]
    sha256: str


def tokenize(
    corpus: Corpus, tokenizer: Tokenizer, task: Task, length: int, held_out_per_group: int
) -> Dataset:
    """Cut a corpus into examples of at most `length` tokens.

    Running text is cut into chunks of exactly `length`; other documents are cut off there. Prompt
    and answer are tokenized apart, so that a token belongs to one of them, and the tokenizer's end
    token, if it has one, is part of the answer. An example in which nothing is left to predict, as
    when its prompt fills the length, is dropped.

    Parameters
    ----------
    corpus, tokenizer, task
        What to cut, by which tokens, for which task.
    length
        Tokens per example, at least 2.
    held_out_per_group
        Held-out examples kept per group, evenly spaced over what there is.

    Raises
    ------
    DataError
        If nothing is left to train on or to evaluate, or classes are missing where the task
        needs them.
    """
    if task == "classification" and len(corpus.label_names) < 2:
        raise DataError("classification needs labelled data of at least two classes")
    train = _examples(corpus.train, corpus.continuous, tokenizer, length, task)
    everything = _examples(corpus.held_out, corpus.continuous, tokenizer, length, task)
    held_out = _spread(everything, held_out_per_group)
    for name, part in (("training", train), ("held-out", held_out)):
        if len(part) == 0:
            raise DataError(_nothing_left(name, corpus, tokenizer, length, task))
    if task == "causal-lm" and not held_out.predicted_bytes.any():
        raise DataError("no held-out example has a byte of text to predict; give more text")
    return Dataset(task, train, held_out, corpus.group_names, corpus.label_names, corpus.sha256())


class _Piece(NamedTuple):
    """One example before padding: tokens, bytes of each, how many are given, and its origin."""

    tokens: NDArray[np.int64]
    size: NDArray[np.int64]
    prompt: int
    document: Document


def _examples(
    documents: Sequence[Document],
    continuous: bool,
    tokenizer: Tokenizer,
    length: int,
    task: Task,
) -> Examples:
    pieces = (
        _chunks(documents, tokenizer, length)
        if continuous
        else (_whole(document, tokenizer, length) for document in documents)
    )
    # A model predicts the tokens behind the given ones; a class shows in any.
    kept = [
        piece
        for piece in pieces
        if len(piece.tokens) > (piece.prompt if task == "causal-lm" else 0)
    ]
    tokens = np.full((len(kept), length), tokenizer.pad_token, dtype=np.int64)
    for row, piece in zip(tokens, kept, strict=True):
        row[: len(piece.tokens)] = piece.tokens
    return Examples(
        tokens=tokens,
        length=np.array([len(piece.tokens) for piece in kept], dtype=np.int64),
        predicted_bytes=np.array(
            [piece.size[piece.prompt :].sum() for piece in kept], dtype=np.int64
        ),
        group=np.array([piece.document.group for piece in kept], dtype=np.int64),
        label=np.array(
            [-1 if piece.document.label is None else piece.document.label for piece in kept],
            dtype=np.int64,
        ),
        prompt=np.array([piece.prompt for piece in kept], dtype=np.int64),
    )


def _chunks(documents: Iterable[Document], tokenizer: Tokenizer, length: int) -> Iterator[_Piece]:
    for document in documents:
        tokens, size = tokenizer.running(document.text)
        for start in range(0, len(tokens) - length + 1, length):
            end = start + length
            yield _Piece(tokens[start:end], size[start:end], 1, document)


def _whole(document: Document, tokenizer: Tokenizer, length: int) -> _Piece:
    if document.prompt is None:
        return _Piece(*tokenizer.example(document.text, length), 1, document)
    given, given_size = tokenizer.opening(document.prompt)
    answer, answer_size = tokenizer.running(document.text)
    end = np.array([] if tokenizer.end_token is None else [tokenizer.end_token], dtype=np.int64)
    return _Piece(
        np.concatenate([given, answer, end])[:length],
        np.concatenate([given_size, answer_size, np.zeros_like(end)])[:length],
        # Nothing stands before the first token from which it could be predicted.
        max(1, len(given)),
        document,
    )


def _nothing_left(part: str, corpus: Corpus, tokenizer: Tokenizer, length: int, task: Task) -> str:
    documents = corpus.train if part == "training" else corpus.held_out
    if any(document.prompt is not None for document in documents):
        return (
            f"data.length = {length}: the answer of no {part} example fits behind its prompt; "
            "choose more"
        )
    longest = max((len(tokenizer.running(d.text)[0]) for d in documents), default=0)
    if corpus.continuous and 0 < longest < length:
        return (
            f"data.length = {length}: the text comes in stretches of at most {longest} tokens; "
            "choose less"
        )
    shortest = 2 if task == "causal-lm" else 1
    return f"no {part} example of at least {shortest} tokens; give more text"


def _spread(examples: Examples, per_group: int) -> Examples:
    keep = []
    for group in np.unique(examples.group):
        members = np.flatnonzero(examples.group == group)
        count = min(per_group, len(members))
        keep.append(members[np.linspace(0, len(members) - 1, count).astype(np.int64)])
    rows = np.concatenate(keep) if keep else np.zeros(0, dtype=np.int64)
    return Examples(
        examples.tokens[rows],
        examples.length[rows],
        examples.predicted_bytes[rows],
        examples.group[rows],
        examples.label[rows],
        examples.prompt[rows],
    )
