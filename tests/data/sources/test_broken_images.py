"""All broken images of a source are found before it is refused."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdpipe.data.sources.writer import MAX_LISTED, write_shards
from tests.data.sources.source_contents import shard_bytes, shards_of
from tests.data.sources.test_image_decoding import encode_image

SOUND = encode_image(np.zeros((4, 4), np.uint8))
OTHER = encode_image(np.zeros((4, 5), np.uint8))


def write(folder, kind, contents):
    match kind:
        case "image_folder":
            for number, content in enumerate(contents):
                (folder / f"{number}.png").write_bytes(content)
        case "image_tar":
            with tarfile.open(folder / "a.tar", "w") as archive:
                for number, content in enumerate(contents):
                    member = tarfile.TarInfo(f"{number}.png")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        case "parquet_images":
            pq.write_table(pa.table({"image": contents}), folder / "a.parquet", row_group_size=2)


def refusal(folder, kind):
    shards = shards_of(kind, folder)
    with pytest.raises(ValueError) as error:
        write_shards(folder / "raw", kind, shards, folder / "work_dir")
    assert not (folder / "raw").exists()
    return str(error.value).splitlines()


@pytest.mark.parametrize("kind", ["image_folder", "image_tar", "parquet_images"])
@pytest.mark.parametrize("size", [1, 2**25], ids=["a shard per image", "one shard"])
def test_broken_images_are_counted_and_the_first_is_named(tmp_path, monkeypatch, kind, size):
    monkeypatch.setenv("MDPIPE_WORKERS", "1")
    write(tmp_path, kind, [b"no image", SOUND, SOUND[:30], SOUND, b"", b"GIF89a"])
    with shard_bytes(size):
        head, *lines, last = refusal(tmp_path, kind)
    assert head == "4 images cannot be used:"
    assert len(lines) == MAX_LISTED
    for number, line in zip((0, 2, 4), lines, strict=True):
        assert f"{number}.png is" in line or f":{number:010d} is" in line
        assert line.endswith("replace or remove it")
    assert last == "and 1 more"


def test_one_broken_image_is_named_in_one_line(tmp_path):
    write(tmp_path, "image_folder", [SOUND, b"no image"])
    [line] = refusal(tmp_path, "image_folder")
    assert "1.png is truncated or no image" in line


def test_images_of_another_size_are_counted_too(tmp_path):
    write(tmp_path, "image_folder", [SOUND, OTHER, b"no image", OTHER])
    head, *lines = refusal(tmp_path, "image_folder")
    assert head == "3 images cannot be used:"
    assert ["5 x 4 gray but" in line for line in lines] == [True, False, True]


def test_repaired_images_are_read_the_next_time(tmp_path, monkeypatch):
    """Although the finished shards of a refused source are kept."""
    monkeypatch.setenv("MDPIPE_WORKERS", "1")
    write(tmp_path, "image_folder", [SOUND, b"no image"])
    with shard_bytes(1):
        refusal(tmp_path, "image_folder")
        assert [folder.name for folder in (tmp_path / "work_dir").iterdir()] == ["00000"]
        write(tmp_path, "image_folder", [SOUND, SOUND])
        write_shards(tmp_path / "raw", "image_folder", shards_of("image_folder", tmp_path), tmp_path / "work_dir")
    assert (tmp_path / "raw" / "source.json").exists()
