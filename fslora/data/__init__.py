"""Data: text sources, tokens, and the partition over devices."""

from __future__ import annotations

from fslora.data.corpus import Corpus, DataError, Document
from fslora.data.dataset import Dataset, Examples, tokenize
from fslora.data.partition import Shards, label_histogram, partition
from fslora.data.stdlib import load_stdlib
from fslora.data.tables import load_table
from fslora.data.tokens import Tokenizer

__all__ = [
    "Corpus",
    "DataError",
    "Dataset",
    "Document",
    "Examples",
    "Shards",
    "Tokenizer",
    "label_histogram",
    "load_stdlib",
    "load_table",
    "partition",
    "tokenize",
]
