"""Data sets of a hub, in a folder that is laid out as a repository on the hub is; nothing leaves this machine."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.sources.source_contents import (
    concatenate_batches,
    counts_of,
    documents_of,
    images_of,
    shard_bytes,
    shards_of,
    texts_of,
)
from tests.data.sources.test_image_decoding import encode_image

pytestmark = pytest.mark.slow

TRAIN = [f"train {number}" for number in range(7)]
TEST = ["test 0", "test 1"]
NAMES = ["cat", "dog"]
ROOT = Path(__file__).parents[3]
RGB = np.random.default_rng(0).integers(0, 256, (5, 4, 5, 3), dtype=np.uint8)
LABELS = [1, 0, 0, 1, 1]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    from datasets import config
    from huggingface_hub import constants

    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def write_card(folder, configs):
    entries = ""
    for name, splits in configs.items():
        files = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in splits.items())
        entries += f"- config_name: {name}\n  data_files:\n{files}"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{entries}---\n\n# A data set\n")


@pytest.fixture
def repository(tmp_path):
    """Texts in two configurations."""
    folder = tmp_path / "hub" / "texts"
    write_card(
        folder,
        {
            "plain": {"train": "data/train-*", "test": "data/test-*"},
            "raw": {"train": "raw/train-*"},
        },
    )
    files = {
        "data/train-00000-of-00002": TRAIN[:4],
        "data/train-00001-of-00002": TRAIN[4:],
        "data/test-00000-of-00001": TEST,
        "raw/train-00000-of-00001": ["raw", None, ""],
    }
    for name, texts in files.items():
        file = folder / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        rows = pa.table({"id": list(range(len(texts))), "text": texts})
        pq.write_table(rows, file, row_group_size=2)
    return folder


def test_text_that_is_not_utf_8_is_named(tmp_path, repository):
    broken = pa.table({"text": pa.array([b"fine", b"caf\xe9"]).view(pa.string())})
    pq.write_table(broken, repository / "raw/train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"the split 'train' has text that is not UTF-8 in one of the rows 0 to 1 \("):
        texts_of("huggingface", tmp_path / "downloads", name=str(repository), config="raw")


@pytest.fixture
def gallery(tmp_path):
    """Images with classes, as `datasets` uploads them."""
    from datasets import ClassLabel, Dataset, Features, Image

    folder = tmp_path / "hub" / "images"
    write_card(folder, {"default": {"train": "data/train-*", "test": "data/test-*"}})
    (folder / "data").mkdir()
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    for name, chosen in (("train", slice(0, 3)), ("test", slice(3, 5))):
        rows = {
            "image": [{"bytes": encode_image(image), "path": "a.png"} for image in RGB[chosen]],
            "label": LABELS[chosen],
        }
        dataset = Dataset.from_dict(rows, features=features)
        dataset.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("size", [1, 2**25])
def test_rows_are_named_by_split_and_number_for_any_shard_size(tmp_path, repository, size):
    settings = {"name": str(repository), "config": "plain", "splits": ["train", "test"]}
    with shard_bytes(size):
        shards = shards_of("huggingface", tmp_path / "downloads", **settings)
    documents = documents_of("huggingface", tmp_path / "downloads", **settings)
    assert [(document.name, document.text) for document in documents] == [
        *((f"train:{number:010d}", text) for number, text in enumerate(TRAIN)),
        *((f"test:{number:010d}", text) for number, text in enumerate(TEST)),
    ]
    assert [document for shard in shards for document in shard.read(Counter())] == documents
    assert [shard.split for shard in shards] == (["train"] * 7 + ["test"] * 2 if size == 1 else ["train", "test"])
    assert all(shard.size > 0 for shard in shards)


def test_a_configuration_has_files_of_its_own(tmp_path, repository):
    settings = {"name": str(repository), "config": "raw", "empty_documents": "drop"}
    assert texts_of("huggingface", tmp_path / "downloads", **settings) == ["raw"]
    assert counts_of("huggingface", tmp_path / "downloads", **settings) == {"empty rows left out": 2}
    settings["empty_documents"] = "keep"
    assert texts_of("huggingface", tmp_path / "downloads", **settings) == ["raw", "", ""]


def test_a_row_without_text_is_named(tmp_path, repository):
    with pytest.raises(ValueError, match=r"train:0000000001 has no text in 'text' but ''; .*`empty_documents`"):
        texts_of("huggingface", tmp_path / "downloads", name=str(repository), config="raw")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"splits": ["validation"]}, r'Unknown split "validation"\. Should be one of'),
        ({"config": "fine"}, r"'fine' not found\. Available: \['plain', 'raw'\]"),
        ({"config": None}, r"Please pick one among the available configs: \['plain', 'raw'\]"),
        ({"config": "raw", "splits": ["train", "test"]}, 'Unknown split "test"'),
        ({"columns": ["body"]}, r"has no column 'body', only 'id', 'text'; correct the source's `columns` in params"),
    ],
)
def test_what_a_data_set_does_not_have_is_named_with_what_it_has(tmp_path, repository, settings, message):
    with pytest.raises(ValueError, match=message):
        shards_of("huggingface", tmp_path / "downloads", **{"name": str(repository), "config": "plain", **settings})


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_data_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=rf"the data set .*{name} .* cannot be loaded \(.*\); .* correct it in params\.yaml"
    ):
        shards_of("huggingface", tmp_path / "downloads", name=str(tmp_path / name))


def test_a_truncated_file_is_refused(tmp_path, repository):
    file = repository / "data" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"the data set .* cannot be loaded"):
        shards_of("huggingface", tmp_path / "downloads", name=str(repository), config="plain", splits=["test"])


@pytest.mark.parametrize("case", ["offline", "a server that hangs up"])
def test_a_name_that_cannot_be_loaded_is_named_with_a_hint(tmp_path, case):
    """In another process, since the library reads its environment when it is imported."""
    script = """
        import socket, sys, threading, os
        from pathlib import Path

        def hang_up(server):
            while True:
                server.accept()[0].close()

        server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        from tests.data.sources.source_contents import shards_of
        try:
            shards_of("huggingface", Path(sys.argv[1]), name="owner/name", revision="v1")
        except ValueError as error:
            print(error)
    """
    offline = "1" if case == "offline" else "0"
    environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert done.stdout.startswith("the data set owner/name (config None, split train, revision v1) cannot be loaded (")
    assert "fetch it elsewhere with `hf download --repo-type dataset owner/name --local-dir FOLDER` and" in done.stdout
    assert done.stdout.removesuffix("\n").isprintable()
    assert "0x" not in done.stdout


@pytest.mark.parametrize("size", [1, 2**25])
def test_a_row_is_an_image_with_the_class_names_of_the_hub(tmp_path, gallery, size):
    settings = {"name": str(gallery), "splits": ["train", "test"], "image_column": "image", "label_column": "label"}
    with shard_bytes(size):
        shards = shards_of("huggingface", tmp_path / "downloads", **settings)
    found = [(shard.split, concatenate_batches(list(shard.read(Counter())))) for shard in shards]
    together = concatenate_batches([images for _, images in found])
    assert np.array_equal(together.images, RGB)
    assert together.labels.tolist() == LABELS
    assert {images.class_names for _, images in found} == {tuple(NAMES)}
    assert (together.groups, together.maximum) == (None, 255)
    assert [split for split, _ in found] == (["train"] * 3 + ["test"] * 2 if size == 1 else ["train", "test"])


def test_images_have_no_classes_without_a_label_column(tmp_path, gallery):
    assert images_of("huggingface", tmp_path / "downloads", name=str(gallery), image_column="image").labels is None


def test_images_are_cut_to_one_size(tmp_path, gallery):
    images = images_of("huggingface", tmp_path / "downloads", name=str(gallery), image_column="image", resize=2)
    assert images.images.shape == (3, 2, 2, 3)


@pytest.mark.parametrize(("column", "missing"), [("image_column", "picture"), ("label_column", "kind")])
def test_a_column_that_images_do_not_have_is_named(tmp_path, gallery, column, missing):
    with pytest.raises(ValueError, match=rf"has no column '{missing}', only 'image', 'label'"):
        settings = {"name": str(gallery), "image_column": "image", column: missing}
        shards_of("huggingface", tmp_path / "downloads", **settings)


def test_a_data_set_of_image_files_is_read_as_one_of_rows(tmp_path):
    folder = tmp_path / "hub" / "files"
    for index, image in enumerate(RGB):
        path = folder / "data" / "train" / NAMES[LABELS[index]] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    images = images_of(
        "huggingface", tmp_path / "downloads", name=str(folder), image_column="image", label_column="label"
    )
    order = sorted(range(5), key=lambda index: LABELS[index])
    assert np.array_equal(images.images, RGB[order])
    assert images.labels.tolist() == sorted(LABELS)
    assert images.class_names == tuple(NAMES)


def test_a_local_folder_is_read_again_when_it_changes(tmp_path, repository):
    """DVC, which watches the folder, runs the stage again; the library must not give the rows that it keeps."""
    settings = {"name": str(repository), "config": "plain", "splits": ["test"]}
    assert texts_of("huggingface", tmp_path / "downloads", **settings) == TEST
    changed = [text.upper() for text in TEST]
    file = repository / "data" / "test-00000-of-00001.parquet"
    pq.write_table(pa.table({"id": list(range(len(changed))), "text": changed}), file)
    assert texts_of("huggingface", tmp_path / "downloads", **settings) == changed


def test_rows_are_counted(tmp_path, repository):
    counts = Counter()
    for shard in shards_of(
        "huggingface", tmp_path / "downloads", name=str(repository), config="raw", empty_documents="drop"
    ):
        list(shard.read(counts))
    assert counts == {"files": 0, "rows": 3, "empty rows left out": 2}
