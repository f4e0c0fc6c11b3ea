"""The manifest: what it says of an encoded dataset is true, and says it twice."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.parallel import WORKERS
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize.manifest import WINDOW
from mdpipe.params.data import PACKINGS
from tests.data.builders import (
    document_ids,
    encode_images,
    encode_text,
    last,
    last_characters,
    make_tokenizer,
    plan_splits,
    windows,
)
from tests.data.shards import by_split, in_parts, make_documents, text_shard, write_all, write_image_shards, write_texts

BYTES, TEXT8 = make_tokenizer("bytes"), make_tokenizer("text8")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def manifest(directory):
    return json.loads((directory / "manifest.json").read_text())


def splits_of(raw, directory, *specs, tokenizer=BYTES, length=4, packing="stream"):
    """What the manifest says of each split of a text."""
    encode_text(raw, tokenizer, directory, length, 1, *specs, PACKINGS[packing])
    return manifest(directory)["splits"]


def values_of(splits, what):
    return [splits[split][what] for split in SPLITS]


@pytest.mark.parametrize("packing", ["stream", "mdlm"])
def test_examples_are_what_evaluation_reads(tmp_path, texts, packing):
    """Text by the stream and in blocks; the windows of the contamination search are other ones."""
    splits = splits_of(
        write_texts(tmp_path / "r", make_documents(texts)), tmp_path / "e", 0.2, last(5), length=7, packing=packing
    )
    assert manifest(tmp_path / "e")["seq_len"] == 7
    for split in SPLITS:
        dataset = EncodedDataset.open(tmp_path / "e", split)
        read = [row for _, tokens in dataset.evaluation_batches(3) for row in tokens]
        assert splits[split]["examples"] == dataset.examples == len(read)
        assert splits[split]["tokens"] == sum(map(len, read))
    assert not any("windows" in counts for counts in splits.values())


class TestDuplicates:
    def test_duplicates_within_a_split_and_of_training_are_counted(self, tmp_path):
        parts = [
            text_shard(tuple(Document(f"{split}{number}", text) for number, text in enumerate(texts)), split)
            for split, texts in {"train": "aaaabbc", "validation": "adde", "test": "bcf"}.items()
        ]
        splits = splits_of(write_all(tmp_path / "r", parts), tmp_path / "e", "validation", "test")
        assert values_of(splits, "duplicates") == [4, 1, 0]
        assert values_of(splits, "duplicates_of_training") == [0, 1, 2]

    def test_copies_are_found_across_shards(self, tmp_path, texts):
        documents = make_documents([*texts, *texts, *texts[:5]])
        found = [
            splits_of(write_texts(tmp_path / f"r{shards}", documents, shards), tmp_path / f"e{shards}", 0.2, last(5))
            for shards in (1, 6)
        ]
        assert found[0] == found[1]
        by_content = by_split(plan_splits(tmp_path / "r1", "text", 1, 0.2, last(5)))
        numbers = {split: [document.text for document in documents] for split, documents in by_content.items()}
        repeats = [len(numbers[split]) - len(set(numbers[split])) for split in SPLITS]
        assert values_of(found[0], "duplicates") == repeats
        again = [sum(text in numbers["train"] for text in numbers[split]) for split in ("validation", "test")]
        assert values_of(found[0], "duplicates_of_training") == [0, *again]

    def test_the_parts_of_one_text_are_none(self, tmp_path):
        """They share a split by their name; it is what stands in them that counts."""
        raw = write_texts(tmp_path / "r", in_parts("abcdabcdefghijkl", [4, 8, 12]), 2)
        splits = splits_of(raw, tmp_path / "e", last_characters(2), last_characters(2))
        assert values_of(splits, "duplicates") == [1, 0, 0]
        assert values_of(splits, "duplicates_of_training") == [0, 0, 0]

    def test_images_are_the_same_by_their_pixels_not_by_their_group(self, tmp_path):
        images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
        images[1] = images[0]
        raw = write_image_shards(tmp_path / "r", ImageBatch(images, np.arange(20, dtype=np.int32) // 4, 255), 3)
        encode_images(raw, 256, 2, 2, tmp_path / "e", 0, 0.2, last(3))
        splits = manifest(tmp_path / "e")["splits"]
        assert sum(values_of(splits, "duplicates")) == 1
        assert values_of(splits, "duplicates_of_training") == [0, 0, 0]


LAST = (last(2), last(2))


class TestContent:
    def contents(self, directory, documents, shards=1, specs=LAST, packing="stream"):
        raw = write_texts(directory.with_name(f"{directory.name}-raw"), documents, shards)
        return values_of(splits_of(raw, directory, *specs, packing=packing), "content_hash")

    @pytest.mark.parametrize("specs", [(0.2, 0.2), (last(4), 0.1), (last_characters(90), last_characters(70))], ids=str)
    def test_it_does_not_depend_on_shards(self, tmp_path, texts, specs):
        documents = [*make_documents(texts[:20]), *in_parts("".join(texts[20:]), [50, 60, 200], "9")]
        found = [self.contents(tmp_path / str(shards), documents, shards, specs) for shards in (1, 2, 7)]
        assert found[0] == found[1] == found[2]
        assert len(set(found[0])) == 3

    def test_it_changes_only_with_a_text_or_the_order(self, tmp_path):
        documents = make_documents(["one", "two", "three", "four", "five", "six"])
        first = self.contents(tmp_path / "a", documents)
        changed = self.contents(tmp_path / "b", [*documents[:5], replace(documents[5], text="seven")])
        turned = self.contents(tmp_path / "c", make_documents(["two", "one", "three", "four", "five", "six"]))
        assert [mine == other for mine, other in zip(first, changed, strict=True)] == [True, True, False]
        assert [mine == other for mine, other in zip(first, turned, strict=True)] == [False, True, True]

    def test_it_changes_with_a_part_of_a_text(self, tmp_path):
        """The key of a part knows its text by name alone."""
        specs = last_characters(2), last_characters(2)
        one, other = (
            self.contents(tmp_path / text, in_parts(text, [3, 6]), specs=specs)
            for text in ("abcdefghijkl", "abcxefghijkl")
        )
        assert [mine == yours for mine, yours in zip(one, other, strict=True)] == [False, True, True]

    def test_it_changes_with_a_pixel(self, tmp_path):
        """The key of an image knows its group alone."""
        images, found = np.zeros((6, 2, 2, 1), np.uint8), []
        for value in (0, 1):
            images[0, 0, 0, 0] = value
            raw = write_image_shards(tmp_path / f"r{value}", ImageBatch(images, np.arange(6, dtype=np.int32), 255))
            encode_images(raw, 256, 2, 2, tmp_path / f"e{value}", 0, last(2), last(2))
            found.append(values_of(manifest(tmp_path / f"e{value}")["splits"], "content_hash"))
        assert [mine == yours for mine, yours in zip(*found, strict=True)] == [False, True, True]

    def test_blocks_that_are_dealt_to_splits_are_its_content(self, tmp_path, texts):
        specs = windows(0.3), windows(0.3)
        one, other = (
            self.contents(tmp_path / str(number), make_documents(texts[number:]), specs=specs, packing="sedd")
            for number in (0, 1)
        )
        assert len({*one, *other}) == 6


sentences = st.sampled_from(
    [f"{word} jumps over the lazy dog, and sleeps until noon. " for word in ("Fox", "Cat", "Hen")]
)
paragraphs = st.lists(sentences | st.text("ab", max_size=30), max_size=5).map("".join).filter(bool)


@settings(max_examples=25)
@given(train=st.lists(paragraphs, min_size=1, max_size=4), held_out=st.lists(paragraphs, min_size=2, max_size=5))
@pytest.mark.parametrize("shards", [1, 3])
def test_ngram_overlap_is_the_fraction_in_training_text(tmp_path_factory, shards, train, held_out):
    folder = tmp_path_factory.mktemp("leaks")
    texts = ["Trained on in any case.", *train, *held_out]
    raw = write_texts(folder / "r", make_documents(texts), shards)
    splits = splits_of(raw, folder / "e", last(len(held_out) - 1), last(1))
    trained = texts[: len(train) + 1]
    for split, documents in {"validation": held_out[:-1], "test": held_out[-1:]}.items():
        windows = [
            text[start : start + WINDOW] for text in documents for start in range(0, len(text) - WINDOW + 1, WINDOW)
        ]
        overlapping = sum(any(window in text for text in trained) for window in windows)
        assert splits[split]["contamination_windows"] == len(windows)
        assert splits[split]["ngram_overlap"] == (overlapping / len(windows) if windows else None)
    assert "ngram_overlap" not in splits["train"]


@pytest.mark.parametrize("between", ["\0", "", "\n"])
def test_no_leak_spans_two_training_documents(tmp_path, between):
    first, second = "a" * (WINDOW // 2), "b" * (WINDOW // 2)
    texts = [first, second, f"{first}{between}{second}", "held out"]
    splits = splits_of(write_texts(tmp_path / "r", make_documents(texts)), tmp_path / "e", last(1), last(1))
    assert (splits["validation"]["contamination_windows"], splits["validation"]["ngram_overlap"]) == (1, 0.0)


def test_assigned_windows_state_no_overlap(tmp_path, texts):
    """A document's beginning is trained on, and its end held out: there is nothing to look for."""
    splits = splits_of(write_texts(tmp_path / "r", make_documents(texts)), tmp_path / "e", windows(0.3), 0.2)
    assert not any("ngram_overlap" in splits[split] for split in SPLITS)


@pytest.mark.parametrize("tokenizer", [BYTES, TEXT8], ids=lambda tokenizer: tokenizer.kind)
@pytest.mark.parametrize("packing", ["stream", "sedd"])
def test_lengths_are_those_of_the_documents_with_their_ends(tmp_path, texts, tokenizer, packing):
    raw = write_texts(tmp_path / "r", make_documents(texts), 3)
    splits = splits_of(raw, tmp_path / "e", 0.2, 0.2, tokenizer=tokenizer, packing=packing)
    for split, documents in by_split(plan_splits(raw, "text", 1, 0.2, 0.2)).items():
        lengths = [len(document_ids(tokenizer, document.text)) + 1 for document in documents]
        bins = Counter(length.bit_length() - 1 for length in lengths)
        assert splits[split]["lengths"] == [bins[k] for k in range(max(bins) + 1)]
        assert splits[split]["longest_document"] == max(lengths)
        assert splits[split]["documents"] == len(documents)


@pytest.mark.parametrize("packing", PACKINGS)
def test_counts_are_those_of_the_dataset(tmp_path, texts, packing):
    splits = splits_of(write_texts(tmp_path / "r", make_documents(texts), 3), tmp_path / "e", 0.2, 0.2, packing=packing)
    for split in SPLITS:
        counts = EncodedDataset.open(tmp_path / "e", split).counts
        assert {what: splits[split][what] for what in counts} == counts
        assert set(counts) == {"documents", "tokens", "bytes", "characters", "words"}


@pytest.mark.parametrize(("specs", "expected"), [(LAST, [2, None, 1]), ((windows(0.4), windows(0.3)), [3, None, None])])
def test_documents_emptied_by_the_tokenizer_are_counted(tmp_path, capfd, specs, expected):
    texts = ["one", "1234", "...", "two " * 40, "\u6f22", "five", "six", "seven", "!"]
    raw = write_texts(tmp_path / "r", make_documents(texts), 3)
    splits = splits_of(raw, tmp_path / "e", *specs, tokenizer=TEXT8, packing="sedd")
    assert [splits[split].get("documents_left_out") for split in SPLITS] == expected
    assert f"train: the tokenizer 'text8' leaves nothing of {expected[0]} documents" in capfd.readouterr().err


@pytest.mark.parametrize(("packing", "shards"), [("sedd", 1), ("text8", 1), ("text8", 3), ("text8", 5), ("text8", 9)])
def test_an_emptied_document_in_parts_is_counted_once(tmp_path, packing, shards):
    """Wherever shards are cut; one of which a part is left is not counted."""
    parts = {"b": ["!", "?", "."], "c": ["!", "?", "three", "."], "d": ["!", "?"]}
    whole = {"a": "one two", "e": "...", "f": "five six", "g": "seven", "h": "eight"}
    texts = [Document(name, text) for name, text in whole.items()]
    for name, some in parts.items():
        texts += [Document(name, text, part, part < len(some) - 1) for part, text in enumerate(some)]
    texts.sort(key=lambda document: (document.name, document.part or 0))
    raw = write_texts(tmp_path / "r", texts, shards)
    splits = splits_of(raw, tmp_path / "e", *LAST, tokenizer=TEXT8, packing=packing)
    assert [splits[split].get("documents_left_out") for split in SPLITS] == [2, 1, None]


PROVENANCE = {"source": "words", "catalog": None, "read": {"empty rows left out": 3}, "license": "CC0"}


def encode_words(directory, texts):
    raw = write_texts(directory.with_name(f"{directory.name}-raw"), make_documents(texts), 2)
    encode_text(raw, BYTES, directory, 16, 1, 0.2, 0.2, provenance=PROVENANCE)


def encode_squares(directory, texts):
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    image_batch = ImageBatch(images, None, 255, np.arange(40) % 2, ("even", "odd"))
    raw = write_image_shards(directory.with_name(f"{directory.name}-raw"), image_batch, 2)
    encode_images(raw, 16, 2, 2, directory, 1, 0.2, 0.2, provenance=PROVENANCE)


@pytest.mark.parametrize("encode", [encode_words, encode_squares])
def test_the_table_says_the_same_as_the_json(tmp_path, texts, encode):
    encode(tmp_path / "e", texts)
    about = manifest(tmp_path / "e")
    splits = about.pop("splits")
    assert PROVENANCE.items() <= about.items()
    rows = pl.read_parquet(tmp_path / "e" / "manifest.parquet").to_dicts()
    assert [row["split"] for row in rows] == list(SPLITS)
    for row in rows:
        expected = {**about, **splits[row["split"]], "split": row["split"]}
        assert set(expected) <= set(row)
        for key, value in row.items():
            stated = json.loads(value) if isinstance(expected.get(key), (list, dict)) else value
            assert stated == expected.get(key), key


@pytest.mark.parametrize("encode", [encode_words, encode_squares])
def test_equal_input_makes_equal_bytes(tmp_path, texts, encode):
    for name in ("one", "other"):
        encode(tmp_path / name, texts)
    for file in ("manifest.json", "manifest.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
