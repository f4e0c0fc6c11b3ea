"""Data that nobody wrote, as much of it as is asked for: documents of made-up words, and pictures of noise.

Words follow Zipf's law, p(r) ~ 1 / r for the word of rank r = 1, ..., 50,000, and documents have log-normal lengths, as
text on the web does roughly. Everything is a function of the seed, and comes in blocks that fit any memory.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.dataset import DatasetHeader, write_header

FILES = 8
"""That a text comes in, so that even a small one has several parts."""
VOCABULARY = 50_000
"""Made-up words, of one syllable or two; the short ones are the frequent ones."""
MEDIAN_BYTES = 2000
"""Of the documents; half are longer."""
SIGMA = 1.0
"""Standard deviation of the logarithm of a document's length; the mean is then 1.65 medians."""
DOCUMENTS_AT_ONCE = 64
"""Documents made together: enough to be fast, few enough for the processor's cache."""
SYLLABLES = ["".join(parts) for parts in product("bcdfghjklmnprstvwxyz", "aeiou", ("", "n", "s"))]
ENDINGS = {" ": 213, ", ": 18, ". ": 18, " – ": 2, ".\\n": 5}
"""What may follow a word, as JSON spells it, and how often of 256 times: some of it is no ASCII, some is escaped."""
OPENING, CLOSING = '{"text": "', '"}\n'
RANK_BITS = 20
"""Words are drawn by looking up so many random bits: the rarest, of probability 1.75e-6, have one or two of the 2^20
places. The table fits the processor's cache."""
WORDS_MEASURED = 2**16
"""Words that tell how long one is in the mean, and so how many the median document has."""
PICTURES = 50_000
SHAPE = (32, 32, 3)
PICTURES_AT_ONCE = 1000


def write_text(directory: Path, size: int, seed: int) -> int:
    """Write about `size` bytes of JSON lines into the FILES files of a new folder; how many there are.

    A file ends with the document that reaches its share.
    """
    directory.mkdir()
    words = _Words(seed)
    return sum(_write_file(directory / f"text-{number}.jsonl", size // FILES, words, number) for number in range(FILES))


def write_pictures(directory: Path, seed: int) -> None:
    """An encoded dataset of nothing but a training split: PICTURES pictures of 256 levels in a new folder."""
    directory.mkdir()
    random = np.random.default_rng(seed)
    length = int(np.prod(SHAPE))
    with ArrayFile(directory / "train-00000.npy", np.uint8, (length,)) as file:
        for _ in range(0, PICTURES, PICTURES_AT_ONCE):
            file.append(random.integers(256, size=(PICTURES_AT_ONCE, length), dtype=np.uint8))
    counts = {"train": {"images": PICTURES, "tokens": PICTURES * length}}
    header = DatasetHeader(
        modality="image", tokenizer="pixels", vocab_size=256, shape=SHAPE, seq_len=length, classes=0, splits=counts
    )
    write_header(directory, header)


class _Words:
    """A vocabulary, every word with each of its endings, and how to draw from it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        random = np.random.default_rng(seed)
        singles = random.permutation(SYLLABLES).tolist()
        pairs = random.permutation([first + second for first, second in product(SYLLABLES, repeat=2)]).tolist()
        words = [*singles, *pairs][:VOCABULARY]
        spelled = [*(word + ending for ending in ENDINGS for word in words), OPENING, CLOSING]
        self._spelled = np.array([entry.encode() for entry in spelled])
        self._opening, self._closing = len(spelled) - 2, len(spelled) - 1
        probabilities = 1 / np.arange(1, VOCABULARY + 1)
        below = np.cumsum(probabilities / probabilities.sum())
        places = np.diff(np.rint(below * 2**RANK_BITS).astype(np.int64), prepend=0)
        self._ranks = np.repeat(np.arange(VOCABULARY, dtype=np.uint16), places)
        self._endings = np.repeat(np.arange(len(ENDINGS), dtype=np.int32) * VOCABULARY, list(ENDINGS.values()))
        sample = self._drawn(random, WORDS_MEASURED)
        self._median = MEDIAN_BYTES * WORDS_MEASURED / len(self._written(sample))

    def blocks(self, number: int) -> Iterator[bytes]:
        """The lines of a file that never ends, a block of documents at a time."""
        random = np.random.default_rng([self.seed, number])
        while True:
            words = random.lognormal(np.log(self._median), SIGMA, DOCUMENTS_AT_ONCE).astype(np.int64) + 1
            last = np.cumsum(words + 2) - 1
            first = last - words - 1
            entries = np.empty(last[-1] + 1, dtype=np.int32)
            is_word = np.ones(len(entries), dtype=np.bool_)
            is_word[first] = is_word[last] = False
            entries[first], entries[last] = self._opening, self._closing
            entries[is_word] = self._drawn(random, int(words.sum()))
            yield self._written(entries)

    def _drawn(self, random: np.random.Generator, count: int) -> NDArray[np.int32]:
        """Words with endings: the low bits say which word, the eight highest how it ends."""
        bits = random.integers(2**32, size=count, dtype=np.uint32)
        drawn: NDArray[np.int32] = self._endings[bits >> np.uint32(24)]
        drawn += self._ranks[bits & np.uint32(2**RANK_BITS - 1)]
        return drawn

    def _written(self, entries: NDArray[np.int32]) -> bytes:
        """The entries one after another. In the array they are of one width, filled up with zeros."""
        return self._spelled[entries].tobytes().translate(None, b"\0")


def _write_file(path: Path, size: int, words: _Words, number: int) -> int:
    written = 0
    with path.open("wb") as file:
        for block in words.blocks(number):
            end = block.find(b"\n", max(size - written - 1, 0)) + 1
            written += file.write(block[:end] if end else block)
            if end:
                break
    return written
