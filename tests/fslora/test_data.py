"""Text and tokens."""

import json
from pathlib import Path

import pytest

from fslora.data import (
    Corpus,
    DataError,
    Document,
    load_stdlib,
    load_table,
    tokenize,
)
from fslora.data.stdlib import PACKAGES, load_modules
from fslora.data.tokens import ByteTokenizer
from tests.hub import marked_tokenizer


def test_stdlib_holds_out_every_eighth_stretch_of_each_package() -> None:
    corpus = load_stdlib()
    assert corpus.group_names == PACKAGES
    for group in range(len(PACKAGES)):
        train = sum(d.group == group for d in corpus.train)
        held_out = sum(d.group == group for d in corpus.held_out)
        assert held_out == (train + held_out) // 8 > 0
    assert "class BaseEventLoop" in "".join(d.text for d in (*corpus.train, *corpus.held_out))


def test_pre_training_text_holds_none_of_the_packages() -> None:
    modules = load_modules()
    assert "class ArgumentParser" in modules
    assert "class BaseEventLoop" not in modules


def test_chunks_are_the_text_and_no_chunk_crosses_a_document() -> None:
    corpus = Corpus(
        (Document("abcdefgh", 0), Document("ijklm", 1)), (Document("xyz", 0),), ("a", "b"), (), True
    )
    data = tokenize(corpus, ByteTokenizer(), "causal-lm", 3, 10)
    assert [bytes(row.tolist()) for row in data.train.tokens] == [b"abc", b"def", b"ijk"]
    assert data.train.group.tolist() == [0, 0, 1]
    assert data.train.predicted_bytes.tolist() == [2, 2, 2]


def test_documents_are_padded_and_cut() -> None:
    corpus = Corpus(
        (Document("héllo", 0, 1), Document("a" * 9, 0, 0), Document("x", 0, 0), Document("", 0)),
        (Document("ab", 0, 0),),
        ("all",),
        ("no", "yes"),
        False,
    )
    data = tokenize(corpus, ByteTokenizer(), "classification", 7, 10)
    assert data.train.length.tolist() == [6, 7, 1]
    assert data.train.label.tolist() == [1, 0, 0]
    assert bytes(data.train.tokens[0].tolist()) == "héllo".encode() + b"\0"


def test_one_token_predicts_nothing_but_may_show_a_class() -> None:
    corpus = Corpus(
        (Document("x", 0, 0), Document("ab", 0, 1)),
        (Document("ab", 0, 1),),
        ("g",),
        ("a", "b"),
        False,
    )
    lengths = [
        tokenize(corpus, ByteTokenizer(), task, 4, 1).train.length.tolist()
        for task in ("causal-lm", "classification")
    ]
    assert lengths == [[2], [1, 2]]


def test_chunks_longer_than_the_text_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.length = 5000: .* at most 20\d\d tokens"):
        tokenize(load_stdlib(), ByteTokenizer(), "causal-lm", 5000, 1)


def test_hash_sees_text_label_and_split() -> None:
    def digest(text: str, label: int, train_first: bool) -> str:
        one, two = (Document(text, 0, label),), (Document("rest", 0, 0),)
        train, held_out = (one, two) if train_first else (two, one)
        return Corpus(train, held_out, ("g",), ("a", "b"), False).sha256()

    values = {digest("t", 0, True), digest("u", 0, True), digest("t", 1, True)}
    values.add(digest("t", 0, False))
    assert len(values) == 4
    assert digest("t", 0, True) in values


def test_hash_sees_the_prompt_and_where_it_ends() -> None:
    rest = (Document("rest", 0),)
    values = {
        Corpus((Document(text, 0, None, prompt),), rest, ("g",), (), False).sha256()
        for text, prompt in (("ab", None), ("ab", ""), ("b", "a"), ("a", "b"), ("", "ab"))
    }
    assert len(values) == 5


def answered(*pairs: tuple[str, str]) -> Corpus:
    """Prompts with their answers, to train on and held out."""
    documents = tuple(Document(answer, 0, None, prompt) for prompt, answer in pairs)
    return Corpus(documents, documents, ("g",), (), False)


def test_prompt_is_given_and_the_answer_is_predicted() -> None:
    """One token per byte, so that every number is a number of bytes."""
    corpus = answered(("what? ", "nö"), ("two + two = ", "four"), ("", "xyz"))
    train = tokenize(corpus, ByteTokenizer(), "causal-lm", 14, 10).train
    texts = [bytes(row[:n].tolist()) for row, n in zip(train.tokens, train.length, strict=True)]
    assert texts == ["what? nö".encode(), b"two + two = fo", b"xyz"]
    # Without a prompt, the first token stands for one: nothing predicts it.
    assert train.prompt.tolist() == [6, 12, 1]
    assert train.predicted_bytes.tolist() == [3, 2, 2]


def test_example_without_room_for_an_answer_is_dropped() -> None:
    corpus = answered(("1234567", "8"), ("12345678", "9"), ("123456789", "0"), ("12", ""))
    train = tokenize(corpus, ByteTokenizer(), "causal-lm", 8, 10).train
    assert train.length.tolist() == [8]
    assert train.predicted_bytes.tolist() == [1]
    with pytest.raises(
        DataError, match=r"data\.length = 7: the answer of no training example .* choose more"
    ):
        tokenize(corpus, ByteTokenizer(), "causal-lm", 7, 10)


MARKS = {
    "none": ("$A", False),
    "begin": ("[BOS] $A", False),
    "begin and end": ("[BOS] $A [EOS]", True),
    "end known but not set": ("[BOS] $A", True),
    "two behind": ("$A [SEP] [EOS]", True),
}


@pytest.mark.parametrize("marks", MARKS)
def test_boundary_of_prompt_and_answer_is_exact(marks: str, tmp_path: Path) -> None:
    """Marks stand before the prompt alone, the end token once behind the answer."""
    template, ends = MARKS[marks]
    tokenizer = marked_tokenizer(tmp_path, template, ends)
    corpus = answered(("the brown fox", "runs away"), ("", "hen runs"))
    train = tokenize(corpus, tokenizer, "causal-lm", 32, 10).train
    begin, end = ["[BOS]"] * ("[BOS]" in template), ["[EOS]"] * ends
    words = [
        [tokenizer.word(token) for token in row[:n]]
        for row, n in zip(train.tokens.tolist(), train.length.tolist(), strict=True)
    ]
    given, answer = tokenizer.words("the brown fox"), tokenizer.words("runs away")
    assert words[0] == [*begin, *given, *answer, *end]
    assert words[1] == [*begin, *tokenizer.words("hen runs"), *end]
    assert train.prompt.tolist() == [len(begin) + len(given), 1]
    # The space between the answer's words is part of its text, marks are not; a first token that
    # nothing stands before is not predicted.
    first = len(tokenizer.words("hen runs")[0])
    assert train.predicted_bytes.tolist() == [9, 8 if begin else 8 - first]


def test_answers_without_a_byte_cannot_be_evaluated(tmp_path: Path) -> None:
    """The end token alone can be learnt, but bits per byte of nothing are not a number."""
    tokenizer = marked_tokenizer(tmp_path, "$A [EOS]", True)
    with pytest.raises(DataError, match="no held-out example has a byte of text to predict"):
        tokenize(answered(("the fox", "")), tokenizer, "causal-lm", 8, 10)


def test_end_token_falls_to_the_cut_first(tmp_path: Path) -> None:
    tokenizer = marked_tokenizer(tmp_path, "$A", True)
    whole = tokenize(answered(("the", "fox")), tokenizer, "causal-lm", 32, 1).train
    count = int(whole.length[0])
    cut = tokenize(answered(("the", "fox")), tokenizer, "causal-lm", count - 1, 1).train
    assert tokenizer.word(int(whole.tokens[0, count - 1])) == "[EOS]"
    assert cut.tokens[0].tolist() == whole.tokens[0, : count - 1].tolist()
    assert cut.predicted_bytes.tolist() == whole.predicted_bytes.tolist() == [3]


def test_prompt_column_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("question,text\nwho?,me\nwhy?,so\n", encoding="utf-8")
    corpus = load_table(str(path), "text", None, None, str(path), "question")
    assert [(d.prompt, d.text) for d in corpus.train] == [("who?", "me"), ("why?", "so")]
    assert corpus.held_out == corpus.train
    with pytest.raises(DataError, match="no 'asked'; its columns: question, text"):
        load_table(str(path), "text", None, None, None, "asked")


ROWS = [("I lost my card", "lost"), ('He said "hi",\nthen left', "chat"), ("ok then", "chat")]


def test_csv_and_jsonl_give_the_same_documents(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        'text,category\nI lost my card,lost\n"He said ""hi"",\nthen left",chat\nok then,chat\n',
        encoding="utf-8",
    )
    lines = tmp_path / "t.jsonl"
    lines.write_text(
        "".join(json.dumps({"text": t, "category": c}) + "\n" for t, c in ROWS), encoding="utf-8"
    )
    one = load_table(str(table), "text", "category", None, str(table))
    two = load_table(str(lines), "text", "category", None, str(lines))
    assert one == two
    assert one.label_names == one.group_names == ("chat", "lost")
    assert [(d.text, one.label_names[d.label or 0]) for d in one.train] == ROWS


def test_held_out_is_every_eighth_of_each_class(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = [f"text number {n},{'ab'[n % 2]}" for n in range(40)]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    corpus = load_table(str(path), "text", "label", None, None)
    assert [d.text for d in corpus.held_out] == [f"text number {n}" for n in (14, 15, 30, 31)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "text,label\nhello,a\n", "no 'body'; its columns: text, label"),
        ("t.jsonl", '{"text": "x"}\nnot json\n', "line 2 is not JSON"),
        ("t.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("t.txt", "hello", r"expected a \.csv or \.jsonl file"),
        ("absent.csv", None, "cannot be read"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    column = "body" if "body" in message else "text"
    with pytest.raises(DataError, match=message):
        load_table(str(path), column, None, None, None)


def test_unseen_held_out_class_is_refused(tmp_path: Path) -> None:
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("text,label\nx y,1\nz w,2\n", encoding="utf-8")
    test.write_text("text,label\nx y,3\n", encoding="utf-8")
    with pytest.raises(DataError, match="'3' never occurs"):
        load_table(str(train), "text", "label", None, str(test))


def test_datasets_library_reads_a_local_folder(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the extra `datasets` is not installed")
    (tmp_path / "train.csv").write_text("text,label\nx y,1\nz w,2\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("text,label\nu v,1\n", encoding="utf-8")
    corpus = load_table(f"datasets:{tmp_path}", "text", "label", None, "test")
    assert [d.text for d in corpus.train] == ["x y", "z w"]
    assert [d.text for d in corpus.held_out] == ["u v"]


def test_long_cell_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text\n" + "a" * 200_000 + "\n", encoding="utf-8")
    assert len(load_table(str(path), "text", None, None, str(path)).train[0].text) == 200_000
