"""Text in parquet and arrow files."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.source_contents import counts_of, documents_of, shard_bytes, shards_of, texts_of

TEXTS = [f"{number}\ncaf\u00e9 {number}" for number in range(10)]
ROWS_A_GROUP = 3


def table(texts=TEXTS, column="text", **more):
    return pa.table({"id": list(range(len(texts))), column: texts, **more})


def write_parquet(path, rows):
    pq.write_table(rows, path, row_group_size=ROWS_A_GROUP)


def write_stream(path, rows):
    with pa.ipc.new_stream(path, rows.schema) as stream:
        stream.write_table(rows, max_chunksize=ROWS_A_GROUP)


def write_file(path, rows):
    with pa.ipc.new_file(path, rows.schema) as file:
        file.write_table(rows, max_chunksize=ROWS_A_GROUP)


FORMATS = {
    "parquet": ("a.parquet", write_parquet),
    "stream": ("a.arrow", write_stream),
    "file": ("a.arrow", write_file),
}
formats = pytest.mark.parametrize(("name", "write"), FORMATS.values(), ids=FORMATS)


@formats
@pytest.mark.parametrize("size", [1, 100, 2**25])
def test_rows_are_named_by_file_and_number_for_any_shard_size(tmp_path, name, write, size):
    write(tmp_path / name, table())
    with shard_bytes(size):
        shards = shards_of("parquet", tmp_path, pattern="*")
        documents = documents_of("parquet", tmp_path, pattern="*")
    assert [(document.name, document.text) for document in documents] == [
        (f"{name}:{number:010d}", text) for number, text in enumerate(TEXTS)
    ]
    assert len(shards) == {1: 4, 2**25: 1}.get(size, len(shards))
    assert all(shard.size > 0 for shard in shards)


def test_a_table_may_be_split_over_files(tmp_path):
    for number, start in enumerate(range(0, 10, 4)):
        write_parquet(tmp_path / f"train-{number:05d}-of-00003.parquet", table(TEXTS[start : start + 4]))
    assert texts_of("parquet", tmp_path) == TEXTS
    assert texts_of("parquet", tmp_path / "train-00001-of-00003.parquet") == TEXTS[4:8]


def test_what_datasets_saves_to_disk_can_be_read(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": TEXTS, "id": list(range(10))}).save_to_disk(tmp_path / "saved", num_shards=2)
    assert texts_of("parquet", tmp_path / "saved", pattern="*.arrow") == TEXTS


def test_patterns_can_be_the_splits_of_the_source(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", table([split]))
    shards = shards_of("parquet", tmp_path, pattern={"train": "train*", "test": "test*"})
    assert [(shard.split, next(shard.read(Counter())).text) for shard in shards] == [
        ("test", "test"),
        ("train", "train"),
    ]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_every_type_of_text_is_text(tmp_path, kind):
    write_file(tmp_path / "a.arrow", pa.table({"text": pa.array(TEXTS).cast(kind)}))
    assert texts_of("parquet", tmp_path, pattern="*.arrow") == TEXTS


@formats
def test_a_missing_column_is_named_with_those_there_are(tmp_path, name, write):
    write(tmp_path / name, table(column="body"))
    with pytest.raises(
        ValueError, match=rf"{name} has no column 'text', only 'id', 'body'; correct the source's `columns`"
    ):
        shards_of("parquet", tmp_path, pattern="*")


@pytest.mark.parametrize(
    ("values", "kind"), [([1], "int"), ([b"one"], "bytes"), ([["one"]], "list"), ([{"text": "one"}], "dict")]
)
def test_a_column_of_something_else_is_named(tmp_path, values, kind):
    write_parquet(tmp_path / "a.parquet", pa.table({"text": values}))
    message = rf"a\.parquet:0000000000 has no text in the column 'text' but {kind}; choose another column"
    with pytest.raises(ValueError, match=message):
        texts_of("parquet", tmp_path)


@formats
@pytest.mark.parametrize("kept", [0, 2, 6, 30, 0.5, -30])
def test_a_truncated_file_is_named(tmp_path, name, write, kept):
    write(tmp_path / name, table([text * 100 for text in TEXTS]))
    content = (tmp_path / name).read_bytes()
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    (tmp_path / name).write_bytes(content[:kept])
    with pytest.raises(ValueError, match=rf"{name} is truncated or no \.\w+ file .*; replace it"):
        texts_of("parquet", tmp_path, pattern="*")


def test_a_file_that_is_damaged_behind_a_sound_header_is_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", table([f"{text} {index}" * 100 for index, text in enumerate(TEXTS)]))
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:1000] = bytes(996)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet is truncated or no \.parquet file"):
        texts_of("parquet", tmp_path)


def test_text_that_is_no_utf_8_is_named(tmp_path):
    broken = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    write_file(tmp_path / "a.arrow", pa.table({"text": broken}))
    with pytest.raises(ValueError, match=r"a\.arrow has text that is not UTF-8 in one of the rows 0 to 1 \("):
        texts_of("parquet", tmp_path, pattern="*")


@pytest.mark.parametrize("content", [b"id,text\n1,one\n", json.dumps({"text": "one"}).encode()])
def test_a_file_of_another_format_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    message = r"a\.csv is not for this source: `kind: parquet` does not read \.csv files: use `kind: csv`, or narrow"
    with pytest.raises(ValueError, match=message):
        shards_of("parquet", tmp_path, pattern="*")
    (tmp_path / "a.csv").rename(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet is truncated or no \.parquet file"):
        shards_of("parquet", tmp_path)


@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_rows_without_text_follow_their_setting(tmp_path, empty):
    write_parquet(tmp_path / "a.parquet", table(["one", empty, "two"]))
    with pytest.raises(ValueError, match=r"a\.parquet:0000000001 has no text in 'text' but .*`empty_documents`"):
        texts_of("parquet", tmp_path)
    assert texts_of("parquet", tmp_path, empty_documents="drop") == ["one", "two"]
    assert counts_of("parquet", tmp_path, empty_documents="drop") == {"empty rows left out": 1}
    assert texts_of("parquet", tmp_path, empty_documents="keep") == ["one", empty or "", "two"]


@formats
def test_two_columns_of_the_name_are_refused(tmp_path, name, write):
    write(tmp_path / name, pa.table([TEXTS, TEXTS[::-1], TEXTS], names=["text", "text", "id"]))
    with pytest.raises(ValueError, match=rf"{name} has 2 columns 'text'; keep or rename all but one"):
        shards_of("parquet", tmp_path, pattern="*")
    assert texts_of("parquet", tmp_path, pattern="*", columns=["id"]) == TEXTS


@pytest.mark.parametrize("size", [1, 2**25])
def test_files_and_rows_are_counted_for_any_shard_size(tmp_path, size):
    for name, rows in {"a": table(), "b": table().slice(0, 0), "c": table(["x", None])}.items():
        write_parquet(tmp_path / f"{name}.parquet", rows)
    counts = Counter()
    with shard_bytes(size):
        for shard in shards_of("parquet", tmp_path, empty_documents="drop"):
            list(shard.read(counts))
    assert counts == {"files": 3, "rows": 12, "empty rows left out": 1}


def test_a_file_without_rows_adds_nothing(tmp_path):
    write_parquet(tmp_path / "a.parquet", table().slice(0, 0))
    write_parquet(tmp_path / "b.parquet", table())
    assert texts_of("parquet", tmp_path) == TEXTS


def test_a_detokenizer_is_applied_to_every_row(tmp_path):
    write_parquet(tmp_path / "a.parquet", table(["it was n't", "<unk>"]))
    assert texts_of("parquet", tmp_path, detokenizer="ptb") == ["it wasn't", "?"]
