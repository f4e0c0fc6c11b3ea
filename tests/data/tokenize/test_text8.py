"""The split of text8: letters and single spaces, cut anywhere, in blocks."""

import random
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.parallel import WORKERS
from mdpipe.data.sources import open_source, writer
from mdpipe.data.sources import text as reading
from mdpipe.data.splits import single_split
from mdpipe.data.tokenize import token_stream
from mdpipe.params.data import PACKINGS
from mdpipe.params.sources import TextSource
from tests.data.builders import encode_text, last_characters, make_tokenizer
from tests.data.shards import in_parts, write_all, write_texts

TEXT8 = make_tokenizer("text8")


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
        decoded = TEXT8.decode(np.asarray(dataset.tokens))
        assert decoded == expected[: len(expected) // length * length]
        assert dataset.counts["characters"] == dataset.counts["bytes"] == len(decoded)
        assert dataset.counts["documents"] == bool(decoded.strip())


@settings(max_examples=25)
@given(words=st.lists(st.text("abc", min_size=1, max_size=4), min_size=10, max_size=30), data=st.data())
def test_the_splits_do_not_depend_on_where_parts_and_shards_end(tmp_path_factory, words, data):
    # The real one begins with a space.
    text, folder = data.draw(st.sampled_from(["", " "])) + " ".join(words), tmp_path_factory.mktemp("text8")
    characters = data.draw(st.integers(1, min(15, len(text) // 2 - 1)))
    parts = in_parts(text, data.draw(st.lists(st.integers(1, len(text) - 1), unique=True, max_size=5)))
    raw = write_texts(folder / "r", parts, data.draw(st.integers(1, 5)))
    specs = last_characters(characters), last_characters(characters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_stream, "MAX_ENCODED_CHARS", data.draw(st.integers(2, 12)))
        encode_text(raw, TEXT8, folder / "e", 1, 0, *specs, PACKINGS["text8"])
    check(folder / "e", text, characters, 1)


def test_a_million_characters_in_many_parts_and_shards(tmp_path, monkeypatch):
    chance = random.Random(8)
    words = ("".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, 12))) for _ in range(200_000))
    text = " " + " ".join(words)[:1_000_000].rstrip() + "z"
    (tmp_path / "text8").write_text(text)
    monkeypatch.setattr(reading, "READ_BYTES", 70_001)
    monkeypatch.setattr(writer, "SHARD_BYTES", 150_001)
    monkeypatch.setattr(token_stream, "MAX_ENCODED_CHARS", 10_007)
    source = TextSource(kind="text", path=str(tmp_path / "text8"))
    raw = write_all(tmp_path / "r", open_source(source, tmp_path))
    assert len(single_split(raw, "text", "test").shards) > 4
    specs = last_characters(50_000), last_characters(50_000)
    encode_text(raw, TEXT8, tmp_path / "e", 256, 0, *specs, PACKINGS["text8"])
    check(tmp_path / "e", text, 50_000, 256)
