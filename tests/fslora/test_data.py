"""Text, tokens and partitions."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fslora.data import (
    Corpus,
    DataError,
    Document,
    Examples,
    load_stdlib,
    load_table,
    partition,
    tokenize,
)
from fslora.data.partition import Rule
from fslora.data.stdlib import PACKAGES, load_modules
from fslora.data.tokens import ByteTokenizer
from fslora.local import data_order


def examples(group: np.ndarray, label: np.ndarray) -> Examples:
    n = len(group)
    two = np.full(n, 2)
    return Examples(np.zeros((n, 2), np.int64), two, two - 1, group, label, two - 1)


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


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    rule=st.sampled_from(["natural", "iid", "dirichlet"]),
    count=st.integers(20, 120),
    devices=st.integers(1, 20),
    seed=st.integers(0, 99),
    alpha=st.floats(0.01, 100.0),
)
def test_partition_gives_every_example_to_one_device(
    rule: Rule, count: int, devices: int, seed: int, alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    data = examples(rng.integers(0, 4, count), rng.integers(0, 3, count))
    shards = partition(data, rule, devices, seed, alpha)
    assert len(shards) == devices
    assert min(map(len, shards)) >= 1
    assert sorted(np.concatenate(shards).tolist()) == list(range(count))
    again = partition(data, rule, devices, seed, alpha)
    assert all(np.array_equal(x, y) for x, y in zip(shards, again, strict=True))


def test_natural_partition_keeps_groups_apart() -> None:
    group = np.repeat(np.arange(3), 10)
    shards = partition(examples(group, group), "natural", 6, 0)
    assert [set(group[shard].tolist()) for shard in shards] == [{0}, {1}, {2}] * 2
    few = partition(examples(group, group), "natural", 2, 0)
    assert [set(group[shard].tolist()) for shard in few] == [{0, 2}, {1}]


def test_dirichlet_skew_follows_alpha() -> None:
    label = np.repeat(np.arange(5), 200)

    def largest_share(alpha: float) -> float:
        shards = partition(examples(label, label), "dirichlet", 10, 1, alpha)
        table = np.array([np.bincount(label[s], minlength=5) for s in shards])
        return float((table.max(axis=0) / 200).mean())

    assert largest_share(1e4) < 0.12
    assert largest_share(0.05) > 0.5


def test_too_few_examples_are_refused() -> None:
    data = examples(np.zeros(3, np.int64), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="3 training examples cannot feed 4 devices"):
        partition(data, "iid", 4, 0)


def test_data_order_is_whole_passes() -> None:
    shard = np.array([3, 5, 8])
    order = data_order(shard, 42, 7)
    assert sorted(order[:3].tolist()) == sorted(order[3:6].tolist()) == [3, 5, 8]
    assert order.tolist() == data_order(shard, 42, 7).tolist()
    orders = {tuple(data_order(np.arange(20), key, 20)) for key in range(30)}
    assert len(orders) == 30


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
