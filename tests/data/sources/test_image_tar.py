"""Images in .tar archives, in the layout of the down-sampled ImageNet of van den Oord et al."""

import io
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdpipe.data.raw import IMAGES_PER_BATCH as BATCH
from mdpipe.data.sources import images as reading
from mdpipe.data.sources.files import compression
from mdpipe.data.sources.writer import write_shards
from tests.data.sources.source_contents import concatenate_batches, images_of, shards_of
from tests.data.sources.test_compressed_files import pack as compressed
from tests.data.sources.test_image_decoding import encode_image

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (BATCH + 20, 4, 5, 3), dtype=np.uint8)
COUNTS = {"train_64x64": BATCH + 15, "valid_64x64": 5}
PATTERN = {"train": "train_64x64.tar", "validation": "valid_64x64.tar"}


def pack(path, files, kind=tarfile.GNU_FORMAT):
    """Files by their names, in this order, and the folders that they are in."""
    with tarfile.open(path, "w", format=kind) as archive:
        for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def original(tmp_path):
    """Both archives, as they were to be had."""
    start = 0
    for name, count in COUNTS.items():
        images = PIXELS[start : start + count]
        pack(
            tmp_path / f"{name}.tar",
            {f"{name}/{index:05d}.png": encode_image(image) for index, image in enumerate(images)},
        )
        start += count
    return tmp_path


def by_split(kind, path, **settings):
    found = {}
    for shard in shards_of(kind, path, **settings):
        found.setdefault(shard.split, []).extend(shard.read(Counter()))
    return {split: concatenate_batches(batches) for split, batches in found.items()}


def test_an_archive_can_be_a_split_and_has_its_images_in_order(original):
    found = by_split("image_tar", original, pattern=PATTERN)
    assert list(found) == ["train", "validation"]
    assert np.array_equal(np.concatenate([found["train"].images, found["validation"].images]), PIXELS)
    assert {images.labels for images in found.values()} == {None}


def test_the_unpacked_archives_are_a_folder_with_the_same_images(original):
    for name in COUNTS:
        with tarfile.open(original / f"{name}.tar") as archive:
            archive.extractall(original, filter="data")
    packed = by_split("image_tar", original, pattern=PATTERN)
    pattern = {"train": "train_64x64/*.png", "validation": "valid_64x64/*.png"}
    for split, images in by_split("image_folder", original, pattern=pattern).items():
        assert np.array_equal(images.images, packed[split].images)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_every_format_are_read(tmp_path, kind):
    name = "a.png" if kind == tarfile.USTAR_FORMAT else "long" * 20 + "/" + "caf\u00e9" * 20 + ".png"
    pack(tmp_path / "a.tar", {name: encode_image(PIXELS[0])}, kind)
    assert np.array_equal(images_of("image_tar", tmp_path).images, PIXELS[:1])


def test_images_are_converted_and_cropped_by_settings(tmp_path):
    gray, large = PIXELS[0, ..., 0], np.full((8, 12, 3), 7, np.uint8)
    pack(tmp_path / "a.tar", {"a.png": encode_image(gray), "b.jpg": encode_image(large)})
    images = images_of("image_tar", tmp_path, mode="RGB", resize=4).images
    assert images.shape == (2, 4, 4, 3)
    assert np.all(images[1] == 7)


def test_an_image_of_another_size_is_named_with_its_archive(tmp_path):
    pack(tmp_path / "a.tar", {"x/a.png": encode_image(PIXELS[0]), "x/b.png": encode_image(PIXELS[0, :2])})
    with pytest.raises(ValueError, match=r"a\.tar: x/b\.png is 5 x 2 RGB but .*a\.tar: x/a\.png is 5 x 4 RGB"):
        images_of("image_tar", tmp_path)
    pack(tmp_path / "a.tar", {"readme": b"hello"})
    with pytest.raises(ValueError, match=r"a\.tar: readme is truncated or no image"):
        images_of("image_tar", tmp_path)


def test_an_archive_truncated_at_any_byte_is_named(tmp_path):
    pack(tmp_path / "a.tar", {f"{index}.png": encode_image(PIXELS[index]) for index in range(3)})
    content = (tmp_path / "a.tar").read_bytes()
    whole = 3 * 2 * tarfile.BLOCKSIZE
    assert not any(content[whole:])
    for kept in range(0, whole + 1, 64):
        (tmp_path / "a.tar").write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"a\.tar is truncated, damaged or not a \.tar archive \(.+\); replace it"):
            images_of("image_tar", tmp_path)


def test_a_damaged_file_description_is_not_taken_for_the_end(tmp_path):
    pack(tmp_path / "a.tar", {f"{index}.png": encode_image(PIXELS[index]) for index in range(3)})
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[2 * tarfile.BLOCKSIZE + 130] ^= 0x55
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar is truncated, .* \(it breaks off at byte 1,024\)"):
        images_of("image_tar", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", encode_image(PIXELS[0]) * 20])
def test_what_is_no_archive_is_named(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar is truncated, damaged or not a \.tar archive"):
        images_of("image_tar", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_refused_and_leads_nowhere(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(ValueError, match=r"a\.tar .*a\.png is not a file; pack it without links"):
        images_of("image_tar", tmp_path)


def test_a_file_that_says_it_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BYTES", 20)
    pack(tmp_path / "a.tar", {"a.png": encode_image(PIXELS[0])})
    with pytest.raises(ValueError, match=r"a\.tar .*a\.png has \d+ bytes, too many for an image"):
        images_of("image_tar", tmp_path)


def test_an_archive_of_any_size_takes_a_few_batches_of_memory(tmp_path):
    """Where each of its files has an entry of a kilobyte, and an image of three bytes."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    pack(tmp_path / "a.tar", {f"{index}.png": stream.getvalue() for index in range(20 * BATCH)})
    [shard] = shards_of("image_tar", tmp_path)
    tracemalloc.start()
    try:
        read = sum(len(batch.images) for batch in shard.read(Counter()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == 20 * BATCH
    assert peak < 4 * BATCH * 1000


@pytest.mark.parametrize("padding", [0, 512, 10240])
def test_concatenated_archives_are_all_read(tmp_path, padding):
    """As `cat a.tar b.tar` makes them."""
    content = bytearray()
    for start in (0, 3, 5):
        pack(tmp_path / "a.tar", {f"{index}.png": encode_image(PIXELS[index]) for index in range(start, start + 2)})
        content += (tmp_path / "a.tar").read_bytes() + bytes(padding)
    (tmp_path / "a.tar").write_bytes(content)
    assert np.array_equal(images_of("image_tar", tmp_path).images, PIXELS[[0, 1, 3, 4, 5, 6]])
    (tmp_path / "a.tar").write_bytes(content + b"more")
    with pytest.raises(ValueError, match=r"a\.tar is truncated, .* \(it breaks off at byte [\d,]+\)"):
        images_of("image_tar", tmp_path)


PACKED = [".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".TAR.GZ"]


@pytest.mark.parametrize("suffix", PACKED)
def test_a_packed_archive_gives_the_images_of_the_plain_one(tmp_path, suffix):
    pack(tmp_path / "a.tar", {f"{index}.png": encode_image(image) for index, image in enumerate(PIXELS)})
    content = (tmp_path / "a.tar").read_bytes()
    how = compression(Path(f"a{suffix}"))
    (tmp_path / f"b{suffix}").write_bytes(compressed(content, how))
    assert np.array_equal(images_of("image_tar", tmp_path, pattern=f"*{suffix}").images, PIXELS)
    (tmp_path / f"b{suffix}").write_bytes(compressed(content, how)[:-20])
    with pytest.raises(ValueError, match=rf"b{suffix} is truncated or no \{how} file .*; replace it"):
        images_of("image_tar", tmp_path, pattern=f"*{suffix}")


@pytest.mark.parametrize("how", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_archive_without_its_suffix_is_refused(tmp_path, how):
    pack(tmp_path / "a.tar", {"0.png": encode_image(PIXELS[0])})
    (tmp_path / "a.tar").write_bytes(compressed((tmp_path / "a.tar").read_bytes(), how))
    with pytest.raises(ValueError, match=rf"a\.tar is packed as \{how} files are; rename it to a\.tar\{how}"):
        shards_of("image_tar", tmp_path)


def test_other_files_and_hidden_ones_are_left_out_and_counted(tmp_path):
    """As WebDataset and macOS have them."""
    files = {}
    for index in range(3):
        files[f"{index}.png"] = encode_image(PIXELS[index])
        files |= {f"{index}.cls": b"3", f"{index}.json": b"{}", f"{index}.txt": b"a"}
        files |= {f"x/._{index}.png": b"resource fork", f"__MACOSX/x/{index}.png": b"", ".DS_Store": b""}
    pack(tmp_path / "a.tar", files)
    counts = Counter()
    [shard] = shards_of("image_tar", tmp_path)
    assert np.array_equal(concatenate_batches(list(shard.read(counts))).images, PIXELS[:3])
    assert counts == {"files": 1, "hidden files left out": 7, "files without an image suffix left out": 9}


@pytest.mark.parametrize("name", ["./0.png", "../0.png", "x.y/0.PNG", "0"])
def test_names_with_dots_are_not_hidden(tmp_path, name):
    pack(tmp_path / "a.tar", {name: encode_image(PIXELS[0])})
    assert np.array_equal(images_of("image_tar", tmp_path).images, PIXELS[:1])


def test_an_archive_of_other_files_says_what_it_has(tmp_path):
    pack(tmp_path / "a.tar", {"a.txt": b"hello", "b.txt": b"hello"})
    message = r"no documents or images; .* \(found: 1 file; 2 files without an image suffix left out\)"
    with pytest.raises(ValueError, match=message):
        write_shards(tmp_path / "raw", "image_tar", shards_of("image_tar", tmp_path), tmp_path / "work_dir")


def test_images_of_one_name_are_all_read_and_counted(tmp_path):
    content = bytearray()
    for start in (0, 3):
        pack(tmp_path / "a.tar", {f"{index}.png": encode_image(PIXELS[start + index]) for index in range(3)})
        content += (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content)
    counts = Counter()
    [shard] = shards_of("image_tar", tmp_path)
    assert np.array_equal(concatenate_batches(list(shard.read(counts))).images, PIXELS[:6])
    assert counts == {"files": 1, "images with the name of an earlier one": 3}


def test_a_name_with_escape_codes_is_shown_without_them(tmp_path):
    pack(tmp_path / "a.tar", {"\x1b[2J\x1b[1;31m\nok.png": b"no image"})
    message = r"a\.tar: \\x1b\[2J\\x1b\[1;31m\\nok\.png is truncated or no image"
    with pytest.raises(ValueError, match=message) as refused:
        images_of("image_tar", tmp_path)
    assert str(refused.value).isprintable()
    assert "0x" not in str(refused.value)


def test_a_zip_archive_is_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", encode_image(PIXELS[0]))
    with pytest.raises(ValueError, match=r"a\.zip is not for this source: .* does not read \.zip files: unpack it"):
        shards_of("image_tar", tmp_path, pattern="*")
    (tmp_path / "a.zip").rename(tmp_path / "a.tar")
    with pytest.raises(ValueError, match=r"a\.tar begins as a \.zip file does: .* unpack it"):
        shards_of("image_tar", tmp_path)
