"""The shards of sources, read by one process or by several."""

import gzip
import json
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mdpipe.data.raw import read_images
from mdpipe.data.sources.writer import FOUND, write_shards
from tests.data.shards import read_documents
from tests.data.sources.source_contents import shard_bytes, shards_of
from tests.data.sources.test_image_decoding import encode_image

pytestmark = pytest.mark.slow

TEXTS = [f"text {number} of caf\u00e9s" for number in range(40)]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)


@pytest.fixture
def text_shards(tmp_path):
    """Shards of every kind of text that is read from files, and of a hub."""
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    (tmp_path / "b.txt").write_bytes(b"\n".join([b"broken \xe9", b"", b"whole"]))
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (tmp_path / "c.jsonl").write_bytes(lines)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (tmp_path / "data").mkdir()
    rows = pa.table({"text": [*TEXTS, None]})
    pq.write_table(rows, tmp_path / "data" / "train-0.parquet", row_group_size=8)
    lenient = {"empty_documents": "drop", "decode_errors": "replace"}
    with shard_bytes(100):
        return [
            *shards_of("text", tmp_path, sample_by="line", **lenient),
            *shards_of("jsonl", tmp_path, pattern="*.jsonl*", **lenient),
            *shards_of("parquet", tmp_path / "data", pattern={"train": "*.parquet"}, empty_documents="drop"),
            *shards_of("huggingface", tmp_path / "downloads", name=str(tmp_path / "data"), empty_documents="keep"),
        ]


@pytest.fixture
def image_shards(tmp_path):
    """Shards of every kind of images, and of a hub."""
    (tmp_path / "files").mkdir()
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "files" / f"{index:02d}.png")
    (tmp_path / "data").mkdir()
    rows = pa.table({"image": [encode_image(image) for image in IMAGES]})
    pq.write_table(rows, tmp_path / "data" / "train-0.parquet", row_group_size=5)
    header = b"\x00\x00\x08\x03" + struct.pack(">3I", *IMAGES.shape)
    (tmp_path / "images.gz").write_bytes(gzip.compress(header + IMAGES.tobytes()))
    np.savez(tmp_path / "a.npz", x=IMAGES)
    np.savez(tmp_path / "b.npz", data=IMAGES.reshape(len(IMAGES), -1))
    with tarfile.open(tmp_path / "c.tar", "w") as archive:
        for name in sorted(file.name for file in (tmp_path / "files").iterdir()):
            archive.add(tmp_path / "files" / name, name)
    with shard_bytes(200):
        return [
            *shards_of("image_folder", tmp_path / "files"),
            *shards_of("parquet_images", tmp_path / "data", pattern={"train": "*.parquet"}),
            *shards_of("huggingface", tmp_path / "downloads", name=str(tmp_path / "data"), image_column="image"),
            *shards_of("mnist_idx", tmp_path, images={"test": "images.gz"}),
            *shards_of("npy", tmp_path / "a.npz"),
            *shards_of("npz_flat", tmp_path / "b.npz", shape=(1, 4, 4)),
            *shards_of("image_tar", tmp_path / "c.tar"),
        ]


def raw_bytes(tmp_path, monkeypatch, shards, workers):
    """Return the bytes of the raw folder that this many processes write."""
    monkeypatch.setenv("MDPIPE_WORKERS", str(workers))
    folder = tmp_path / str(workers) / "raw"
    write_shards(folder, "many", shards, tmp_path / str(workers) / "work_dir")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_several_processes_keep_the_texts_that_one_keeps(tmp_path, monkeypatch, text_shards, capfd):
    single = raw_bytes(tmp_path, monkeypatch, text_shards, 1)
    assert raw_bytes(tmp_path, monkeypatch, text_shards, 3) == single
    header = json.loads(single["source.json"])
    assert header["documents"] == len(TEXTS) * 5 + 2 + 1
    left_out = {what: count for what, count in header["read"].items() if what not in FOUND}
    assert left_out == {"empty rows left out": 2, "documents with broken UTF-8 replaced": 1}
    said = capfd.readouterr().err
    assert f"raw: {header['documents']} documents from {header['read']['files']} files; " in said
    assert "1 document with broken UTF-8 replaced" in said
    assert len(text_shards) >= len(header["shards"]) > 30
    texts = [document.text for document in read_documents(tmp_path / "3" / "raw")]
    assert texts == [*TEXTS, "broken \ufffd", "whole", *TEXTS, *TEXTS, *TEXTS, *TEXTS, ""]


def test_several_processes_keep_the_images_that_one_keeps(tmp_path, monkeypatch, image_shards):
    single = raw_bytes(tmp_path, monkeypatch, image_shards, 1)
    assert raw_bytes(tmp_path, monkeypatch, image_shards, 3) == single
    raw = read_images(tmp_path / "3" / "raw")
    assert np.array_equal(raw.images[:], np.concatenate([IMAGES[..., None]] * 7))
    assert {shard.split for shard in raw.shards} == {None, "train", "test"}
