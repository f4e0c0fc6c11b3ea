"""Small raw folders and encoded datasets for the tests of `data`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.tokenizers import SentencePiece
from tests.data.builders import encode_images, encode_text, make_tokenizer
from tests.data.shards import write_raw

WORDS = ["the ", "model ", "reads\n", "Each token, ", "of 12 texts. ", "    ", "naïve ", "(mask) ", "once "]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Forty different texts of a few words."""
    random = np.random.default_rng(0)
    return [f"{index}: " + "".join(random.choice(WORDS, random.integers(5, 60))) for index in range(40)]


@pytest.fixture(scope="session")
def articles() -> list[str]:
    """A dozen help topics: 40 kB of English, which support a vocabulary of some hundred tokens."""
    return list(topics.values())[:12]


@pytest.fixture(scope="session")
def subwords(articles: list[str]) -> SentencePiece:
    return make_tokenizer("sentencepiece", articles, vocab_size=500)


@pytest.fixture
def raw_text(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Write texts as a raw folder."""

    def write(texts: Sequence[str]) -> Path:
        documents = [Document(f"{index:06d}", text) for index, text in enumerate(texts)]
        write_raw(tmp_path / "raw" / "corpus", "text", documents)
        return tmp_path / "raw" / "corpus"

    return write


@pytest.fixture
def text_dataset(tmp_path: Path, raw_text: Callable[[Sequence[str]], Path], texts: list[str]) -> Path:
    """Forty texts as bytes, in windows of 32."""
    directory = tmp_path / "encoded" / "words"
    encode_text(raw_text(texts), make_tokenizer("bytes"), directory, 32, seed=3, validation=0.2, test=0.2)
    return directory


@pytest.fixture
def image_dataset(tmp_path: Path) -> Path:
    """Thirty images of 4 x 4 x 1 with 17 levels, each filled with its own number but for one pixel."""
    images = np.minimum(np.arange(30)[:, None, None, None] // 2, 16).astype(np.uint8) * np.ones((1, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(30) % 2
    image_batch = ImageBatch(images, np.arange(30, dtype=np.int32), maximum=16)
    write_raw(tmp_path / "raw" / "numbers", "digits", image_batch)
    directory = tmp_path / "encoded" / "numbers"
    encode_images(tmp_path / "raw" / "numbers", 17, 4, 4, directory, seed=0, validation=0.1, test=0.1)
    return directory
