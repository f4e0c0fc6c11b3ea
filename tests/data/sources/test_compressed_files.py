"""Files packed as .gz, .bz2, .xz or .zst."""

import bz2
import gzip
import json
import lzma
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from mdpipe.data.sources import files, writer
from mdpipe.data.sources.writer import write_shards
from tests.data.sources.source_contents import documents_of, shard_bytes, shards_of

PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
LINES = [f"{number} caf\u00e9" for number in np.random.default_rng(0).integers(0, 2**60, 3000)]
TEXT = "\n".join(LINES).encode()
JSON_LINES = "\n".join(json.dumps({"text": line}) for line in LINES).encode()

packed = pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
units = pytest.mark.parametrize("documents", ["document", "line"])


def pack(content, suffix):
    if suffix != ".zst":
        return PACKERS[suffix](content)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def read(path, documents, **settings):
    return documents_of("text", path, pattern="*", sample_by=documents, **settings)


def named_as(documents, name, other):
    return [(document.name.replace(name, other), document.text) for document in documents]


@packed
@units
@pytest.mark.parametrize("size", [1000, 2**25])
def test_a_packed_file_gives_the_documents_of_the_plain_one(tmp_path, suffix, documents, size):
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(TEXT, suffix))
    with shard_bytes(size):
        plain = read(tmp_path / "a.txt", documents)
        unpacked = read(tmp_path / f"a.txt{suffix}", documents)
    assert named_as(unpacked, f"a.txt{suffix}", "a.txt") == named_as(plain, "a.txt", "a.txt")
    assert "".join(document.text for document in plain).replace("\n", "") == "".join(LINES)


@packed
def test_packed_json_lines_give_the_documents_of_plain_ones(tmp_path, suffix):
    (tmp_path / "a.jsonl").write_bytes(JSON_LINES)
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(JSON_LINES, suffix))
    documents = documents_of("jsonl", tmp_path, pattern="*.jsonl*")
    plain, unpacked = documents[: len(LINES)], documents[len(LINES) :]
    assert [document.text for document in plain] == LINES
    assert named_as(unpacked, f"b.jsonl{suffix}", "a.jsonl") == named_as(plain, "a.jsonl", "a.jsonl")


@packed
def test_a_file_of_several_streams_gives_the_text_of_all(tmp_path, suffix):
    """As packers write it that use several cores, and as `cat` joins packed files."""
    half = len(TEXT) // 2
    (tmp_path / f"a{suffix}").write_bytes(pack(TEXT[:half], suffix) + pack(TEXT[half:], suffix))
    assert [document.text for document in read(tmp_path, "line")] == LINES


@packed
@units
@pytest.mark.parametrize("kept", [0, 3, 12, 0.5, -1])
def test_a_truncated_file_is_named(tmp_path, suffix, documents, kept):
    content = pack(TEXT, suffix)
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    (tmp_path / f"a.txt{suffix}").write_bytes(content[:kept])
    with pytest.raises(ValueError, match=rf"a\.txt\{suffix} is truncated or no \{suffix} file .*; replace it"):
        read(tmp_path, documents)


@packed
@units
@pytest.mark.parametrize("position", [20, 0.5])
def test_a_damaged_file_is_named(tmp_path, suffix, documents, position):
    content = bytearray(pack(TEXT, suffix))
    start = int(position * len(content)) if isinstance(position, float) else position
    content[start : start + 100] = bytes(100)
    (tmp_path / f"a.txt{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.txt\{suffix} is truncated or no \{suffix} file"):
        read(tmp_path, documents, decode_errors="replace", empty_documents="keep")


@packed
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, suffix):
    (tmp_path / f"a.txt{suffix}").write_bytes(TEXT)
    with pytest.raises(ValueError, match=rf"a\.txt\{suffix} is truncated or no \{suffix} file"):
        read(tmp_path, "document")


@packed
def test_a_line_of_a_packed_file_is_named_by_its_number(tmp_path, suffix):
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(b"one\ntwo\nca\xe9f\n", suffix))
    with pytest.raises(ValueError, match=rf"a\.txt\{suffix}:3: it is not UTF-8: byte 10 is 0xe9"):
        read(tmp_path, "line")


@packed
@units
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, suffix, documents):
    monkeypatch.setattr(files, "BUFFER_BYTES", 1024)  # so that a small one will do
    line = b"the quick brown fox\n"
    bomb = pack(line * 100_000, suffix)
    (tmp_path / f"a.txt{suffix}").write_bytes(bomb)
    read_lines = 0
    message = rf"a\.txt\{suffix} has [\d,]+ bytes and unpacks to more than 200 times as many: a decompression bomb"
    with pytest.raises(ValueError, match=message):
        for shard in shards_of("text", tmp_path, pattern="*", sample_by=documents):
            for _ in shard.read(Counter()):
                read_lines += 1
    assert read_lines <= 200 * max(1024, len(bomb)) // len(line) < 100_000


@packed
def test_a_full_disk_names_the_source_and_gets_its_room_back(tmp_path, monkeypatch, suffix):
    """A file that unpacks to more than the disk has."""
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(TEXT * 20, suffix))
    monkeypatch.setenv("MDPIPE_WORKERS", "1")
    monkeypatch.setattr(writer, "SHARD_BYTES", len(TEXT))
    usage = shutil.disk_usage(tmp_path)
    answers = [usage, usage, usage, usage._replace(free=len(TEXT))]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: answers.pop(0) if len(answers) > 1 else answers[0])
    shards = shards_of("text", tmp_path, pattern="*", sample_by="line")
    with pytest.raises(
        ValueError, match=r"reading notes: the disk of .*work_dir is full; .* removed from it\. Make room"
    ):
        write_shards(tmp_path / "notes", "text", shards, tmp_path / "work_dir")
    assert not [file for file in (tmp_path / "work_dir").rglob("*") if file.is_file()]
    assert not (tmp_path / "notes").exists()
