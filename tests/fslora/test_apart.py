"""Facts found by another process are those found here, and are asked for once."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fslora import apart
from fslora.apart import card_apart, tokenizer_apart
from fslora.card import Card, Question, TooLong, make_card
from fslora.data import DataError
from fslora.data.tokens import ByteTokenizer, HubTokenizer
from fslora.lora import UnknownHead, UnknownTarget
from fslora.models import BUILTIN, CutError, ModelError, load_tokenizer
from tests.hub import save_model

QUESTION = Question(
    model=BUILTIN,
    task="causal-lm",
    classes=0,
    pad_token=0,
    dtype="float32",
    nf4=False,
    targets=("all-linear",),
    dropout=0.0,
    method="fslora",
    rank=16,
    bits_per_number=32,
    keep=1.0,
    value_bits=None,
    length=64,
    batch=4,
    optimizer="sgd",
    momentum=0.0,
    checkpointing=False,
)


class Reader:
    """Stands in for the other process: answers here, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, _: Any, **options: Any) -> Any:
        self.asked += 1
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(options["input"]))
            patch.setattr(sys, "stdout", out)
            print("a library says hello", end="")
            apart.main()
        return subprocess.CompletedProcess([], 0, out.getvalue(), "")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fslora-sim"


@pytest.fixture
def reader(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """No other process, an empty cache."""
    del cache
    reader = Reader()
    monkeypatch.setattr(subprocess, "run", reader.run)
    return reader


@pytest.fixture(scope="module")
def card() -> Card:
    """The card of `QUESTION`."""
    return make_card(QUESTION)


@pytest.fixture
def known(card: Card, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The same, given without counting by whoever answers."""
    del reader
    monkeypatch.setattr(apart, "make_card", lambda _: card)
    return card


def test_card_of_another_process_is_the_one_made_here(
    card: Card, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A working directory that would be mistaken for a library.
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert card_apart(QUESTION) == card
    assert [file.name.partition("-")[0] for file in cache.iterdir()] == ["card"]


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_cards_survive_writing(kind: str, reader: Reader, tmp_path: Path) -> None:
    task = save_model(kind, tmp_path / kind)
    question = replace(
        QUESTION,
        model=str(tmp_path / kind),
        task=task,
        classes=3,
        dtype="bfloat16",
        optimizer="adamw",
        dropout=0.1,
        length=48,
    )
    made = make_card(question)
    assert bool(made.layout.heads) == (kind == "bert")
    assert bool(made.layout.transposed) == (kind == "gpt2")
    assert Card.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert [card_apart(question), card_apart(question)] == [made, made]
    assert list(card_apart(question).layout.layers) == list(made.layout.layers)
    assert reader.asked == 1


def test_question_survives_writing() -> None:
    for question in (QUESTION, replace(QUESTION, targets="model.*")):
        assert Question.from_json(json.loads(json.dumps(question.to_json()))) == question


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": "/nowhere/at/all"}, ModelError),
        ({"length": 513}, TooLong),
        ({"targets": ("query",)}, UnknownTarget),
        ({"targets": "("}, UnknownTarget),
    ],
    ids=["model", "length", "target", "expression"],
)
def test_refusals_are_those_made_here(
    change: dict[str, Any], kind: type[Exception], reader: Reader
) -> None:
    question = replace(QUESTION, **change)
    messages = set()
    for find in (make_card, card_apart, card_apart):
        with pytest.raises(kind) as refused:
            find(question)
        assert type(refused.value) is kind
        messages.add(str(refused.value))
    assert len(messages) == 1
    # What is refused now may be there later.
    assert reader.asked == 2


def test_unknown_tokenizer_is_refused_as_here(reader: Reader, tmp_path: Path) -> None:
    for find in (load_tokenizer, tokenizer_apart):
        with pytest.raises(ModelError, match=r"cannot be loaded .* name builtin:tiny-llama"):
            find(str(tmp_path / "nowhere"))
    assert reader.asked == 1


def test_every_refusal_can_be_sent() -> None:
    kinds = {CutError, DataError, ModelError, TooLong, UnknownHead, UnknownTarget}
    assert set(apart._REFUSALS.values()) == kinds
    assert all(apart._REFUSALS[kind.__name__] is kind for kind in kinds)


def test_process_that_dies_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([], -9, "", "noise\nout of memory\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(ModelError, match=r"'builtin:tiny-llama': .* code -9: out of memory"):
        card_apart(QUESTION)
    assert not cache.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"128", b"129", 1),
        lambda content: content.replace(b"\n", b" "),
        lambda content: b"\xff" + content,
        lambda _: b"{}",
    ],
    ids=["empty", "cut", "number", "line", "byte", "other"],
)
def test_spoilt_file_is_asked_for_again(
    spoil: Callable[[bytes], bytes], cache: Path, reader: Reader, known: Card
) -> None:
    assert card_apart(QUESTION) == known
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(spoil(content))
    assert card_apart(QUESTION) == known
    assert reader.asked == 2
    assert [each.read_bytes() for each in cache.iterdir()] == [content]


def test_folder_that_cannot_be_written_is_no_error(
    reader: Reader, known: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [card_apart(QUESTION), card_apart(QUESTION)] == [known, known]
    assert reader.asked == 2


def test_full_disk_leaves_nothing_behind(
    cache: Path, reader: Reader, known: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        assert card_apart(QUESTION) == known
    assert list(cache.iterdir()) == []
    assert card_apart(QUESTION) == known
    assert reader.asked == 2


def test_changed_model_or_question_is_asked_for_again(reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model("llama", folder)
    question = replace(QUESTION, model=str(folder), length=32)
    narrow = card_apart(question)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    wide = card_apart(question)
    assert wide.layout.numbers_per_rank > narrow.layout.numbers_per_rank
    assert card_apart(replace(question, batch=8)).costs != wide.costs
    assert reader.asked == 3
    # Weights have no say.
    (folder / "model.safetensors").write_bytes(b"")
    assert card_apart(question) == wide
    assert reader.asked == 3


@pytest.fixture(scope="module")
def fast() -> dict[str, PreTrainedTokenizerFast]:
    """Tokenizers of unlike pipelines, as transformers holds them."""

    def tokenizer(before: Any, template: str | None, **options: Any) -> PreTrainedTokenizerFast:
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.pre_tokenizer = before
        marks = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks)
        made.train_from_iterator(["the quick brown fox über die Straße 🙂 and back"] * 3, trainer)
        if template is not None:
            numbers = [(mark, made.token_to_id(mark)) for mark in marks]
            made.post_processor = processors.TemplateProcessing(
                single=template, special_tokens=numbers
            )
        # Settings that such files bring along, and that do not hold here.
        made.enable_padding(length=50)
        made.enable_truncation(3)
        return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **options)

    return {
        "words": tokenizer(pre_tokenizers.Whitespace(), "[BOS] $A [EOS]", pad_token="[PAD]"),
        "bytes": tokenizer(pre_tokenizers.ByteLevel(), None, eos_token="[EOS]"),
        "left": tokenizer(pre_tokenizers.ByteLevel(), "$A [EOS]", truncation_side="left"),
        "marks": tokenizer(
            pre_tokenizers.Whitespace(), None, pad_token="[PAD]", split_special_tokens=True
        ),
    }


@pytest.mark.parametrize("name", ["words", "bytes", "left", "marks"])
@given(
    text=st.text(st.sampled_from("the quick ü🙂ß\n"), max_size=40)
    | st.sampled_from(["[EOS]", "a [EOS] b", "[PAD][UNK]"]),
    length=st.integers(2, 20),
)
def test_tokens_are_those_of_transformers(
    name: str, text: str, length: int, fast: dict[str, PreTrainedTokenizerFast]
) -> None:
    theirs = fast[name]
    ours = HubTokenizer.of(theirs)
    again = HubTokenizer.from_json(json.loads(json.dumps(ours.to_json())))
    plain = theirs(text, add_special_tokens=False)["input_ids"]
    cut = theirs(text, truncation=True, max_length=length, return_offsets_mapping=True)
    end = max((end for _, end in cut["offset_mapping"]), default=0)
    for tokenizer in (ours, again):
        assert tokenizer.running(text)[0].tolist() == plain
        tokens, size = tokenizer.example(text, length)
        assert tokens.tolist() == cut["input_ids"]
        if name != "left":
            assert size.sum() == len(text[:end].encode())
        opening, _ = tokenizer.opening(text)
        whole = theirs(text)["input_ids"]
        assert opening.tolist() == whole[: len(whole) - (name in ("words", "left"))]
    assert (again.pad_token, again.end_token) == (ours.pad_token, ours.end_token)
    assert np.array_equal(ours.running(text)[1], again.running(text)[1])


def test_tokenizer_is_asked_for_once(reader: Reader, tmp_path: Path) -> None:
    save_model("llama", tmp_path / "model")
    name, text = str(tmp_path / "model"), "the lazy dog runs"
    for tokenizer in (tokenizer_apart(name), tokenizer_apart(name)):
        assert tokenizer.running(text)[0].tolist() == load_tokenizer(name).running(text)[0].tolist()
    assert reader.asked == 1
    assert isinstance(tokenizer_apart(BUILTIN), ByteTokenizer)
    assert reader.asked == 1


def test_pipeline_of_python_code_cannot_be_written_down(
    fast: dict[str, PreTrainedTokenizerFast],
) -> None:
    class Own:
        def pre_tokenize(self, pieces: Any) -> None:
            del pieces

    tokenizer = HubTokenizer.of(fast["bytes"])
    tokenizer.pipeline.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Own())
    with pytest.raises(DataError, match="cannot be written down"):
        tokenizer.to_json()
