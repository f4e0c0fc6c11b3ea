"""Synthetic data of any size: documents as JSON lines, and images.

Words follow Zipf's law, p(r) ~ 1 / r for the word of rank r = 1, ..., 50,000, and documents have log-normal lengths, as
text on the web does roughly. Everything is a function of the seed.
"""

import json
from itertools import product
from pathlib import Path

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.dataset import DatasetHeader, write_header

FILES = 8
"""Files of a text, so that even a small one has several shards."""
VOCABULARY = 50_000
"""Made-up words, of one syllable or two; the short ones are the frequent ones."""
MEDIAN_WORDS, SIGMA = 395, 1.0
"""Median of the documents' lengths, which are then 2 kB, and the standard deviation of their logarithm."""
SYLLABLES = ["".join(parts) for parts in product("bcdfghjklmnprstvwxyz", "aeiou", ("", "n", "s"))]
ENDINGS = {" ": 0.83, ", ": 0.07, ". ": 0.07, " – ": 0.01, ".\n": 0.02}
"""Endings of a word and their probabilities: one is not ASCII, one is escaped in JSON."""
IMAGE_SHAPE = (32, 32, 3)
IMAGES_AT_ONCE = 1000


def write_text(directory: Path, size: int, seed: int) -> int:
    """Write about `size` bytes of JSON lines into the files of a new folder; return their exact number.

    A file ends with the document that reaches its share.
    """
    directory.mkdir()
    random = np.random.default_rng(seed)
    singles = random.permutation(SYLLABLES).tolist()
    pairs = random.permutation([first + second for first, second in product(SYLLABLES, repeat=2)]).tolist()
    words = np.array([*singles, *pairs][:VOCABULARY], dtype=object)
    # Every word with every ending, and the probability of all entries up to each.
    spelled = np.add.outer(words, np.array([*ENDINGS], dtype=object)).ravel()
    below = np.cumsum(np.outer(1 / np.arange(1, VOCABULARY + 1), [*ENDINGS.values()]))
    written = 0
    for number in range(FILES):
        random = np.random.default_rng([seed, number])
        with (directory / f"text-{number}.jsonl").open("wb") as file:
            while file.tell() < size // FILES:
                count = int(random.lognormal(np.log(MEDIAN_WORDS), SIGMA)) + 1
                text = "".join(spelled[np.searchsorted(below, below[-1] * random.random(count))].tolist())
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            written += file.tell()
    return written


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
