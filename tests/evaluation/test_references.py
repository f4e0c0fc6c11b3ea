import bz2
import lzma
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.tokenize.text import encode_corpus
from mdpipe.evaluation.references import (
    Rate,
    compressor_rates,
    image_sizes,
    reference_rates,
    sheets,
    text_sizes,
    unigram_entropy,
)
from tests.data.builders import encode_images, encode_text, make_tokenizer
from tests.data.shards import write_raw

pytestmark = pytest.mark.slow

TEXTS = [f"Text {number} of a few: " + "so many words, " * (number % 7 + 3) + "é." for number in range(40)]


@pytest.fixture
def encoded_text(tmp_path: Path) -> Callable[[str], EncodedDataset]:
    """The test split of TEXTS by a kind of tokenizer, in windows of 50."""

    def encode(kind: str) -> EncodedDataset:
        write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(TEXTS)])
        encode_text(tmp_path / "raw", make_tokenizer(kind), tmp_path / kind, 50, seed=0, validation=0.2, test=0.3)
        return EncodedDataset.open(tmp_path / kind, "test")

    return encode


@pytest.fixture
def encoded_images(tmp_path: Path) -> Callable[[np.ndarray, int], EncodedDataset]:
    def encode(images: np.ndarray, levels: int) -> EncodedDataset:
        groups = np.arange(len(images), dtype=np.int32)
        write_raw(tmp_path / "raw", "npy", ImageBatch(images, groups, maximum=255))
        size = images.shape[1]
        encode_images(tmp_path / "raw", levels, size, size, tmp_path / "images", seed=0, validation=0.1, test=0.5)
        return EncodedDataset.open(tmp_path / "images", "test")

    return encode


def by_name(rates: Sequence[Rate]) -> dict[tuple[str, str], Rate]:
    return {(rate["reference"], rate["unit"]): rate for rate in rates}


@pytest.mark.parametrize("kind", ["text8", "bytes"])
def test_text_is_compressed_as_its_tokens_decode(encoded_text: Callable[[str], EncodedDataset], kind: str) -> None:
    dataset = encoded_text(kind)
    rates = by_name(reference_rates(dataset))
    units = {"bits/byte": "bytes", "bits/char": "characters", "bits/token": "tokens", "bits/word": "words"}
    assert rates.keys() == {(name, unit) for name in ("xz", "bzip2", "unigram") for unit in units}
    content = make_tokenizer(kind).decode(np.array(dataset.tokens)).encode()
    for name, packed in (
        ("xz", lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        ("bzip2", bz2.compress(content)),
    ):
        for unit, count in units.items():
            rate = rates[name, unit]
            assert rate["value"] == 8 * len(packed) / dataset.counts[count]
            assert (rate["split"], rate["stderr"]) == ("test", None)


def test_compressors_read_the_same_text_from_lossless_tokenizers(tmp_path: Path) -> None:
    """A NUL for each separator, whichever token it is: the bits per byte of bytes are those of pieces and of BPE."""
    vocabulary = {"<end>": 0} | {letter: n + 1 for n, letter in enumerate(sorted(ByteLevel.alphabet()))}
    byte_level = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[]))
    byte_level.pre_tokenizer, byte_level.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    byte_level.add_special_tokens(["<end>"])
    byte_level.save(str(tmp_path / "tokenizer.json"))
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(TEXTS)])
    content = "".join(f"{text}\0" for text in TEXTS).encode()
    sizes = {"xz": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)), "bzip2": len(bz2.compress(content))}
    for tokenizer in (
        make_tokenizer("bytes"),
        make_tokenizer("sentencepiece", TEXTS, vocab_size=288),
        make_tokenizer("hf_tokenizer", path=str(tmp_path / "tokenizer.json"), revision=None, eos_token="<end>"),
    ):
        encode_corpus(tmp_path / "raw", tokenizer, tmp_path / tokenizer.kind, 50)
        rates = by_name(compressor_rates(EncodedDataset.open(tmp_path / tokenizer.kind, "test")))
        text = sum(len(text.encode()) for text in TEXTS)
        for name, size in sizes.items():
            assert rates[name, "bits/byte"]["value"] == 8 * size / text


@pytest.mark.parametrize("at_once", [1, 2, 7, 64])
def test_compressors_read_whole_characters_for_any_batching(
    encoded_text: Callable[[str], EncodedDataset], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """A text longer than a part is cut within characters and within documents."""
    dataset = encoded_text("bytes")
    whole = compressor_rates(dataset)
    monkeypatch.setattr("mdpipe.evaluation.references.DECODE_BATCH", at_once)
    assert compressor_rates(dataset) == whole


def test_compressed_text_can_be_had_back() -> None:
    """The sizes are those of whole files, headers and all."""
    text = "naïve " * 50
    assert text_sizes(text)["bzip2"] == len(bz2.compress(text.encode(), 9))
    assert text_sizes("")["xz"] > 0


def test_unigram_is_cross_entropy_under_training_counts_plus_one(
    encoded_text: Callable[[str], EncodedDataset],
) -> None:
    dataset = encoded_text("text8")
    counts = dataset.unigram() + 1
    cost = -np.log(counts / counts.sum())[np.array(dataset.tokens)]
    estimate = unigram_entropy(dataset)
    assert estimate.value == pytest.approx(cost.mean())
    residuals = dict[int, float]()
    for first in range(0, len(cost), 50):  # A window belongs to the document of its middle token.
        window = cost[first : first + 50]
        document = sum(start <= first + len(window) // 2 for start in dataset.document_starts)
        residuals[document] = residuals.get(document, 0) + window.sum() - cost.mean() * len(window)
    count = len(residuals)
    expected = math.sqrt(count / (count - 1) * np.square([*residuals.values()]).sum()) / len(cost)
    assert estimate.stderr == pytest.approx(expected)
    rates = by_name(reference_rates(dataset))
    assert rates["unigram", "bits/token"]["value"] == pytest.approx(estimate.value / math.log(2))
    for unit in ("bits/byte", "bits/char"):
        assert rates["unigram", unit] == rates["unigram", "bits/token"] | {"unit": unit}


def test_a_token_that_training_never_saw_has_a_finite_cost(
    encoded_images: Callable[[np.ndarray, int], EncodedDataset],
) -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    assert math.isfinite(unigram_entropy(encoded_images(images, 256)).value)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_costs_a_byte_per_dimension_and_one_color_nothing(
    encoded_images: Callable[[np.ndarray, int], EncodedDataset], channels: int
) -> None:
    random = np.random.default_rng(0)
    rng = random.integers(0, 256, (150, 16, 16, channels), dtype=np.uint8)
    for images, low, high in ((rng, 7.9, 8.2), (np.full_like(rng, 7), 0, 0.1)):
        rates = by_name(reference_rates(encoded_images(images, 256)))
        assert rates.keys() == {(name, "bits/dim") for name in ("png", "webp", "unigram")}
        for name in ("png", "webp"):
            assert low < rates[name, "bits/dim"]["value"] < high
            assert rates[name, "bits/dim"]["stderr"] is None


def test_a_corpus_without_a_train_split_is_rated_by_compressors(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", text) for n, text in enumerate(TEXTS)])
    encode_corpus(tmp_path / "raw", make_tokenizer("bytes"), tmp_path / "corpus", 50)
    rates = by_name(compressor_rates(EncodedDataset.open(tmp_path / "corpus", "test")))
    assert {name for name, _ in rates} == {"xz", "bzip2"}


def test_images_of_two_channels_have_no_png() -> None:
    assert image_sizes(np.zeros((2, 18), np.uint8), (3, 3, 2)) == {}


@given(count=st.integers(1, 30), height=st.integers(1, 9), width=st.integers(1, 9), edge=st.integers(9, 40))
def test_a_sheet_holds_every_image_once(count: int, height: int, width: int, edge: int) -> None:
    random = np.random.default_rng(count)
    images = random.integers(1, 256, (count, height, width, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mdpipe.evaluation.references.SHEET_EDGE", edge)
        pages = list(sheets(images.reshape(count, -1), images.shape[1:]))
    found = []
    for page in pages:
        assert max(page.shape[:2]) <= edge
        cells = page.reshape(page.shape[0] // height, height, page.shape[1] // width, width, 3).swapaxes(1, 2)
        found += [cell for cell in cells.reshape(-1, height, width, 3) if cell.any()]
    np.testing.assert_array_equal(found, images)


def test_compressors_do_not_wait_for_torch() -> None:
    """The stage that encodes runs them, and is light otherwise."""
    program = "import sys, mdpipe.evaluation.references as _; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
