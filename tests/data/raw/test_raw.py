"""Raw folders of documents and images."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.raw import Document, ImageBatch, read_images
from mdpipe.data.sources.writer import SourceShard, write_shards
from tests.data.shards import read_documents, write_raw

pytestmark = pytest.mark.slow

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
IMAGES = ImageBatch(np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([0, 0], np.int32), 255)
LABELED = replace(IMAGES, labels=np.array([1, 0]), class_names=("cat", "dog"))


@given(texts=st.lists(unicode_text, min_size=1, max_size=5))
def test_documents_come_back_as_they_were(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("raw") / "corpus"
    documents = [Document(f"{index:03d}", text) for index, text in enumerate(texts)]
    write_raw(directory, "jsonl", iter(documents))
    assert list(read_documents(directory)) == documents
    source = json.loads((directory / "source.json").read_text())
    whole = "".join(texts)
    counts = {"documents": len(texts), "characters": len(whole), "bytes": len(whole.encode())}
    assert source == {
        "modality": "text",
        "kind": "jsonl",
        "shards": [{"split": None, **counts}],
        "read": {},
        **counts,
    }


def test_images_come_back_as_they_were(tmp_path):
    write_raw(tmp_path / "p", "npy", IMAGES)
    back = read_images(tmp_path / "p")
    assert np.array_equal(back.images, IMAGES.images)
    assert back.shards[0].keys.tolist() == [b"0", b"0"]
    assert back.maximum == 255
    source = json.loads((tmp_path / "p" / "source.json").read_text())
    assert source["images"] == 2
    assert source["shape"] == [2, 2, 3]
    assert (back.labels_of(back.shards[0]), back.classes, source["classes"], source["class_names"]) == (None, 0, 0, [])
    assert not (tmp_path / "p" / "labels-00000.npy").exists()


def test_labels_and_class_names_round_trip(tmp_path):
    write_raw(tmp_path / "p", "image_folder", LABELED)
    back = read_images(tmp_path / "p")
    labels = back.labels_of(back.shards[0])
    assert labels.tolist() == [1, 0]
    assert labels.dtype == np.int64
    assert back.class_names == ("cat", "dog")
    source = json.loads((tmp_path / "p" / "source.json").read_text())
    assert (source["classes"], source["class_names"]) == (2, ["cat", "dog"])


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_documents_out_of_order_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="distinct and sorted"):
        write_raw(tmp_path / "x", "jsonl", [Document(name, "text") for name in names])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("nothing", [[], ImageBatch(np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, np.int32), 255)])
def test_a_source_of_nothing_is_refused(tmp_path, nothing):
    with pytest.raises(ValueError, match=r"the source has no .* params\.yaml"):
        write_raw(tmp_path / "x", "jsonl", nothing)


@pytest.mark.parametrize("line", [b'{"name": "b", "te', b'{"name": "b"}', b"3", b'\xff"'])
def test_a_broken_line_is_named_with_a_hint(tmp_path, line):
    write_raw(tmp_path / "docs", "jsonl", [Document("a", "text")])
    with (tmp_path / "docs" / "documents-00000.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(ValueError, match=r"documents-00000\.jsonl:2 is broken .* `dvc repro download@docs` again"):
        list(read_documents(tmp_path / "docs"))


def test_a_missing_file_is_named_with_a_hint(tmp_path):
    write_raw(tmp_path / "docs", "jsonl", [Document("a", "text")])
    (tmp_path / "docs" / "documents-00000.jsonl").unlink()
    with pytest.raises(ValueError, match=r"documents-00000\.jsonl does not exist; run `dvc repro download@docs` again"):
        list(read_documents(tmp_path / "docs"))


def test_the_other_modality_is_refused(tmp_path):
    write_raw(tmp_path / "p", "npy", IMAGES)
    with pytest.raises(ValueError, match="holds image data, not text"):
        list(read_documents(tmp_path / "p"))


@pytest.mark.parametrize(
    ("file", "array"),
    [
        ("images-00000.npy", np.zeros((2, 2, 2), np.uint8)),
        ("images-00000.npy", np.zeros((2, 2, 2, 3), np.int64)),
        ("keys-00000.npy", np.zeros(3, np.int32)),
        ("keys-00000.npy", np.zeros(2, np.int64)),
        ("labels-00000.npy", np.zeros(3, np.int64)),
        ("labels-00000.npy", np.zeros(2, np.int32)),
    ],
)
def test_images_of_the_wrong_shape_or_type_are_named_with_a_hint(tmp_path, file, array):
    write_raw(tmp_path / "p", "npy", LABELED)
    np.save(tmp_path / "p" / file, array)
    with pytest.raises(ValueError, match=rf"{file} should be .* `dvc repro download@p` again"):
        read_images(tmp_path / "p")


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_that_is_no_class_is_named_with_a_hint(tmp_path, label):
    write_raw(tmp_path / "p", "npy", LABELED)
    np.save(tmp_path / "p" / "labels-00000.npy", np.array([0, label]))
    with pytest.raises(
        ValueError, match=rf"labels-00000.npy has labels .*{label}.* 2 classes; run `dvc repro download@p`"
    ):
        read_images(tmp_path / "p")


@pytest.mark.parametrize("key", ["maximum", "classes", "class_names"])
def test_an_incomplete_description_is_named_with_a_hint(tmp_path, key):
    write_raw(tmp_path / "p", "npy", IMAGES)
    path = tmp_path / "p" / "source.json"
    source = json.loads(path.read_text())
    del source[key]
    path.write_text(json.dumps(source))
    with pytest.raises(ValueError, match=rf"source.json: {key}: Field required; run `dvc repro download@p` again"):
        read_images(tmp_path / "p")


class TestWhatIsPublishedOfASetIsCompared:
    @pytest.fixture
    def write(self, tmp_path):
        def write(expected):
            shards = [_shard("train", "one", "two"), _shard("test", "three")]
            write_shards(tmp_path / "docs", "huggingface", shards, tmp_path / "work_dir", expected)

        return write

    @pytest.mark.parametrize("expected", [None, {}, {"train": 2, "test": 1}, {"characters": 11}, {"validation": 5}])
    def test_a_set_of_that_size_is_kept(self, write, expected, tmp_path):
        write(expected)
        assert len(list(read_documents(tmp_path / "docs"))) == 3

    @pytest.mark.parametrize(("expected", "found"), [({"train": 3}, "and there are 2"), ({"characters": 12}, "are 11")])
    def test_another_one_is_refused_and_nothing_is_written(self, write, expected, found, tmp_path):
        with pytest.raises(ValueError, match=rf"should be .* by the catalog, .*{found}.* not the published"):
            write(expected)
        assert not (tmp_path / "docs").exists()


def _shard(split, *texts):
    return SourceShard(split, 0, partial(_documents, texts))


def _documents(texts, counts):
    return (Document(f"{number}", text) for number, text in enumerate(texts))
