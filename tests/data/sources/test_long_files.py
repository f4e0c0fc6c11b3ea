"""Files that are larger than one part."""

import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdpipe.data.sources import text as reading
from mdpipe.data.sources.files import SourceFile
from tests.data.sources.source_contents import counts_of, documents_of, shard_bytes, shards_of, texts_of

SIZES = st.integers(1, 30)
TEXTS = st.text(st.sampled_from("ab \n\u00e9\u20ac\U0001f600\u0301"), max_size=60)
LINES = st.lists(st.sampled_from([b"a", b" ", b"\r", b"\n", b"\r\n", "\u20ac".encode()]), max_size=40).map(b"".join)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("long") / "a.txt"


@given(text=TEXTS, size=SIZES)
@example(text="\ufeff" + "a" * 40, size=2)
def test_the_parts_of_a_file_put_together_are_the_file(file, text, size):
    file.write_bytes(text.encode())
    with shard_bytes(size):
        documents = documents_of("text", file, empty_documents="keep")
    assert "".join(document.text for document in documents) == text.removeprefix("\ufeff")
    assert {document.name for document in documents} == {"a.txt"}
    if len(text.encode()) > size:
        assert [document.part for document in documents] == list(range(len(documents)))
    else:
        assert [document.part for document in documents] == [None]
    assert [document.unfinished for document in documents] == [True] * (len(documents) - 1) + [False]
    for document in documents[:-1]:
        assert document.text[-1] in " \n" or not set(document.text) & set(" \n")


@given(text=TEXTS.filter(str.strip), size=st.integers(4, 30))
def test_no_part_is_much_larger_than_it_should_be(file, text, size):
    file.write_bytes(text.encode())
    with shard_bytes(size):
        texts = texts_of("text", file)
    assert max(len(part.encode()) for part in texts) <= 2 * size


@given(content=LINES, size=SIZES)
def test_the_ranges_of_a_file_have_each_of_its_lines_once(file, content, size):
    file.write_bytes(content)
    with shard_bytes(size):
        ranges = reading.line_ranges([SourceFile("a.txt", file, None)])
    found = [line for one in ranges for line in one.lines()]
    expected = content.split(b"\n")
    if not expected[-1]:
        del expected[-1]
    assert [line for _, line in found] == [line.removesuffix(b"\r") for line in expected]
    positions = [position for position, _ in found]
    assert positions == [0, *(end.end() for end in re.finditer(b"\n", content))][: len(found)]
    assert sum(one.size for one in ranges) == len(content)


@given(content=LINES, size=SIZES)
def test_lines_are_the_same_for_any_shard_size(file, content, size):
    file.write_bytes(content)
    settings = {"sample_by": "line", "empty_documents": "keep"}
    whole = documents_of("text", file, **settings)
    with shard_bytes(size):
        assert documents_of("text", file, **settings) == whole
    names = [document.name for document in whole]
    assert names == sorted(set(names))


def test_small_files_share_a_part_and_large_ones_have_their_own(tmp_path):
    for name, size in (("a", 3), ("b", 4), ("c", 4), ("d", 20), ("e", 1)):
        (tmp_path / f"{name}.txt").write_text("x" * size)
    with shard_bytes(10):
        shards = shards_of("text", tmp_path)
    with shard_bytes(100):
        names = [[document.name[0] for document in shard.read(Counter())] for shard in shards]
    assert names == [["a", "b"], ["c"], ["d"], ["e"]]
    assert [shard.size for shard in shards] == [7, 4, 20, 1]


def test_a_byte_order_mark_is_no_text_of_a_long_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone two three")
    with shard_bytes(5):
        assert "".join(texts_of("text", tmp_path)) == "one two three"


def test_broken_utf_8_of_a_long_file_is_named_with_its_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one two three caf\xe9 four five six")
    with shard_bytes(5), pytest.raises(ValueError, match=r"a\.txt is not UTF-8: byte 17 is 0xe9"):
        texts_of("text", tmp_path)


def test_a_long_broken_file_is_left_out_and_counts_once(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one two three caf\xe9 four f\xe9ve six")
    (tmp_path / "b.txt").write_bytes(b"fine and long enough")
    with shard_bytes(5):
        assert "".join(texts_of("text", tmp_path, decode_errors="ignore")) == "fine and long enough"
        assert counts_of("text", tmp_path, decode_errors="ignore") == {"documents with broken UTF-8 left out": 1}


def test_broken_utf_8_of_a_long_file_is_replaced_and_counts_once(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one two three caf\xe9 four f\xe9ve six")
    with shard_bytes(5):
        texts = texts_of("text", tmp_path, decode_errors="replace")
        assert "".join(texts) == "one two three caf\ufffd four f\ufffdve six"
        assert counts_of("text", tmp_path, decode_errors="replace") == {"documents with broken UTF-8 replaced": 1}


@given(content=st.lists(st.sampled_from([b"a", b"\x80", b"\xf0", b"\xf0\x9f\x98\x80"]), min_size=31).map(b"".join))
def test_broken_bytes_are_replaced_as_in_the_whole_file(file, content):
    file.write_bytes(content)
    with shard_bytes(30):
        assert "".join(texts_of("text", file, decode_errors="replace")) == content.decode(errors="replace")


def test_a_long_file_of_white_space_is_an_empty_document(tmp_path):
    (tmp_path / "a.txt").write_text(" \n" * 20)
    (tmp_path / "b.txt").write_text(" " * 20 + "text at the end")
    with shard_bytes(5):
        with pytest.raises(ValueError, match=r"a\.txt has no text but ''; .*`empty_documents`"):
            texts_of("text", tmp_path)
        assert "".join(texts_of("text", tmp_path, empty_documents="drop")) == " " * 20 + "text at the end"
        assert counts_of("text", tmp_path, empty_documents="drop") == {"empty rows left out": 1}
        assert "".join(texts_of("text", tmp_path / "a.txt", empty_documents="keep")) == " \n" * 20


def test_a_detokenizer_refuses_a_file_that_it_would_get_in_parts(tmp_path):
    (tmp_path / "a.txt").write_text("it was n't long\n" * 3)
    with shard_bytes(20):
        with pytest.raises(ValueError, match=r"a\.txt has more than 20 bytes, but `detokenizer`.*`sample_by`.* line"):
            texts_of("text", tmp_path, detokenizer="ptb")
        assert texts_of("text", tmp_path, detokenizer="ptb", sample_by="line") == ["it wasn't long"] * 3


@pytest.mark.parametrize(("kind", "settings"), [("text", {"sample_by": "line"}), ("jsonl", {})])
def test_a_line_that_is_too_long_is_named_with_its_byte(tmp_path, monkeypatch, kind, settings):
    monkeypatch.setattr(reading, "MAX_LINE", 20)
    line = b'{"text":"12345678"}\n'
    (tmp_path / "a").write_bytes(line + line[:-1] + b" \n")
    with pytest.raises(ValueError, match=r"a has a line of more than 20 bytes that begins at byte 20; .*Cut the line"):
        texts_of(kind, tmp_path, pattern="*", **settings)
    (tmp_path / "a").write_bytes(line + line)
    assert len(texts_of(kind, tmp_path, pattern="*", **settings)) == 2
