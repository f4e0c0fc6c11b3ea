"""The split of text8: letters and single spaces, cut anywhere, in blocks."""

import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.data.encoding import token_stream
from mdpipe.data.encoding.packing import CONVENTIONS
from mdpipe.data.encoding.text import encode_text
from mdpipe.data.raw import writing
from mdpipe.data.sources import text_files
from mdpipe.data.splits.held import LastCharacters
from mdpipe.data.splits.plan import whole
from mdpipe.data.tokenizers import fit_tokenizer
from mdpipe.data.work.piecewise import WORKERS
from tests.data.shards import in_parts, write_all, write_texts

LETTERS = fit_tokenizer("letters", [])


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def check(directory, text, characters, length):
    for split, expected in {
        "train": text[: -2 * characters],
        "validation": text[-2 * characters : -characters],
        "test": text[-characters:],
    }.items():
        dataset = EncodedDataset.open(directory, split)
        decoded = LETTERS.decode(np.asarray(dataset.tokens))
        assert decoded == expected[: len(expected) // length * length]
        assert dataset.counts["characters"] == dataset.counts["bytes"] == len(decoded)
        assert dataset.counts["documents"] == bool(decoded.strip())


@settings(max_examples=25)
@given(words=st.lists(st.text("abc", min_size=1, max_size=4), min_size=10, max_size=30), data=st.data())
def test_the_splits_are_exactly_those_of_the_text_wherever_parts_and_shards_are_cut(tmp_path_factory, words, data):
    # The real one begins with a space.
    text, place = data.draw(st.sampled_from(["", " "])) + " ".join(words), tmp_path_factory.mktemp("text8")
    characters = data.draw(st.integers(1, min(15, len(text) // 2 - 1)))
    parts = in_parts(text, data.draw(st.lists(st.integers(1, len(text) - 1), unique=True, max_size=5)))
    raw = write_texts(place / "r", parts, data.draw(st.integers(1, 5)))
    held = LastCharacters(characters), LastCharacters(characters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_stream, "PIECE", data.draw(st.integers(2, 12)))
        encode_text(raw, LETTERS, place / "e", 1, 0, *held, CONVENTIONS["text8"])
    check(place / "e", text, characters, 1)


def test_a_million_letters_in_many_parts_and_shards(tmp_path, monkeypatch):
    chance = random.Random(8)
    words = ("".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, 12))) for _ in range(200_000))
    text = " " + " ".join(words)[:1_000_000].rstrip() + "z"
    (tmp_path / "text8").write_text(text)
    monkeypatch.setattr(text_files, "PART_BYTES", 70_001)
    monkeypatch.setattr(writing, "SHARD_BYTES", 150_001)
    monkeypatch.setattr(token_stream, "PIECE", 10_007)
    settings = {"pattern": "*", "documents": "file", "broken_utf8": "error", "empty_rows": "error"}
    raw = write_all(tmp_path / "r", text_files.parts(tmp_path / "text8", **settings, detokenizer=None))
    assert len(whole(raw, "text", "test").shards) > 4
    held = LastCharacters(50_000), LastCharacters(50_000)
    encode_text(raw, LETTERS, tmp_path / "e", 256, 0, *held, CONVENTIONS["text8"])
    check(tmp_path / "e", text, 50_000, 256)
