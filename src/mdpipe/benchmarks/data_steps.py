"""The steps of preparing data, timed: what stages do, without the stages' paths.

As a program (`python -m mdpipe.benchmarks.data_steps STEP CONFIGURATION FOLDER [NAME]`, the configuration as JSON) it
writes the measurement to the standard output as JSON.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from mdpipe.benchmarks.data_configuration import DataConfiguration
from mdpipe.benchmarks.synthetic import write_pictures, write_text
from mdpipe.data.artifacts.stable_json import read_json
from mdpipe.data.encoded.batches import training_batch
from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.data.encoding.text import encode_text
from mdpipe.data.raw.writing import write_parts
from mdpipe.data.sources import source_parts
from mdpipe.data.tokenizers import fit_tokenizer, load_tokenizer

MEGABYTE = 10**6
MEBIBYTE = 2**20
LENGTH = 1024
"""Tokens of a window."""
HELD_OUT = 0.005
"""Share of the documents for validation, and as many for testing."""
PIECES = 4096
"""Vocabulary of SentencePiece,"""
FITTED_CHARACTERS = 2_000_000
"""which learns it from so much text."""
TEXT_BATCH, PICTURE_BATCH = 64, 256
BATCHES = 500
"""Drawn of each, after one that warms up."""


def write(configuration: DataConfiguration, folder: Path) -> dict[str, Any]:
    """The text as JSON lines, a pure function of size and seed; and the tokenizer, which is not timed."""
    start = perf_counter()
    size = write_text(folder / "text", configuration.size * MEGABYTE, configuration.seed)
    seconds = perf_counter() - start
    settings: dict[str, dict[str, Any]] = {
        "pieces": {"vocabulary": PIECES, "model": "unigram"},
        "gpt2": {"path": configuration.path, "revision": None},
    }
    chosen = settings.get(configuration.tokenizer, {})
    tokenizer = fit_tokenizer(configuration.tokenizer, _first_texts(folder / "text"), **chosen)
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return {"bytes": size, "seconds": seconds, "vocabulary": tokenizer.vocabulary}


def read(configuration: DataConfiguration, folder: Path) -> dict[str, Any]:  # noqa: ARG001
    """The work of the stage `download` on files of one's own."""
    settings = {"pattern": "*.jsonl", "field": "text", "broken_utf8": "error", "empty_rows": "error"}
    start = perf_counter()
    parts = source_parts("jsonl", folder / "text", folder, detokenizer=None, **settings)
    write_parts(folder / "raw", "jsonl", parts, folder / "raw-pieces")
    seconds = perf_counter() - start
    header = read_json(folder / "raw" / "source.json", "measure again")
    counts = {"text_bytes": header["bytes"], "documents": header["documents"], "shards": len(header["shards"])}
    return {**counts, "seconds": seconds}


def encode(configuration: DataConfiguration, folder: Path, name: str) -> dict[str, Any]:
    """The work of the stage `encode`: the splits, their tokens, the search for leaks, the manifest."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    held = (configuration.seed, HELD_OUT, HELD_OUT)
    start = perf_counter()
    encode_text(folder / "raw", tokenizer, folder / name, LENGTH, *held, scratch=folder / f"{name}-pieces")
    seconds = perf_counter() - start
    splits = read_json(folder / name / "dataset.json", "measure again")["splits"]
    return {"tokens": sum(counts["tokens"] for counts in splits.values()), "seconds": seconds}


def draw(configuration: DataConfiguration, folder: Path) -> dict[str, Any]:
    """Batches of training from the memory-mapped shards: windows of text at random, and pictures in random orders."""
    write_pictures(folder / "pictures", configuration.seed)
    windows = _rows_per_second(EncodedDataset.open(folder / "encoded", "train"), configuration.seed, TEXT_BATCH)
    pictures = _rows_per_second(EncodedDataset.open(folder / "pictures", "train"), configuration.seed, PICTURE_BATCH)
    return {"tokens_per_second": windows * LENGTH, "pictures_per_second": pictures}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"write": write, "read": read, "encode": encode, "draw": draw}


def _rows_per_second(dataset: EncodedDataset, seed: int, batch: int) -> float:
    training_batch(dataset, seed, 0, batch)
    start = perf_counter()
    for step in range(1, BATCHES + 1):
        training_batch(dataset, seed, step, batch)
    return BATCHES * batch / (perf_counter() - start)


def _first_texts(directory: Path) -> Iterator[str]:
    characters = 0
    for path in sorted(directory.iterdir()):
        with path.open("rb") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                characters += len(text)
                yield text
                if characters >= FITTED_CHARACTERS:
                    return


def _peak_mib() -> float:
    """Of the largest process: the high-water mark of this one, and of its children that have ended."""
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return largest * (1 if sys.platform == "darwin" else 1024) / MEBIBYTE


def _cpu_seconds() -> float:
    """Of this process and its children that have ended: what a step costs whatever else the machine does."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    step, described, place, *name = sys.argv[1:]
    before = _cpu_seconds()
    measured = STEPS[step](DataConfiguration(**json.loads(described)), Path(place), *name)
    json.dump({**measured, "cpu_seconds": _cpu_seconds() - before, "peak_mib": _peak_mib()}, sys.stdout)
