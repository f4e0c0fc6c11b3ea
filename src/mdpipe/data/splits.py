"""Splits: which documents or images of a source are for training, validation and testing.

Documents or images with equal keys share a split, so nothing that a fraction holds back was ever trained on.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from math import ceil, inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.raw import Document, RawShard, raw_shards
from mdpipe.params.data import LastCharacters, LastDocuments, Splits, SplitSpec, Windows
from mdpipe.params.sources import Modality

SPLITS = ("train", "validation", "test")
LAST_FIRST = ("test", "validation")
"""Order from the end of the source if both splits are its last documents or characters."""
NEVER = 2**63 - 1
"""A position that no source reaches."""
WORD = re.compile(r"\s(?=\S)")
"""Position at which a text may be cut: before a word and its leading white space."""
MIN_PASSAGES = 100
"""Passages in a sample of a few long documents, at least: the size of the sample then varies by a tenth."""
CUT_DOCUMENTS = (
    "use {last_characters: N}, which cuts a document, or {windows: 0.1} (windows of one document get into different"
    " splits, so held-out bits are lower than for new documents)"
)
"""Hint for text in too few documents."""
NOTHING_LEFT = "splits: all of the source is for validation and testing; correct them in params.yaml"


class Assigned(NamedTuple):
    """A document, or a part of one, and its split."""

    split: str
    document: Document
    is_cut: bool
    """True if the document continues in another split."""


@dataclass(frozen=True)
class SplitPlan:
    """The split of every document or image of a raw folder. Small, whatever the number of documents."""

    seed: int
    shards: list[RawShard]
    named: dict[int, str]
    """Shards that are in one split as a whole."""
    pool: frozenset[int]
    """Shards that are divided."""
    below: tuple[int, int] = (0, 0)
    """Keys that hash below the first are for validation, those from there to below the second for testing."""
    last: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Document and character of the pool from which everything is for validation, and for testing."""
    window_fractions: Mapping[str, float] = field(default_factory=dict)
    """Fraction of the windows of the pool that is for validation, or for testing."""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return the numbers of documents and characters of the pool before each shard, (shards, 2)."""
        sizes = [(shard.count, shard.characters) if shard.index in self.pool else (0, 0) for shard in self.shards]
        return np.cumsum([(0, 0), *sizes], axis=0)[:-1]

    def of_shard(self, index: int) -> list[str | None]:
        """Return the split of each document or image of a shard; None if it is not used."""
        shard = self.shards[index]
        if index not in self.pool:
            return [self.named.get(index)] * shard.count
        splits = hash_split(hash_keys(shard.keys, self.seed), *self.below)
        positions = self.starts[index, 0] + np.arange(shard.count)
        for split, (document, _) in self.last.items():
            splits[positions >= document] = split
        return list(splits.tolist())

    def documents(self, index: int) -> Iterator[Assigned]:
        """Yield the documents of a shard with their splits; a document that is cut by characters comes in parts."""
        position = int(self.starts[index, 1])
        cuts = sorted((start, split) for split, (_, start) in self.last.items() if start != NEVER)
        for document, split in zip(self.shards[index].documents(), self.of_shard(index), strict=True):
            if split is None:
                continue
            if index not in self.pool or not cuts:
                yield Assigned(split, document, is_cut=False)
            else:
                yield from _cut(split, document, position, cuts)
            position += len(document.text)

    def parts_before(self, index: int) -> Iterator[Assigned]:
        """Yield the earlier parts of the document that shard `index` continues, from the last to the first."""
        for earlier in range(index - 1, -1, -1):
            parts: list[Assigned] = []
            for assigned in self.documents(earlier):
                parts = [*(parts if assigned.document.part else []), assigned]
            yield from reversed(parts)
            if parts and not parts[0].document.part:
                return


def plan_splits(raw: Path, modality: Modality, seed: int, splits: Splits) -> SplitPlan:
    """Divide a source.

    The pool is the source's own split "train" if it has one, otherwise everything that `splits` does not name. Its n
    distinct keys are sorted by sha256("SEED:KEY"): the first ceil(validation * n) are for validation, the next
    ceil(test * n) for testing, and the rest for training. If both are the last of the pool, the test split is last.

    Raises:
        ValueError: A split would be empty, or the source has no split of that name.
    """
    shards = raw_shards(raw, modality)
    own = {shard.split for shard in shards if shard.split is not None}
    specs = splits.resolve(own)
    named: dict[int, str] = {}
    for split, spec in specs.items():
        if isinstance(spec, str):
            if spec not in own:
                raise ValueError(
                    f"splits.{split}: the source has no split {spec!r}; it has {', '.join(sorted(own)) or 'none'}"
                )
            named |= {shard.index: split for shard in shards if shard.split == spec}
    divided = divided_splits(own, specs)
    pool = [shard for shard in shards if shard.split in divided]
    if not pool:
        raise ValueError(NOTHING_LEFT)
    validation, test = _fractions(specs)
    windows = {split: spec.windows for split, spec in specs.items() if isinstance(spec, Windows)}
    # Only eight bytes per document are in memory for all documents at once.
    hashes = [hash_keys(shard.keys, seed) for shard in pool] if validation or test else []
    below = find_thresholds(np.concatenate(hashes), validation, test, modality) if hashes else (0, 0)
    indices = frozenset(shard.index for shard in pool)
    return SplitPlan(seed, shards, named, indices, below, _last(pool, specs, modality), windows)


def require_documents(
    splits: Splits,
    counts: Mapping[str | None, int],
    modality: Modality,
    max_characters: Callable[[Set[str | None]], float] = lambda _: inf,
) -> None:
    """Refuse what `plan_splits` will refuse, given how many documents or images a source has, equal ones included.

    Args:
        splits: The splits of a dataset.
        counts: Maximum number of documents or images in each of the source's own splits; None if it has no splits.
        modality: Modality of the source.
        max_characters: Returns the maximum number of characters in some of the source's own splits.

    Raises:
        ValueError: However many of them are different, a split would be empty.
    """
    specs = splits.resolve([split for split in counts if split is not None])
    divided = divided_splits(counts, specs) & counts.keys()
    if not divided:
        raise ValueError(NOTHING_LEFT)
    count = sum(counts[split] for split in divided)
    validation, test = _fractions(specs)
    if not any(_held_out(number, validation, test)[1] < number for number in range(1, count + 1)):
        raise _too_few(count, validation, test, modality)
    documents = characters = 0
    for split in LAST_FIRST:
        spec = specs[split]
        if isinstance(spec, LastDocuments):
            documents += spec.last_documents
            if documents >= count:
                raise _nothing_to_train_on(split, spec, modality)
        elif isinstance(spec, LastCharacters):
            characters += spec.last_characters
            if characters >= max_characters(divided):
                raise _nothing_to_train_on(split, spec, modality)


def divided_splits(own: Collection[str | None], specs: Mapping[str, SplitSpec]) -> Set[str | None]:
    """Return the source's splits that are divided: "train" if it has one, otherwise all that `specs` does not name."""
    return ({"train"} if "train" in own else {None, *own}).difference(specs.values())


def single_split(raw: Path, modality: Modality, split: str) -> SplitPlan:
    """Put a whole source into one split.

    Raises:
        ValueError: The folder holds another modality, or is broken.
    """
    shards = raw_shards(raw, modality)
    return SplitPlan(0, shards, {shard.index: split for shard in shards}, frozenset())


def training_texts(plan: SplitPlan, max_chars: int | None = None) -> Iterator[str]:
    """Yield the texts of the training split, the only ones that a tokenizer may be fitted to.

    Args:
        plan: The splits.
        max_chars: Approximate size of a sample from all over the split in characters; None for all of it. Long
            documents are sampled in passages, which end before a word where there is one.
    """
    characters = sum(plan.shards[index].characters for index in plan.pool)
    assigned = (entry for index in sorted(plan.pool) for entry in plan.documents(index))
    documents = (entry.document for entry in assigned if entry.split == "train")
    if max_chars is None or max_chars >= characters:
        yield from (document.text for document in documents)
        return
    fraction = max_chars / characters
    for document in documents:
        # The parts of a document share a key, by which all of them or none would be in the sample.
        key = f"{document.key()}{document.part or ''}"
        for number, passage in enumerate(cut_before_words(document.text, max(1, max_chars // MIN_PASSAGES))):
            if hash_key(f"tokenizer:{plan.seed}", f"{key}:{number}" if number else key) < fraction * 2**64:
                yield passage


def hash_keys(keys: NDArray[np.bytes_], seed: int) -> NDArray[np.uint64]:
    """Return the first 64 bits of sha256("SEED:KEY") of each key: (n,)."""
    return np.array([hash_key(str(seed), key.decode()) for key in keys.tolist()], dtype=np.uint64)


def hash_key(seed: str, key: str) -> int:
    """Return the first 64 bits of sha256("SEED:KEY")."""
    return int.from_bytes(sha256(f"{seed}:{key}".encode()).digest()[:8])


def hash_split(hashes: NDArray[np.uint64], validation_below: int, test_below: int) -> NDArray[np.str_]:
    """Return the split of each hash: (n,)."""
    splits = np.full(len(hashes), "train", dtype="U10")
    splits[hashes < test_below] = "test"
    splits[hashes < validation_below] = "validation"
    return splits


def find_thresholds(hashes: NDArray[np.uint64], validation: float, test: float, modality: Modality) -> tuple[int, int]:
    """Return the hashes below which keys are for validation, and from there on for testing.

    Raises:
        ValueError: Nothing would be left to train on.
    """
    distinct = np.unique(hashes)
    test_start, train_start = _held_out(len(distinct), validation, test)
    if not train_start < len(distinct):
        raise _too_few(len(distinct), validation, test, modality)
    return int(distinct[test_start]) if test_start else 0, int(distinct[train_start])


def _fractions(specs: Mapping[str, SplitSpec]) -> tuple[float, float]:
    """Return the fractions of the documents for validation and testing, 0 for a split in another form."""
    validation, test = (spec if isinstance(spec, float) else 0.0 for spec in specs.values())
    return validation, test


def _held_out(count: int, validation: float, test: float) -> tuple[int, int]:
    """Return how many of `count` different documents are for validation, and for validation or testing."""
    # As decimals, because 0.07 * 100 is 7.000000000000001 in floating point, whose ceiling is 8.
    for_validation, for_testing = (ceil(Fraction(str(size)) * count) for size in (validation, test))
    return for_validation, for_validation + for_testing


def _too_few(count: int, validation: float, test: float, modality: Modality) -> ValueError:
    """Return the error that fractions of so few different documents leave a split empty."""
    unit = "documents" if modality == "text" else "images or groups of them"
    splits = 1 + (validation > 0) + (test > 0)
    hints = ["lower these fractions"] if count >= splits else [CUT_DOCUMENTS] if modality == "text" else []
    return ValueError(
        f"the dataset's `splits`: the source's {unit} ({count}, where equal ones count once) cannot be split with"
        f" validation = {validation} and test = {test}: every split needs at least one;"
        f" {', or '.join([*hints, 'give more data'])}, in params.yaml"
    )


def _nothing_to_train_on(split: str, spec: LastDocuments | LastCharacters, modality: Modality) -> ValueError:
    """Return the error that the last documents or characters are all of the source."""
    hint = f", or {CUT_DOCUMENTS}" if isinstance(spec, LastDocuments) and modality == "text" else ""
    return ValueError(f"splits.{split}: {spec} leaves nothing to train on; lower it in params.yaml{hint}")


def _last(pool: Sequence[RawShard], specs: Mapping[str, SplitSpec], modality: Modality) -> dict[str, tuple[int, int]]:
    """Return the document and character from which the pool is for validation, and for testing."""
    documents, characters = 0, sum(shard.characters for shard in pool)
    found = dict.fromkeys(specs, (NEVER, NEVER))
    for split in LAST_FIRST:
        spec = specs[split]
        if isinstance(spec, LastDocuments):
            documents += spec.last_documents
            found[split] = (_start_of_last(pool, documents), NEVER)
        elif isinstance(spec, LastCharacters):
            characters -= spec.last_characters
            found[split] = (NEVER, characters)
        else:
            continue
        if min(found[split]) <= 0:
            raise _nothing_to_train_on(split, spec, modality)
    return found


def _start_of_last(shards: Sequence[RawShard], count: int) -> int:
    """Return the position of the first of the last `count` documents or images; 0 if there are no more than these.

    The parts of one text are one document. Only the shards that hold these documents are read.
    """
    end = sum(shard.count for shard in shards)
    for shard in reversed(shards):
        first = end - shard.count
        begins: Sequence[int] = range(first, end)
        if shard.characters:
            begins = [first + offset for offset, document in enumerate(shard.documents()) if not document.part]
        if len(begins) >= count:
            return begins[-count]
        count, end = count - len(begins), first
    return 0


def _cut(split: str, document: Document, position: int, cuts: Sequence[tuple[int, str]]) -> Iterator[Assigned]:
    """Yield a document that begins at this character of the pool, cut where another split starts."""
    start, part = 0, document.part
    end = len(document.text)
    for cut, following in cuts:
        here = cut - position
        if here <= 0:
            split = following
        elif here < end:
            yield Assigned(split, Document(document.name, document.text[start:here], part or 0, True), is_cut=True)
            split, start, part = following, here, (part or 0) + 1
    is_cut = document.unfinished and any(cut == position + end for cut, _ in cuts)
    yield Assigned(split, Document(document.name, document.text[start:], part, document.unfinished), is_cut)


def cut_before_words(text: str, size: int) -> Iterator[str]:
    """Cut a text into parts of `size` characters, or up to twice as many where no word begins earlier."""
    start = 0
    while len(text) - start > 2 * size:
        word = WORD.search(text, start + size, start + 2 * size)
        end = word.start() if word else start + 2 * size
        yield text[start:end]
        start = end
    yield text[start:]
