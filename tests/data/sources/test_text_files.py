"""Text files."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from mdpipe.data.raw import Document
from tests.data.sources.source_contents import counts_of, documents_of, shards_of, texts_of


def read(path, pattern="*.txt", **settings):
    return documents_of("text", path, pattern=pattern, **settings)


def read_lines(path, **settings):
    return documents_of("text", path, sample_by="line", **settings)


def test_a_file_is_a_document_named_by_its_path_in_the_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes("zw\u00f6i\r\n".encode())
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.md").write_text("no text file")
    assert read(tmp_path, "**/*.txt") == [Document("a.txt", "one"), Document("b/two.txt", "zw\u00f6i\r\n")]
    assert read(tmp_path) == [Document("a.txt", "one")]


def test_a_single_file_is_one_document(tmp_path):
    (tmp_path / "a.md").write_text("one")
    assert read(tmp_path / "a.md") == [Document("a.md", "one")]


def test_a_line_is_a_document_named_by_the_byte_where_it_begins(tmp_path):
    (tmp_path / "a.txt").write_bytes("zw\u00f6i \r\ndrei\n vier".encode())
    assert read_lines(tmp_path) == [
        Document("a.txt:00000000000000", "zw\u00f6i "),
        Document("a.txt:00000000000008", "drei"),
        Document("a.txt:00000000000013", " vier"),
    ]


def test_only_line_feeds_end_lines(tmp_path):
    (tmp_path / "a.txt").write_text("a\u2028b\vc\rd\x85e\n", encoding="utf-8", newline="")
    assert [document.text for document in read_lines(tmp_path)] == ["a\u2028b\vc\rd\x85e"]


@pytest.mark.parametrize("documents", ["document", "line"])
def test_a_byte_order_mark_is_no_text(tmp_path, documents):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone")
    assert texts_of("text", tmp_path, sample_by=documents) == ["one"]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist; .* `path` in params\.yaml"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_match_is_named_with_the_pattern(tmp_path):
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ValueError, match=r"no file in the folder .* fits '\*\.txt'; correct"):
        read(tmp_path)


@pytest.mark.parametrize("pattern", ["", "/etc/*"])
def test_a_pattern_that_is_no_relative_glob_is_refused(tmp_path, pattern):
    with pytest.raises(ValueError, match="is relative to the source's path"):
        read(tmp_path, pattern)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name themselves")
def test_a_file_whose_name_is_no_utf_8_is_named_with_a_hint(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("one")
    with pytest.raises(ValueError, match=r"'caf\\udce9\.txt' in .* is not a name in UTF-8; rename the file"):
        read(tmp_path)


def test_patterns_can_be_the_splits_of_the_source(tmp_path):
    for name in ("train-b.txt", "train-a.txt", "test.txt", "other.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    patterns = {"train": "train-*.txt", "test": "test*.txt"}
    for documents in ("document", "line"):
        shards = shards_of("text", tmp_path, pattern=patterns, sample_by=documents)
        found = [(shard.split, document.text.strip()) for shard in shards for document in shard.read(Counter())]
        assert found == [("test", "test.txt"), ("train", "train-a.txt"), ("train", "train-b.txt")]
    assert {shard.split for shard in shards_of("text", tmp_path)} == {None}


def test_a_file_that_fits_two_splits_is_named(tmp_path):
    (tmp_path / "train.txt").write_text("one")
    with pytest.raises(ValueError, match=r"train\.txt in .* fits the `pattern` of two splits; make them exclude"):
        shards_of("text", tmp_path, pattern={"train": "train*", "test": "t*.txt"})


def test_a_split_without_a_file_is_named_with_its_pattern(tmp_path):
    (tmp_path / "train.txt").write_text("one")
    with pytest.raises(ValueError, match=r"no file in the folder .* fits 'test\*'"):
        shards_of("text", tmp_path, pattern={"train": "train*", "test": "test*"})


def test_broken_utf_8_is_named_with_the_byte_and_a_hint(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ncaf\xe9 noir")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8: byte 7 is 0xe9 .* `iconv.* `decode_errors`"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"a\.txt:2: it is not UTF-8: byte 7 is 0xe9 .* `iconv.* `decode_errors`"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("policy", "documents", "texts", "counts"),
    [
        ("replace", "document", ["caf\ufffd\nb\ufffdd\ngood", "fine"], {"documents with broken UTF-8 replaced": 1}),
        ("replace", "line", ["caf\ufffd", "b\ufffdd", "good", "fine"], {"documents with broken UTF-8 replaced": 2}),
        ("ignore", "document", ["fine"], {"documents with broken UTF-8 left out": 1}),
        ("ignore", "line", ["good", "fine"], {"documents with broken UTF-8 left out": 2}),
    ],
)
def test_broken_utf_8_is_replaced_or_left_out_and_counted(tmp_path, policy, documents, texts, counts):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9\nb\x80d\ngood")
    (tmp_path / "b.txt").write_text("fine")
    settings = {"decode_errors": policy, "sample_by": documents}
    assert texts_of("text", tmp_path, **settings) == texts
    assert counts_of("text", tmp_path, **settings) == counts


@pytest.mark.parametrize("content", ["", " \n\t", "\ufeff"])
def test_a_file_without_text_is_named(tmp_path, content):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.txt has no text but .*; correct or remove it, or .* `empty_documents`"):
        read(tmp_path)


def test_a_line_without_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("one\n \ntwo")
    with pytest.raises(ValueError, match=r"a\.txt:2: the line has no text but ' '; .* `empty_documents`"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("policy", "documents", "texts", "counts"),
    [
        ("drop", "document", ["one\n \n\ntwo\n"], {"empty rows left out": 1}),
        ("drop", "line", ["one", "two"], {"empty rows left out": 3}),
        ("keep", "document", ["one\n \n\ntwo\n", "\n"], {}),
        ("keep", "line", ["one", " ", "", "two", ""], {}),
    ],
)
def test_empty_documents_are_dropped_or_kept_and_counted(tmp_path, policy, documents, texts, counts):
    (tmp_path / "a.txt").write_text("one\n \n\ntwo\n")
    (tmp_path / "b.txt").write_text("\n")
    settings = {"empty_documents": policy, "sample_by": documents}
    assert texts_of("text", tmp_path, **settings) == texts
    assert counts_of("text", tmp_path, **settings) == counts


@pytest.mark.parametrize("documents", ["document", "line"])
def test_a_detokenizer_is_applied_to_every_document(tmp_path, documents):
    (tmp_path / "a.txt").write_text("the <unk> said it was n't so")
    texts = texts_of("text", tmp_path, sample_by=documents, detokenizer="ptb")
    assert texts == ["the ? said it wasn't so"]


def test_tables_are_read_as_plain_text_with_a_warning(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("id,text\n1,one\n")
    assert texts_of("text", tmp_path, pattern="*.csv") == ["id,text\n1,one\n"]
    assert ".csv files are read as plain text; `kind: csv` reads their rows" in capsys.readouterr().err
    (tmp_path / "b.txt").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(ValueError, match=r"b\.txt begins as a \.parquet file does: .* use `kind: parquet`"):
        texts_of("text", tmp_path)
