"""The manifest of an encoded dataset: its origin and the content of each split, as JSON and as a table.

manifest.json      source, tokenizer and tokens per example, and under "splits" for each split: documents or images,
                   tokens, bytes, characters, examples, unknown tokens, longest document, histogram of lengths (bin k:
                   2^k to 2^(k+1) - 1 tokens), content hash, duplicates; for labeled images the number of classes that
                   occur; for validation and test text the number of 50-character windows that the contamination search
                   looked for, and the fraction found. The parts of a document that comes in several have their own
                   lengths.
manifest.parquet   the same, one row per split

Contamination is the fraction of evaluation windows that also occur in the training text.

A text is its code points. A window c_0 ... c_49 has the hash sum_j mixed(c_j) BASE^j mod 2^64. With the prefix sums
S_i = sum_{k < i} mixed(c_k) BASE^k, the window that begins at p has the hash (S_{p + 50} - S_p) BASE^-p. Windows count
as equal if their hashes are: with m windows and n positions, the probability of one false match is about m n / 2^64.

Texts are read in blocks, so the memory of a search does not grow with the text.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import atomic_dir, write_json
from mdpipe.data.dataset import DatasetHeader
from mdpipe.data.parallel import ShardResult, map_shards
from mdpipe.data.raw import Document
from mdpipe.data.splits import SPLITS, SplitPlan
from mdpipe.progress import Progress

WINDOW = 50
EVALUATION_SPLITS = ("validation", "test")
SEARCH_CHARS = 2**22
"""Characters of training text that are searched together."""
SEPARATOR = "\ud800"
HASHED_CHARS = 1 << 17
"""Characters hashed at once, at least a window: few enough that the arrays of a block fit the processor's cache."""

_BASE = 0xD1342543DE82EF95  # 5 mod 8, so that its powers repeat only after 2^62 of them
# A flag for each value of a hash's low bits: most positions of a text need only this lookup. There are about 2^4 flags
# for each wanted hash, but at least 2^22 (4 MB) and at most 2^26.
_BITS_ABOVE_WANTED, _MIN_BITS, _MAX_BITS = 4, 22, 26


def write_manifest(
    folder: Path, header: DatasetHeader, provenance: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write manifest.json and manifest.parquet."""
    import polars as pl  # Imported here because only stages that prepare data need it.

    names = ("tokenizer", "vocab_size", "seq_len", *(["classes"] if header.modality == "image" else []))
    metadata = {name: getattr(header, name) for name in names} | {**provenance}
    write_json(folder / "manifest.json", {**metadata, "splits": splits})
    rows = [{**metadata, "split": split, **counts} for split, counts in splits.items()]
    cells = [{key: _to_cell(value) for key, value in row.items()} for row in rows]
    # Without statistics, which hold the library's version and so change the bytes.
    pl.DataFrame(cells, infer_schema_length=None).write_parquet(folder / "manifest.parquet", statistics=False)


def save_digests(folder: Path, split: str, digests: bytes | bytearray) -> None:
    """Write the SHA-256 of every document or image of a split, concatenated, into the folder of a shard."""
    words = np.frombuffer(digests, dtype=np.uint64).reshape(-1, hashlib.sha256().digest_size // 8)
    np.save(folder / f"{split}_digests.npy", words, allow_pickle=False)


def duplicate_counts(results: Mapping[str, Sequence[ShardResult]]) -> dict[str, dict[str, Any]]:
    """Return a content hash and the duplicates of each split, within it and of the training split.

    Documents are equal if the first 64 bits of their SHA-256 are.
    """
    digests = {split: np.concatenate([each.load(f"{split}_digests") for each in results[split]]) for split in SPLITS}
    hashes = {split: words[:, 0] for split, words in digests.items()}
    train = np.unique(hashes["train"])
    return {
        split: {
            "content_hash": hashlib.sha256(digests[split].tobytes()).hexdigest(),
            "duplicates": len(own) - len(np.unique(own)),
            "duplicates_of_training": 0 if split == "train" else int(np.isin(own, train).sum()),
        }
        for split, own in hashes.items()
    }


def _to_cell(value: Any) -> Any:
    """Return lists and mappings as JSON: a cell of a table is one value."""
    return json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value


def find_contamination(plan: SplitPlan, results: list[ShardResult], work_dir: Path) -> dict[str, dict[str, Any]]:
    """Return, for validation and test, the number of windows and the fraction that also occurs in training text."""
    windows = {
        split: np.concatenate([result.load(f"{split}_windows") for result in results]) for split in EVALUATION_SPLITS
    }
    wanted = work_dir / "wanted"
    if not wanted.exists():
        with atomic_dir(wanted) as folder:
            np.save(folder / "hashes.npy", np.unique(np.concatenate(list(windows.values()))), allow_pickle=False)
    search_shard = partial(_search_shard, plan, wanted / "hashes.npy")
    characters = sum(plan.shards[index].characters for index in plan.pool)
    with Progress("searching for contamination", characters) as progress:
        searched = map_shards(search_shard, sorted(plan.pool), work_dir / "contamination", progress)
    found = np.unique(np.concatenate([result.load("found") for result in searched]))
    return {
        split: {
            "contamination_windows": len(hashes),
            "ngram_overlap": float(np.isin(hashes, found).sum() / len(hashes)) if len(hashes) else None,
        }
        for split, hashes in windows.items()
    }


def window_hashes(text: str, step: int = WINDOW) -> NDArray[np.uint64]:
    """Return the hashes of the windows that begin at 0, step, 2 step, ... and end within the text."""
    hashes = [block[-start % step :: step] for start, block in _blocks(text)]
    return np.concatenate([np.empty(0, np.uint64), *hashes])


def find_hashes(text: str, wanted: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the wanted hashes that any window of the text has, wherever it begins.

    Shapes: wanted (M,), sorted and distinct; so is the result.
    """
    bits = min(max(len(wanted).bit_length() + _BITS_ABOVE_WANTED, _MIN_BITS), _MAX_BITS)
    may_be_wanted = np.zeros(1 << bits, np.bool_)
    may_be_wanted[_low_bits(wanted, bits)] = True
    found = np.zeros(len(wanted), np.bool_)
    for _, hashes in _blocks(text):
        candidates = hashes[may_be_wanted[_low_bits(hashes, bits)]]
        candidates.sort()  # The lookups then pass through `wanted` once, instead of jumping.
        # A candidate below all wanted hashes gets index -1, the largest one, which it does not equal.
        indices = np.searchsorted(wanted, candidates, side="right") - 1
        found[indices[wanted[indices] == candidates]] = True
    return wanted[found]


def _search_shard(plan: SplitPlan, file: Path, index: int, folder: Path) -> dict[str, Any]:
    wanted = np.load(file, allow_pickle=False)
    found: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
    for text in _large_texts(entry.document for entry in plan.documents(index) if entry.split == "train"):
        found = np.union1d(found, find_hashes(text, wanted))
    np.save(folder / "found.npy", found, allow_pickle=False)
    return {"bytes": plan.shards[index].characters}


def _large_texts(documents: Iterable[Document]) -> Iterator[str]:
    """Join documents into large texts to amortize the cost of a search.

    No text contains half a surrogate pair, so no match spans two documents.
    """
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= SEARCH_CHARS:
            yield SEPARATOR.join(texts)
            texts, size = [], 0
    yield SEPARATOR.join(texts)


def _blocks(text: str) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield the first position of each block, and the hashes of the windows from there on; every position once."""
    code_points, powers, inverses = (
        _mixed_code_points(),
        _powers(_BASE, HASHED_CHARS),
        _powers(pow(_BASE, -1, 1 << 64), HASHED_CHARS),
    )
    for start in range(0, len(text) - WINDOW + 1, HASHED_CHARS - WINDOW + 1):
        block = text[start : start + HASHED_CHARS].encode("utf-32-le", "surrogatepass")
        terms = code_points[np.frombuffer(block, "<u4")]
        terms *= powers[: len(terms)]
        sums = np.zeros(len(terms) + 1, np.uint64)
        np.cumsum(terms, out=sums[1:])
        hashes = sums[WINDOW:] - sums[:-WINDOW]
        hashes *= inverses[: len(hashes)]
        yield start, hashes


def _low_bits(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    return (hashes & np.uint64((1 << bits) - 1)).view(np.int64)


@cache
def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """Return base^0, base^1, ... mod 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


@cache
def _mixed_code_points() -> NDArray[np.uint64]:
    """Return splitmix64 of every code point, so that regular text has no regular hashes."""
    mixed = (np.arange(0x110000, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
