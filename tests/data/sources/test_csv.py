"""Text in CSV files, as data sets, spreadsheets and databases write them."""

import codecs
import csv
import gzip
import io
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.sources import csv as reading
from tests.data.sources.source_contents import counts_of, documents_of, shards_of, texts_of

AG_NEWS = [
    ["3", "Wall St. Bears Claw Back Into the Black (Reuters)", 'Reuters - Short-sellers, Wall Street\'s "band"\\of'],
    ["4", "Two\r\nlines", ""],
    ["1", "NA", "null"],
]
AG_TEXTS = ["\n".join(value for value in row[1:] if value) for row in AG_NEWS]


def to_csv(rows, delimiter=",", ends="\r\n", quoting=csv.QUOTE_MINIMAL):
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize("ends", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_ag_news_is_read_without_a_header_and_by_several_columns(tmp_path, ends, quoting):
    (tmp_path / "train.csv").write_bytes(to_csv(AG_NEWS, ends=ends, quoting=quoting).encode())
    documents = documents_of("csv", tmp_path, header=["class", "title", "text"], columns=["title", "text"])
    assert [document.text for document in documents] == AG_TEXTS
    assert [document.name for document in documents] == [f"train.csv:{number:010d}" for number in range(3)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_every_delimiter_and_encoding_gives_the_same_texts(tmp_path, delimiter, encoding):
    rows = [["id", "text"], ["1", "caf\u00e9; a, b\tc|d"], ["2", "two\nlines"], ["3", 'say "hi"']]
    (tmp_path / "a.csv").write_bytes(to_csv(rows, delimiter).encode(encoding))
    stated = "utf-8" if encoding == "utf-8-sig" else encoding
    assert texts_of("csv", tmp_path, delimiter=delimiter, encoding=stated) == [row[1] for row in rows[1:]]


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=2, max_size=2)))
@settings(max_examples=100, deadline=None)
def test_written_rows_are_read_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    content = to_csv([["id", "text"], *rows], quoting=csv.QUOTE_ALL).encode()
    (folder / "a.csv").write_bytes(content)
    assert texts_of("csv", folder, empty_documents="keep") == [text for _, text in rows]
    (folder / "b.csv.gz").write_bytes(gzip.compress(content))
    assert texts_of("csv", folder / "b.csv.gz", empty_documents="keep") == [text for _, text in rows]


def test_a_row_is_a_document_and_not_a_line(tmp_path):
    """300 rows of several lines each were 1,295 lines."""
    rows = [["id", "text"], *([str(number), "a\nb\n\nc" * (number % 3 + 1)] for number in range(300))]
    (tmp_path / "a.csv").write_text(to_csv(rows), newline="")
    assert texts_of("csv", tmp_path) == [row[1] for row in rows[1:]]
    counts = Counter()
    for shard in shards_of("csv", tmp_path):
        list(shard.read(counts))
    assert counts == {"files": 1, "rows": 300}


def test_patterns_can_be_the_splits_of_the_source(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.tsv").write_text(f"text\tid\n{split}\t1\n")
    shards = shards_of("csv", tmp_path, pattern={"train": "train*", "test": "test*"}, delimiter="\t")
    assert [(shard.split, next(shard.read(Counter())).text) for shard in shards] == [
        ("test", "test"),
        ("train", "train"),
    ]


def test_blank_lines_are_skipped_empty_documents_follow_settings(tmp_path):
    (tmp_path / "a.csv").write_text('text,id\n\none,1\n\n"",2\n" ",3\ntwo,4\n\n')
    with pytest.raises(ValueError, match=r"a\.csv:5 has no text in 'text' but ''; .*`empty_documents`"):
        texts_of("csv", tmp_path)
    assert texts_of("csv", tmp_path, empty_documents="drop") == ["one", "two"]
    assert counts_of("csv", tmp_path, empty_documents="drop") == {"empty rows left out": 2}
    assert texts_of("csv", tmp_path, empty_documents="keep") == ["one", "", " ", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text\n1,one\n2,two,three\n", r"a\.csv:3: this row has 3 values and the header 2; correct the row, or"),
        (b"id,text\n1,one\n2\n", r"a\.csv:3: this row has 1 values and the header 2"),
        (b'id,text\n1,"one\n2,two\n3,three\n', r"a\.csv:4: unexpected end of data; correct the quotes"),
        (b'id,text\n1,"one" or two\n', r"a\.csv:2: ',' expected after '\"'; correct the quotes of this row"),
        (b"id,text\n1,caf\xe9\n", r"a\.csv is not utf-8: byte 0xe9 .*; set the source's `encoding` .* cp1252"),
        ("id,text\n1,caf\u00e9\n".encode("utf-16"), r"a\.csv begins as utf-16 does and not as utf-8; set .* to utf-16"),
        (b"id;text\n1;one\n", r"a\.csv has the only column 'id;text'; set the source's `delimiter` .* to ';'"),
        (b"id\ttext\n1\tone\n", r"has the only column 'id\\ttext'; set the source's `delimiter` .* to '\\t'"),
        (
            b"1,one\n2,two\n",
            r"the header \(the first row, or .*`header`\) of .*a\.csv has no column 'text', only '1', 'on",
        ),
        (b"text,text\n1,one\n", r"a\.csv has 2 columns 'text'; keep or rename all but one"),
        (b"", r"a\.csv is empty; remove it"),
        (b"\n\n", r"a\.csv is empty; remove it"),
        (b"\x1f\x8b\x08", r"a\.csv is packed as \.gz files are; rename it to a\.csv\.gz"),
        (b"PK\x03\x04", r"a\.csv begins as a \.zip file does"),
    ],
)
def test_a_malformed_file_is_named_with_what_to_do(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        texts_of("csv", tmp_path)
    assert str(refused.value).isprintable()


def test_a_header_that_is_stated_and_there_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,one\n")
    with pytest.raises(ValueError, match=r"the first row of .*a\.csv names the columns; set the source's `header`"):
        texts_of("csv", tmp_path, header=["id", "text"])


def test_a_mark_of_utf_8_is_no_text_of_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes(codecs.BOM_UTF8 + b"text\none\n")
    with pytest.raises(ValueError, match=r"a\.csv begins as utf-8 does and not as cp1252"):
        texts_of("csv", tmp_path, encoding="cp1252")


@pytest.mark.parametrize("name", ["a.xlsx", "a.parquet", "a.jsonl", "a.zip"])
def test_files_of_other_kinds_are_refused_by_their_names(tmp_path, name):
    (tmp_path / name).write_bytes(b"text\none\n")
    with pytest.raises(ValueError, match=rf"{name} is not for this source: `kind: csv` does not read \.\w+ files: "):
        texts_of("csv", tmp_path, pattern="*")


@pytest.mark.parametrize("content", ['"{}\n"', '"{}'])
def test_a_quote_that_is_never_closed_does_not_take_the_memory(tmp_path, monkeypatch, content):
    monkeypatch.setattr(reading, "MAX_CHARACTERS", 10_000)
    (tmp_path / "a.csv").write_text("text\n" + content.format("x" * 20_000))
    with pytest.raises(
        ValueError, match=r"a\.csv:\d: (the next line has more|field larger than field limit \(10000\))"
    ):
        texts_of("csv", tmp_path)


def test_a_file_of_any_size_takes_little_memory(tmp_path):
    with (tmp_path / "a.csv").open("w") as file:
        file.write("id,text\n")
        for number in range(20_000):
            file.write(f'{number},"{"word " * 40}\n{number}"\n')
    [shard] = shards_of("csv", tmp_path)
    tracemalloc.start()
    try:
        read = sum(1 for _ in shard.read(Counter()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == 20_000
    assert peak < 500_000 < (tmp_path / "a.csv").stat().st_size
