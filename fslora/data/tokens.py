"""Tokenizers behind one small interface: bytes, or any fast Hugging Face tokenizer."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fslora.data.corpus import DataError


class Tokenizer(Protocol):
    """What the data needs of a tokenizer."""

    @property
    def pad_token(self) -> int:
        """Token that fills the right side of short examples."""

    @property
    def end_token(self) -> int | None:
        """Token that ends a text, None if there is none."""

    def running(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of running text, and how many bytes of it each stands for; both (tokens,)."""

    def example(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same for one document with the model's own marks, cut at `length` tokens."""

    def opening(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same for a text that others follow: the model's marks before it, none behind."""


class ByteTokenizer:
    """One token per UTF-8 byte; byte 0, which text does not hold, pads."""

    pad_token = 0
    end_token = None

    def running(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes of the text; one byte each."""
        tokens = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64)
        return tokens, np.ones_like(tokens)

    def example(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First `length` bytes of the text; one byte each."""
        tokens, size = self.running(text)
        return tokens[:length], size[:length]

    def opening(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes of the text; one byte each."""
        return self.running(text)


class HubTokenizer:
    """A fast Hugging Face tokenizer.

    Parameters
    ----------
    tokenizer
        As `transformers.AutoTokenizer` loads it.

    Raises
    ------
    DataError
        If it is a slow tokenizer, which cannot tell the text span of a token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("the model's tokenizer has no fast version, which byte counts need")
        self._tokenizer = tokenizer
        pad = tokenizer.pad_token_id
        self.pad_token: int = pad if pad is not None else (tokenizer.eos_token_id or 0)
        self.end_token: int | None = tokenizer.eos_token_id
        # How many marks the tokenizer sets behind any text.
        marks = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        self._marks_behind = marks[::-1].index(0) if 0 in marks else 0

    def running(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens without the model's marks and the bytes each stands for."""
        return self._spans(text, add_special_tokens=False)

    def example(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens with the model's marks, which stand for no bytes."""
        return self._spans(text, add_special_tokens=True, truncation=True, max_length=length)

    def opening(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens with the marks that the model sets before a text."""
        tokens, size = self._spans(text, add_special_tokens=True)
        end = len(tokens) - self._marks_behind
        return tokens[:end], size[:end]

    def _spans(self, text: str, **options: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        encoded = self._tokenizer(text, return_offsets_mapping=True, verbose=False, **options)
        tokens = np.asarray(encoded["input_ids"], dtype=np.int64)
        # Byte position of every character; tokenizers give spans in characters, leave out spaces,
        # and give each piece of a split character the whole of it. Counting from one token's end to
        # the next counts every byte once.
        width = [len(character.encode("utf-8", "replace")) for character in text]
        position = np.concatenate(([0], np.cumsum(width, dtype=np.int64)))
        ends = np.array([end for _, end in encoded["offset_mapping"]], dtype=np.int64)
        reached = np.maximum.accumulate(position[ends]) if len(ends) else ends
        return tokens, np.diff(reached, prepend=0)
