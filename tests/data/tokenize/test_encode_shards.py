"""Encoding in shards: neither shards, nor processes, nor a kill, nor a full disk show in what is written."""

import errno
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.parallel import WORKERS
from mdpipe.data.raw import Document, ImageBatch, read_images
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize import images as images_module
from mdpipe.data.tokenize import text as text_module
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.params.data import PACKINGS
from tests.data.builders import encode_images, encode_text, last, last_characters, make_tokenizer, windows
from tests.data.killed_processes import marks, run_until
from tests.data.shards import folder_bytes, in_parts, make_documents, streams, write_image_shards, write_texts

pytestmark = pytest.mark.slow

BYTES = make_tokenizer("bytes")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


@pytest.fixture(scope="module")
def image_batch():
    """Sixty different images of 6 x 5 x 3 in three classes, two of a group in a row."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
    labels = random.permutation(np.arange(60) % 3)
    return ImageBatch(images, np.arange(60, dtype=np.int32) // 2, 255, labels, ("a", "b", "c"))


def of_the_same_tokens(one, many):
    """That two folders differ in how the tokens are cut in files, and in nothing else."""
    first, second = streams(one), streams(many)
    assert all(np.array_equal(first[split], second[split]) for split in SPLITS)
    for name in folder_bytes(one).keys() | folder_bytes(many).keys():
        if "-0" not in name:
            assert (one / name).read_bytes() == (many / name).read_bytes(), name


class TestShards:
    @pytest.mark.parametrize(
        "specs",
        [(0.2, 0.2), (last(8), 0.1), (last_characters(301), last_characters(150)), (windows(0.3), windows(0.2))],
        ids=str,
    )
    @pytest.mark.parametrize("convention", PACKINGS)
    @pytest.mark.parametrize("kind", ["text8", "bytes", "sentencepiece"])
    def test_text_has_the_same_tokens_in_five_shards(self, tmp_path, texts, subwords, kind, convention, specs):
        """A text in parts among the documents, so that shards end within it."""
        tokenizer = subwords if kind == "sentencepiece" else make_tokenizer(kind)
        long = in_parts(" ".join(texts[:12]), [5, 40, 300, 301, 700, 1000], "000019a")
        documents = [*make_documents(texts)[:20], *long, *make_documents(texts)[20:]]
        for shards in (1, 5):
            raw = write_texts(tmp_path / f"r{shards}", documents, shards)
            encode_text(raw, tokenizer, tmp_path / f"e{shards}", 16, 2, *specs, PACKINGS[convention])
        of_the_same_tokens(tmp_path / "e1", tmp_path / "e5")
        assert len(list((tmp_path / "e5").glob("train-*.npy"))) > 1

    @settings(max_examples=30)
    @given(
        text=st.text("ab .", max_size=12).map("a".__add__),
        after=st.sampled_from([[], ["b"], [".", "b"]]),
        data=st.data(),
    )
    @pytest.mark.parametrize("convention", ["stream", "text8"])
    def test_words_continue_across_shards_as_within_one(self, tmp_path_factory, convention, text, after, data):
        """Every part in a shard of its own, also one of which nothing is left."""
        folder = tmp_path_factory.mktemp("joints")
        cuts = data.draw(st.lists(st.integers(1, max(len(text) - 1, 1)), unique=True, max_size=4))
        parts = in_parts(text, [cut for cut in cuts if cut < len(text)], "000")
        documents = [*parts, *(Document(f"1{number}", text) for number, text in enumerate(after))]
        for shards in (1, len(documents)):
            raw = write_texts(folder / f"r{shards}", documents, shards)
            encode_corpus(raw, make_tokenizer("text8"), folder / f"e{shards}", 1, PACKINGS[convention])
        one, many = (streams(folder / f"e{shards}", ["test"])["test"] for shards in (1, len(documents)))
        assert one.tolist() == many.tolist()

    def test_no_space_comes_before_the_first_word_of_a_text_with_eos(self, tmp_path):
        documents = [*make_documents(["b"]), *in_parts(".ab", [1], "1")]
        letters = make_tokenizer("text8")
        encode_corpus(write_texts(tmp_path / "r", documents, 3), letters, tmp_path / "e", 1)
        assert letters.decode(streams(tmp_path / "e", ["test"])["test"]) == "b ab "

    def test_another_corpus_has_the_same_tokens_in_five_shards(self, tmp_path, texts):
        for shards in (1, 5):
            raw = write_texts(tmp_path / f"r{shards}", make_documents(texts), shards)
            encode_corpus(raw, BYTES, tmp_path / f"e{shards}", 16, PACKINGS["mdlm_zero_shot"])
        one, five = (streams(tmp_path / f"e{shards}", ["test"])["test"] for shards in (1, 5))
        assert np.array_equal(one, five)
        assert (tmp_path / "e1" / "dataset.json").read_bytes() == (tmp_path / "e5" / "dataset.json").read_bytes()

    @pytest.mark.parametrize("specs", [(0.2, 0.2), (last(8), 0.1)], ids=str)
    def test_images_have_the_same_tokens_and_labels_in_five_shards(self, tmp_path, image_batch, specs):
        for shards in (1, 5):
            raw = write_image_shards(tmp_path / f"r{shards}", image_batch, shards)
            encode_images(raw, 16, 4, 1, tmp_path / f"e{shards}", 2, *specs)
        of_the_same_tokens(tmp_path / "e1", tmp_path / "e5")
        for split in SPLITS:
            labels = [EncodedDataset.open(tmp_path / f"e{shards}", split).require_labels() for shards in (1, 5)]
            assert np.array_equal(*labels)

    def test_every_tile_has_the_label_of_its_image_in_any_shard(self, tmp_path, image_batch):
        raw = write_image_shards(tmp_path / "r", image_batch, 4)
        encode_images(raw, 256, 4, 1, tmp_path / "e", 2, 0.2, 0.2)
        label_of = {}
        for image, label in zip(image_batch.images, image_batch.labels.tolist(), strict=True):
            for top in range(3):
                label_of |= {image[top : top + 4, left : left + 4].tobytes(): label for left in range(2)}
        for split in SPLITS:
            dataset = EncodedDataset.open(tmp_path / "e", split)
            found = [label_of[row.tobytes()] for row in np.asarray(dataset.tokens)]
            assert found == np.asarray(dataset.require_labels()).tolist()

    def test_a_shard_of_labels_that_is_missing_is_named_with_a_hint(self, tmp_path, image_batch):
        """The others would be taken for those of the images before them."""
        encode_images(write_image_shards(tmp_path / "r", image_batch, 3), 16, 4, 1, tmp_path / "e", 2, 0.2, 0.2)
        (tmp_path / "e" / "train_labels-00002.npy").unlink()
        with pytest.raises(ValueError, match=r"train_labels-00002\.npy does not exist; run `dvc repro encode@e` again"):
            EncodedDataset.open(tmp_path / "e", "train")

    def test_raw_images_in_shards_are_read_as_one(self, tmp_path, image_batch):
        back = read_images(write_image_shards(tmp_path / "r", image_batch, 4))
        assert np.array_equal(np.asarray(back.images), image_batch.images)


class TestProcesses:
    def test_their_number_changes_no_byte_of_text(self, tmp_path, texts, subwords, monkeypatch):
        raw = write_texts(tmp_path / "r", make_documents(texts), 4)
        for count in ("1", "2"):
            monkeypatch.setenv(WORKERS, count)
            encode_text(raw, subwords, tmp_path / count, 16, 2, 0.2, 0.2, PACKINGS["mdlm"])
        assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "2")

    def test_their_number_changes_no_byte_of_images(self, tmp_path, image_batch, monkeypatch):
        for count in ("1", "2"):
            monkeypatch.setenv(WORKERS, count)
            raw = write_image_shards(tmp_path / f"r{count}", image_batch, 3)
            encode_images(raw, 16, 4, 1, tmp_path / count, 2, 0.2, 0.2)
        assert folder_bytes(tmp_path / "r1") == folder_bytes(tmp_path / "r2")
        assert folder_bytes(tmp_path / "1") == folder_bytes(tmp_path / "2")


SCRIPT = """
from pathlib import Path
from tests.data.builders import encode_images, encode_text, last, make_tokenizer

if __name__ == "__main__":
    tokenizer = make_tokenizer("bytes")
    raw, directory, work_dir = Path({raw!r}), Path({directory!r}), Path({work_dir!r})
    {call}
"""
TEXT = "encode_text(raw, tokenizer, directory, 16, 2, last(50), 0.1, work_dir=work_dir)"
IMAGES = "encode_images(raw, 16, 8, 2, directory, 2, 0.1, 0.1, work_dir=work_dir)"


class TestKilled:
    """By SIGKILL, and run again with the same work folder."""

    @staticmethod
    def kill_and_finish(tmp_path, raw, call, moments, finish):
        """Kill it at each moment, (folder of shards, number of shards), and finish it by `finish(directory)`."""
        work_dir, script = tmp_path / "work_dir", tmp_path / "script.py"
        paths = {"raw": str(raw), "directory": str(tmp_path / "e"), "work_dir": str(work_dir)}
        script.write_text(SCRIPT.format(call=call, **paths))
        killed = 0
        for stage, wanted in moments:

            def is_reached(stage=stage, wanted=wanted):
                return len({path.parent for path in marks(work_dir / stage)}) >= wanted

            kept = marks(work_dir / "tokens")
            killed += run_until(script, 2, is_reached)[0]
            assert kept.items() <= marks(work_dir / "tokens").items()
        assert killed
        kept = marks(work_dir / "tokens")
        finish(tmp_path / "e", work_dir)
        if work_dir.exists():
            assert kept.items() <= marks(work_dir / "tokens").items()
        finish(tmp_path / "undisturbed", None)
        assert folder_bytes(tmp_path / "e") == folder_bytes(tmp_path / "undisturbed")
        leftovers = {path.name for path in tmp_path.iterdir()} - {"r", "e", "work_dir", "script.py", "undisturbed"}
        assert not leftovers

    def test_text_has_the_same_bytes_and_finished_shards_are_reused(self, tmp_path):
        random = np.random.default_rng(0)
        sentences = [" ".join(random.choice(["one", "two", "three", "four"], 40)) for _ in range(200)]
        raw = write_texts(tmp_path / "r", make_documents([sentences[row] for row in random.integers(0, 200, 6000)]), 6)

        def finish(directory, work_dir):
            encode_text(raw, BYTES, directory, 16, 2, last(50), 0.1, work_dir=work_dir)

        self.kill_and_finish(tmp_path, raw, TEXT, [("tokens", 1), ("tokens", 4), ("contamination", 1)], finish)

    def test_images_keep_their_bytes_and_reuse_finished_shards(self, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (9000, 16, 16, 1), dtype=np.uint8)
        raw = write_image_shards(tmp_path / "r", ImageBatch(images, None, 255), 6)

        def finish(directory, work_dir):
            encode_images(raw, 16, 8, 2, directory, 2, 0.1, 0.1, work_dir=work_dir)

        self.kill_and_finish(tmp_path, raw, IMAGES, [("tokens", 1), ("tokens", 3)], finish)


FULL = "No space left|the disk of .* is full; unfinished shards were removed"
"""What is said of a full disk: in the end, and of a shard."""


def full_once(original):
    """A writer that finds the disk full the first time."""
    first = iter([True])

    def write(*args, **settings):
        if next(first, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args, **settings)

    return write


class TestFullDisk:
    @pytest.mark.parametrize("with_work_dir", [False, True])
    @pytest.mark.parametrize(
        ("owner", "writer"),
        [
            (ArrayFile, "append"),
            (np, "save"),
            *((text_module, name) for name in ("link_or_copy", "write_header", "write_manifest")),
        ],
        ids=lambda value: getattr(value, "__name__", value),
    )
    def test_the_former_text_stays_and_the_next_try_succeeds(
        self, tmp_path, texts, monkeypatch, owner, writer, with_work_dir
    ):
        raw = write_texts(tmp_path / "r", make_documents(texts), 2)
        work_dir = tmp_path / "work_dir" if with_work_dir else None

        def encode(directory, seed, work_dir=None):
            encode_text(raw, BYTES, directory, 16, seed, 0.2, 0.2, PACKINGS["sedd"], work_dir=work_dir)

        encode(tmp_path / "e", seed=1)
        former = folder_bytes(tmp_path / "e")
        with monkeypatch.context() as patch:
            patch.setattr(owner, writer, full_once(getattr(owner, writer)))
            with pytest.raises((OSError, ValueError), match=FULL):
                encode(tmp_path / "e", 2, work_dir)
        assert folder_bytes(tmp_path / "e") == former
        assert {path.name for path in tmp_path.iterdir()} - {"work_dir"} == {"r", "e"}
        encode(tmp_path / "e", 2, work_dir)
        encode(tmp_path / "fresh", 2)
        assert folder_bytes(tmp_path / "e") == folder_bytes(tmp_path / "fresh") != former

    @pytest.mark.parametrize(
        ("owner", "writer"),
        [(ArrayFile, "append"), (np, "save"), *((images_module, name) for name in ("link_or_copy", "write_header"))],
        ids=lambda value: getattr(value, "__name__", value),
    )
    def test_the_former_images_stay_as_they_are(self, tmp_path, image_batch, monkeypatch, owner, writer):
        raw = write_image_shards(tmp_path / "r", image_batch, 2)
        encode_images(raw, 16, 4, 1, tmp_path / "e", 1, 0.2, 0.2)
        former = folder_bytes(tmp_path / "e")
        monkeypatch.setattr(owner, writer, full_once(getattr(owner, writer)))
        with pytest.raises((OSError, ValueError), match=FULL):
            encode_images(raw, 16, 4, 1, tmp_path / "e", 2, 0.2, 0.2)
        assert folder_bytes(tmp_path / "e") == former
        assert {path.name for path in tmp_path.iterdir()} == {"r", "e"}


def test_without_a_work_folder_nothing_else_stays(tmp_path, texts, image_batch):
    text, image = (
        write_texts(tmp_path / "t", make_documents(texts), 2),
        write_image_shards(tmp_path / "i", image_batch, 2),
    )
    encode_text(text, BYTES, tmp_path / "e" / "text", 16, 1, 0.2, 0.2)
    encode_corpus(text, BYTES, tmp_path / "e" / "corpus", 16)
    encode_images(image, 16, 4, 1, tmp_path / "e" / "image", 1, 0.2, 0.2)
    assert {path.name for path in tmp_path.iterdir()} == {"t", "i", "e"}
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"text", "corpus", "image"}


def test_what_a_source_left_out_is_counted_over_all_its_parts(tmp_path, texts):
    raw = write_texts(tmp_path / "r", make_documents(texts), 5)
    assert json.loads((raw / "source.json").read_text())["read"] == {"documents seen": len(texts)}
