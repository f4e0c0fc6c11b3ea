"""Data of the benchmarks: synthetic documents and images of any size, and docstrings, which every machine has.

Words of synthetic documents follow Zipf's law, p(r) ~ 1 / r for the word of rank r = 1, ..., 50,000, and documents have
log-normal lengths, as text on the web does roughly. They are a function of the seed, made in blocks of bounded size.
"""

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.dataset import DatasetHeader, EncodedDataset, token_dtype, write_header
from mdpipe.data.sources.bundled import read_docstrings
from mdpipe.data.tokenizers import Text8

FILES = 8
"""Files of a text, so that even a small one has several shards."""
VOCABULARY = 50_000
"""Made-up words, of one syllable or two; the short ones are the frequent ones."""
MEDIAN_BYTES, SIGMA = 2000, 1.0
"""Median of the documents' lengths, and the standard deviation of their logarithm; the mean is then 1.65 medians."""
DOCUMENTS_AT_ONCE = 64
"""Documents made together: enough to be fast, few enough for the processor's cache."""
SYLLABLES = ["".join(parts) for parts in product("bcdfghjklmnprstvwxyz", "aeiou", ("", "n", "s"))]
ENDINGS = {" ": 213, ", ": 18, ". ": 18, " – ": 2, ".\\n": 5}
"""Endings of a word, as JSON spells them, and their frequency of 256: some are not ASCII, some are escaped."""
OPENING, CLOSING = '{"text": "', '"}\n'
RANK_BITS = 20
"""Words are sampled by looking up this many random bits: the rarest, of probability 1.75e-6, have one or two of the
2^20 entries. The table fits the processor's cache."""
WORDS_MEASURED = 2**16
"""Words that the mean length of a word is estimated from, and so the number of words of the median document."""
IMAGE_SHAPE = (32, 32, 3)
IMAGES_AT_ONCE = 1000


def write_text(directory: Path, size: int, seed: int) -> int:
    """Write about `size` bytes of JSON lines into the files of a new folder; return their exact number.

    A file ends with the document that reaches its share.
    """
    directory.mkdir()
    words = _Words(seed)
    return sum(_write_file(directory / f"text-{number}.jsonl", size // FILES, words, number) for number in range(FILES))


def write_docstrings(folder: Path, package: str, seq_len: int, held_out: int) -> dict[str, EncodedDataset]:
    """Write the tokens of docstrings and return each split as windows of `seq_len` characters.

    Whole documents are held out, in the order of a hash of their names, until they have `held_out` characters.
    Docstrings repeat themselves across modules, so some held-out sentences are in the training text, too.
    """
    tokenizer = Text8()
    documents = sorted(read_docstrings([package]), key=lambda one: hashlib.sha256(one.name.encode()).hexdigest())
    counts: dict[str, dict[str, int]] = {split: {"tokens": 0, "words": 0} for split in ("train", "test")}
    starts: dict[str, list[int]] = {split: [] for split in counts}
    folder.mkdir(parents=True)
    dtype = token_dtype(tokenizer.vocab_size)
    with ArrayFile(folder / "train-00000.npy", dtype) as train, ArrayFile(folder / "test-00000.npy", dtype) as test:
        for document in documents:
            words = np.trim_zeros(tokenizer.encode(document.text))  # without spaces at its ends
            tokens = np.append(words, tokenizer.eos_id)
            file, split = (test, "test") if counts["test"]["tokens"] < held_out else (train, "train")
            file.append(tokens)
            starts[split].append(counts[split]["tokens"])
            counts[split]["tokens"] += len(tokens)
            counts[split]["words"] += len(tokenizer.decode(words).split())
    for split, positions in starts.items():
        np.save(folder / f"{split}_documents.npy", np.array(positions, dtype=np.int64), allow_pickle=False)
    header = DatasetHeader(
        modality="text",
        tokenizer=tokenizer.kind,
        vocab_size=tokenizer.vocab_size,
        shape=(seq_len,),
        seq_len=seq_len,
        classes=0,
        splits=counts,
    )
    write_header(folder, header)
    return {split: EncodedDataset.open(folder, split) for split in counts}


def write_images(directory: Path, count: int, seed: int) -> None:
    """Write an encoded dataset with only a training split, of images with 256 levels, to a new folder."""
    directory.mkdir()
    random = np.random.default_rng(seed)
    length = int(np.prod(IMAGE_SHAPE))
    with ArrayFile(directory / "train-00000.npy", np.uint8, (length,)) as file:
        for _ in range(0, count, IMAGES_AT_ONCE):
            file.append(random.integers(256, size=(IMAGES_AT_ONCE, length), dtype=np.uint8))
    header = DatasetHeader(
        modality="image",
        tokenizer="pixels",
        vocab_size=256,
        shape=IMAGE_SHAPE,
        seq_len=length,
        classes=0,
        splits={"train": {"images": count, "tokens": count * length}},
    )
    write_header(directory, header)


class _Words:
    """A vocabulary, every word with each of its endings, and samples from it."""

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
        entries = np.diff(np.rint(below * 2**RANK_BITS).astype(np.int64), prepend=0)
        self._ranks = np.repeat(np.arange(VOCABULARY, dtype=np.uint16), entries)
        self._endings = np.repeat(np.arange(len(ENDINGS), dtype=np.int32) * VOCABULARY, list(ENDINGS.values()))
        sample = self._sample(random, WORDS_MEASURED)
        self._median = MEDIAN_BYTES * WORDS_MEASURED / len(self._spell(sample))

    def blocks(self, number: int) -> Iterator[bytes]:
        """Yield the lines of an endless file, a block of documents at a time."""
        random = np.random.default_rng([self.seed, number])
        while True:
            words = random.lognormal(np.log(self._median), SIGMA, DOCUMENTS_AT_ONCE).astype(np.int64) + 1
            last = np.cumsum(words + 2) - 1
            first = last - words - 1
            entries = np.empty(last[-1] + 1, dtype=np.int32)
            is_word = np.ones(len(entries), dtype=np.bool_)
            is_word[first] = is_word[last] = False
            entries[first], entries[last] = self._opening, self._closing
            entries[is_word] = self._sample(random, int(words.sum()))
            yield self._spell(entries)

    def _sample(self, random: np.random.Generator, count: int) -> NDArray[np.int32]:
        """Return words with endings: the low bits choose the word, the eight highest the ending."""
        bits = random.integers(2**32, size=count, dtype=np.uint32)
        entries: NDArray[np.int32] = self._endings[bits >> np.uint32(24)]
        entries += self._ranks[bits & np.uint32(2**RANK_BITS - 1)]
        return entries

    def _spell(self, entries: NDArray[np.int32]) -> bytes:
        """Concatenate the entries, which the array pads with zeros to one width."""
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
