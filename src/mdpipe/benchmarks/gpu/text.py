"""Text that every machine has: docstrings of Python's standard library, in the alphabet of text8.

It is not text8, and bounds on it are not comparable with published ones.
"""

import hashlib
from pathlib import Path

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.encoded.dataset import token_dtype, write_header
from mdpipe.data.sources.docstrings import read
from mdpipe.data.tokenizers.letters import Letters

SPLITS = ("train", "test")


def write_text(folder: Path, package: str, length: int, held_out: int) -> dict[str, int]:
    """Write an encoded dataset of windows of `length` characters and return the characters of each split.

    Whole documents are held out, in the order of a hash of their names, until they have `held_out` characters.
    Docstrings repeat themselves across modules, so some held-out sentences are in the training text, too.
    """
    tokenizer = Letters()
    documents = sorted(read([package]), key=lambda document: hashlib.sha256(document.name.encode()).hexdigest())
    counts = dict.fromkeys(SPLITS, 0)
    folder.mkdir(parents=True)
    dtype = token_dtype(tokenizer.vocabulary)
    with ArrayFile(folder / "train-00000.npy", dtype) as train, ArrayFile(folder / "test-00000.npy", dtype) as test:
        for document in documents:
            tokens = np.append(tokenizer.encode(document.text), tokenizer.separator)
            file, split = (test, "test") if counts["test"] < held_out else (train, "train")
            file.append(tokens)
            counts[split] += len(tokens)
    write_header(
        folder,
        modality="text",
        tokenizer=tokenizer.kind,
        vocabulary=tokenizer.vocabulary,
        shape=(length,),
        counts={split: {"tokens": count} for split, count in counts.items()},
    )
    return counts
