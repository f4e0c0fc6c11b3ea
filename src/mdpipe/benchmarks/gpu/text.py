"""Text that every machine has: docstrings of Python's standard library, in the alphabet of text8.

It is not text8, and bounds on it are not comparable with published ones.
"""

import hashlib
from pathlib import Path

import numpy as np

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.encoded.dataset import EncodedDataset, token_dtype
from mdpipe.data.sources.docstrings import read
from mdpipe.data.tokenizers.letters import Letters

SPLITS = ("train", "test")


def write_text(folder: Path, package: str, length: int, held_out: int) -> dict[str, EncodedDataset]:
    """Write the tokens of text and return each split as windows of `length` characters.

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
    return {
        split: EncodedDataset(
            directory=folder,
            split=split,
            modality="text",
            vocabulary=tokenizer.vocabulary,
            shape=(length,),
            length=length,
            tokenizer=tokenizer.kind,
            counts={"tokens": counts[split]},
            tokens=np.load(folder / f"{split}-00000.npy", mmap_mode="r", allow_pickle=False),
            blocks=False,
            block_ends=(),
            classes=0,
            labels=None,
            class_names=(),
        )
        for split in SPLITS
    }
