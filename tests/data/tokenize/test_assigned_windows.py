"""Blocks of the stream of text that go to the splits at random."""

import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from mdpipe.data.parallel import WORKERS
from mdpipe.data.splits import SPLITS
from mdpipe.params.data import PACKINGS
from tests.data.builders import encode_text, last, make_tokenizer, plan_splits, windows
from tests.data.shards import by_split, in_parts, make_documents, streams, write_texts

pytestmark = pytest.mark.slow

BYTES = make_tokenizer("bytes")
LENGTH = 8
FALSE_ALARM_Z = 5.0
"""Standard errors that a correct fraction crosses less than once in a million times."""


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def encoded(directory, validation, test, seed=3, name="e"):
    """Documents of a block less one token each, so that with its end each is a block; all are different."""
    documents = make_documents([f"{number:07d}" for number in range(3000)])
    raw = write_texts(directory / "r", documents)
    encode_text(raw, BYTES, directory / name, LENGTH, seed, validation, test, PACKINGS["sedd"])
    return {split: stream.reshape(-1, LENGTH) for split, stream in streams(directory / name).items()}


def test_blocks_are_disjoint_complete_and_in_order(tmp_path):
    found = encoded(tmp_path, windows(0.2), windows(0.1))
    numbers = {split: [int(bytes(block[:7])) for block in blocks] for split, blocks in found.items()}
    assert all(numbers[split] == sorted(numbers[split]) for split in SPLITS)
    assert sorted(chain.from_iterable(numbers.values())) == list(range(3000))


def test_fractions_are_near_those_stated(tmp_path):
    found = encoded(tmp_path, windows(0.2), windows(0.1))
    for split, fraction in {"validation": 0.2, "test": 0.1}.items():
        assert abs(len(found[split]) - 3000 * fraction) < FALSE_ALARM_Z * (3000 * fraction * (1 - fraction)) ** 0.5


def test_they_are_a_function_of_the_seed(tmp_path):
    first, second = (encoded(tmp_path, windows(0.2), windows(0.1), name=name) for name in ("e", "f"))
    assert all(np.array_equal(first[split], second[split]) for split in SPLITS)
    other = encoded(tmp_path, windows(0.2), windows(0.1), seed=4, name="g")
    assert not np.array_equal(first["test"], other["test"])


def test_documents_are_held_out_before_windows_are_cut(tmp_path):
    found = encoded(tmp_path, windows(0.2), 0.1)
    numbers = {split: {int(bytes(block[:7])) for block in blocks} for split, blocks in found.items()}
    assert len(numbers["test"]) == 300
    assert set.union(*numbers.values()) == set(range(3000))
    by_fraction = by_split(plan_splits(tmp_path / "r", "text", 3, last(1), 0.1))
    assert numbers["test"] >= {int(document.text) for document in by_fraction["test"]}


def test_what_fills_no_block_of_the_stream_is_trained_on(tmp_path):
    documents = make_documents([f"{number:04d}" for number in range(203)])
    raw = write_texts(tmp_path / "r", documents, 3)
    encode_text(raw, BYTES, tmp_path / "e", 8, 0, windows(0.3), windows(0.3))
    found = streams(tmp_path / "e")
    assert sum(map(len, found.values())) == 5 * 203
    assert all(len(found[split]) % 8 == 0 for split in ("validation", "test"))
    assert bytes(found["train"][-7:]) == b"1\x000202\x00"
    letters = Counter("".join(document.text for document in documents).encode())
    assert sum((Counter(bytes(stream)) for stream in found.values()), Counter()) == letters + Counter({0: 203})


@pytest.mark.parametrize("kind", ["text8", "bytes"])
@pytest.mark.parametrize(("validation", "test"), [(0.3, 0.2), (0.3, None), (None, 0.3)])
def test_window_k_is_the_streams_for_any_number_of_shards(tmp_path, texts, kind, validation, test):
    """Shards end within blocks, within documents, and between words that a tokenizer has to join."""
    long = in_parts(" ".join(texts[:12]), [5, 40, 300, 301, 700, 1000], "000019a")
    documents = [*make_documents(texts)[:20], *long, *make_documents(texts)[20:]]
    specs = [0.1 if fraction is None else windows(fraction) for fraction in (validation, test)]
    found = []
    for shards in (1, 2, 7):
        raw = write_texts(tmp_path / f"r{shards}", documents, shards)
        encode_text(raw, make_tokenizer(kind), tmp_path / f"e{shards}", 8, 1, *specs)
        manifest = json.loads((tmp_path / f"e{shards}" / "manifest.json").read_text())
        tokens = {split: stream.tobytes() for split, stream in streams(tmp_path / f"e{shards}").items()}
        found.append((manifest, tokens))
    assert found[0] == found[1] == found[2]
