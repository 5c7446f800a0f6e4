"""Tokenizers behind one small interface: bytes, or any fast Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fslora.data.corpus import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Pipeline


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


@dataclass(frozen=True, slots=True)
class HubTokenizer:
    """A fast Hugging Face tokenizer, run by the `tokenizers` library alone.

    Parameters
    ----------
    pipeline
        What turns text into tokens; it is set up anew for every text.
    pad_token, end_token
        As in `Tokenizer`.
    cut_side
        Side on which long text is cut.
    marks_behind
        How many marks it sets behind any text.
    splits_marks
        Whether marks that occur in a text are read as text.
    """

    pipeline: Pipeline
    pad_token: int
    end_token: int | None
    cut_side: str
    marks_behind: int
    splits_marks: bool

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Take over a tokenizer as `transformers.AutoTokenizer` loads it.

        Raises
        ------
        DataError
            If it is a slow tokenizer, which cannot tell the text span of a token.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("the model's tokenizer has no fast version, which byte counts need")
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        marks = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        return cls(
            tokenizer.backend_tokenizer,
            pad if pad is not None else (end or 0),
            end,
            tokenizer.truncation_side,
            marks[::-1].index(0) if 0 in marks else 0,
            tokenizer.split_special_tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes an equal tokenizer of.

        Raises
        ------
        DataError
            If part of the pipeline is Python code.
        """
        try:
            pipeline = self.pipeline.to_str()
        except Exception as error:  # the library raises nothing narrower
            raise DataError(f"the model's tokenizer cannot be written down ({error})") from None
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "pipeline": pipeline}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The tokenizer that `to_json` wrote down."""
        from tokenizers import Tokenizer as Pipeline

        return cls(**{**values, "pipeline": Pipeline.from_str(values["pipeline"])})

    def running(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens without the model's marks and the bytes each stands for."""
        return self._spans(text, marks=False)

    def example(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens with the model's marks, which stand for no bytes."""
        return self._spans(text, marks=True, length=length)

    def opening(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens with the marks that the model sets before a text."""
        tokens, size = self._spans(text, marks=True)
        end = len(tokens) - self.marks_behind
        return tokens[:end], size[:end]

    def _encode(self, text: str, marks: bool, length: int | None = None) -> Encoding:
        # As transformers does before each text: a pipeline may come with its own settings.
        pipeline = self.pipeline
        pipeline.encode_special_tokens = self.splits_marks
        pipeline.no_padding()
        if length is None:
            pipeline.no_truncation()
        else:
            pipeline.enable_truncation(length, direction=self.cut_side)
        return pipeline.encode(text, add_special_tokens=marks)

    def _spans(
        self, text: str, marks: bool, length: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        encoded = self._encode(text, marks, length)
        tokens = np.array(encoded.ids, dtype=np.int64)
        # Byte position of every character; tokenizers give spans in characters, leave out spaces,
        # and give each piece of a split character the whole of it. Counting from one token's end to
        # the next counts every byte once.
        width = [len(character.encode("utf-8", "replace")) for character in text]
        position = np.concatenate(([0], np.cumsum(width, dtype=np.int64)))
        ends = np.array([end for _, end in encoded.offsets], dtype=np.int64)
        reached = np.maximum.accumulate(position[ends]) if len(ends) else ends
        return tokens, np.diff(reached, prepend=0)
