"""All sources rotate, put on white and refuse the same image files."""

import io
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.ExifTags import Base

from mdpipe.data.sources.images import ON_WHITE, ROTATED
from tests.data.sources.source_contents import concatenate_batches, shards_of

SOURCES = ("image_folder", "parquet_images", "image_tar", "huggingface")
DARK, LIGHT = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 200)


def save_image(image, suffix="PNG", **settings):
    file = io.BytesIO()
    image.save(file, suffix, **settings)
    return file.getvalue()


def read(kind, folder, content, **settings):
    """The images of a source that has one file with this content, and what was counted of them."""
    match kind:
        case "image_folder":
            (folder / "a.png").write_bytes(content)
        case "image_tar":
            with tarfile.open(folder / "a.tar", "w") as archive:
                member = tarfile.TarInfo("a.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        case _:
            pq.write_table(pa.table({"image": [content]}), folder / "train-0.parquet")
    if kind == "huggingface":
        settings |= {"name": str(folder), "image_column": "image"}
        folder = folder / "downloads"
    counts = Counter()
    batches = [batch for shard in shards_of(kind, folder, **settings) for batch in shard.read(counts)]
    return concatenate_batches(batches).images, {what: counts[what] for what in (ROTATED, ON_WHITE)}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_turns_images_and_puts_them_on_white(tmp_path, kind):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    upside_down = Image.Exif()
    upside_down[Base.Orientation] = 3
    content = save_image(Image.fromarray(pixels, "RGBA"), exif=upside_down)
    images, counts = read(kind, tmp_path, content, mode="RGB")
    expected = np.full((1, 2, 3, 3), 255)
    expected[0, 1, 2] = (10, 20, 30)
    assert np.array_equal(images, expected)
    assert counts == {ROTATED: 1, ON_WHITE: 1}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n", "has the format EPS"),
        (
            save_image(Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 9)]),
            "has 2 frames",
        ),
        (save_image(Image.fromarray(np.full((2, 2), 4096, np.uint16))), "has the mode I;16, which cannot be read"),
    ],
    ids=["EPS", "animation", "16 bits"],
)
def test_every_source_refuses_the_same_files(tmp_path, kind, content, message):
    with pytest.raises(ValueError, match=message):
        read(kind, tmp_path, content, mode="L")
