"""The plan of a split: which documents or pictures are for training, validation and testing.

Things that share a key share a split, so nothing that is held out by a share was ever trained on.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mdpipe.data.raw.material import Document, RawShard, raw_shards
from mdpipe.data.splits.held import WITHIN_DOCUMENTS, Chunks, Held, Last, LastCharacters, Named
from mdpipe.data.splits.keys import by_order, key_orders, order_of, thresholds

NEVER = 2**63 - 1
"""A place that no source reaches."""
WORD = re.compile(r"\s(?=\S)")
"""Where a text is cut: before a word and the white space that belongs to it."""
PASSAGES = 100
"""That a sample of a text in few long documents has at least: its size then varies by a tenth."""


@dataclass(frozen=True)
class SplitPlan:
    """Which split every document or picture of a raw folder is in. It is small, whatever the number of documents."""

    seed: int
    shards: list[RawShard]
    starts: list[tuple[int, int]]
    """Of each shard in the pool: documents and characters of the pool before it."""
    named: dict[int, str]
    """Shards that are in a split as a whole."""
    pool: frozenset[int]
    """Shards that are divided."""
    validation_below: int
    """Orders of keys below this are for validation,"""
    test_below: int
    """those from there to below this for testing."""
    validation_from: tuple[int, int]
    """Document and character of the pool from which on all is for validation,"""
    test_from: tuple[int, int]
    """or for testing."""
    chunks: tuple[float, float] = (0.0, 0.0)
    """Shares of blocks of the pool that are for validation and for testing."""

    def of_shard(self, index: int) -> list[str | None]:
        """The split of each document or picture of a shard, None for what is used for nothing."""
        shard = self.shards[index]
        if index not in self.pool:
            return [self.named.get(index)] * shard.count
        splits = by_order(key_orders(shard.keys, self.seed), self.validation_below, self.test_below)
        place = self.starts[index][0] + np.arange(shard.count)
        splits[place >= self.validation_from[0]] = "validation"
        splits[place >= self.test_from[0]] = "test"
        return list(splits.tolist())

    def documents(self, index: int) -> Iterator[tuple[str, Document]]:
        """The documents of a shard with their splits; one in which a cut by characters lies comes as two."""
        character = self.starts[index][1]
        cuts = sorted((place, split) for split, (_, place) in self._cuts() if place != NEVER)
        for document, split in zip(self.shards[index].documents(), self.of_shard(index), strict=True):
            if split is None:
                continue
            if index not in self.pool or not cuts:
                yield split, document
            else:
                yield from _cut(split, document, character, cuts)
            character += len(document.text)

    def _cuts(self) -> list[tuple[str, tuple[int, int]]]:
        return [("validation", self.validation_from), ("test", self.test_from)]


def plan_splits(raw: Path, modality: Literal["text", "image"], seed: int, validation: Held, test: Held) -> SplitPlan:
    """Divide the source.

    The pool is the source's own split "train" if it has one, otherwise all that validation and test do not name. Of its
    n different keys, in the order of sha256("SEED:KEY"), the first ceil(validation * n) are for validation, the next
    ceil(test * n) for testing, and the rest for training. What is last in the pool is tested on if both are to be last.

    Raises:
        ValueError: a split would be empty, the source has no such split of its own, or both are to be last but one
            counts documents and the other characters.
    """
    _check_pair(validation, test)
    shards = raw_shards(raw, modality)
    given = {shard.split for shard in shards if shard.split is not None}
    named: dict[int, str] = {}
    for split, held in (("validation", validation), ("test", test)):
        if isinstance(held, Named):
            if held.name not in given:
                raise ValueError(
                    f"{split}: the source has no split {held.name!r} of its own; it has"
                    f" {', '.join(sorted(given)) or 'none'}"
                )
            named |= {shard.index: split for shard in shards if shard.split == held.name}
    free = [shard for shard in shards if shard.index not in named]
    if "train" in given:
        free = [shard for shard in free if shard.split == "train"]
    shares = [held if isinstance(held, float) else 0.0 for held in (validation, test)]
    # Eight bytes a document is all that is ever held of all of them at once.
    orders = [key_orders(shard.keys, seed) for shard in free] if any(shares) else []
    below = thresholds(np.concatenate(orders), shares[0], shares[1], modality) if orders else (0, 0)
    starts = _starts(shards, {shard.index for shard in free})
    ends = _ends(free, validation, test, modality)
    chunks = [held.share if isinstance(held, Chunks) else 0.0 for held in (validation, test)]
    pool = frozenset(shard.index for shard in free)
    if not pool or sum(chunks) >= 1:
        raise ValueError(
            f"validation = {validation} and test = {test} leave nothing of the source to train on; correct them in"
            " params.yaml"
        )
    return SplitPlan(seed, shards, starts, named, pool, *below, *ends, (chunks[0], chunks[1]))


def whole(raw: Path, modality: Literal["text", "image"], split: str) -> SplitPlan:
    """Everything in one split.

    Raises:
        ValueError: the folder holds another modality, or is broken.
    """
    shards = raw_shards(raw, modality)
    named = {shard.index: split for shard in shards}
    return SplitPlan(0, shards, _starts(shards, set()), named, frozenset(), 0, 0, (NEVER, NEVER), (NEVER, NEVER))


def training_texts(plan: SplitPlan, sample: int | None = None) -> Iterator[str]:
    """The texts of the training split: all that a tokenizer may be fitted to.

    Args:
        plan: which they are.
        sample: about how many characters, from all over the split; None for all. A document that is long in comparison
            is sampled in passages, which end before a word where there is one.
    """
    characters = sum(plan.shards[index].characters for index in plan.pool)
    if sample is None or sample >= characters:
        yield from (document.text for document in _training_documents(plan))
        return
    share = sample / characters
    for document in _training_documents(plan):
        # The parts of a text have one key in common, of which all or nothing would be taken.
        key = f"{document.key()}{document.part or ''}"
        for number, passage in enumerate(_passages(document.text, max(1, sample // PASSAGES))):
            place = f"{key}:{number}" if number else key
            if order_of(f"tokenizer:{plan.seed}", place) < share * 2**64:
                yield passage


def _training_documents(plan: SplitPlan) -> Iterator[Document]:
    for index in sorted(plan.pool):
        yield from (document for split, document in plan.documents(index) if split == "train")


def _passages(text: str, size: int) -> Iterator[str]:
    """Cut a text into passages of `size` characters, or up to twice as many where no word begins earlier."""
    start = 0
    while len(text) - start > 2 * size:
        word = WORD.search(text, start + size, start + 2 * size)
        end = word.start() if word else start + 2 * size
        yield text[start:end]
        start = end
    yield text[start:]


def _check_pair(validation: Held, test: Held) -> None:
    if isinstance(validation, Named) and validation == test:
        raise ValueError(f"validation and test are both {validation.name!r}; name different splits in params.yaml")
    if {type(validation), type(test)} == {Last, LastCharacters}:
        raise ValueError(
            f"validation = {validation} and test = {test} are both to be last; count both in documents or both in"
            " characters in params.yaml"
        )


def _starts(shards: Sequence[RawShard], pool: set[int]) -> list[tuple[int, int]]:
    starts, documents, characters = [], 0, 0
    for shard in shards:
        starts.append((documents, characters))
        if shard.index in pool:
            documents += shard.count
            characters += shard.characters
    return starts


def _ends(
    shards: Sequence[RawShard], validation: Held, test: Held, modality: Literal["text", "image"]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the parts of the pool begin that are held out because they come last."""
    documents, characters = 0, sum(shard.characters for shard in shards)
    found = []
    for held in (test, validation):
        begins = (NEVER, NEVER)
        if isinstance(held, Last):
            documents += held.documents
            begins = (_place_of_last(shards, documents), NEVER)
        elif isinstance(held, LastCharacters):
            characters -= held.characters
            begins = (NEVER, characters)
        if min(begins) <= 0:
            hint = f", or {WITHIN_DOCUMENTS}" if isinstance(held, Last) and modality == "text" else ""
            raise ValueError(
                f"what is held out at the end of the source ({held}) leaves nothing to train on; lower it in"
                f" params.yaml{hint}"
            )
        found.append(begins)
    return found[1], found[0]


def _place_of_last(shards: Sequence[RawShard], count: int) -> int:
    """Where the last so many documents, or pictures, of the shards begin; 0 where there are no more of them.

    The parts of one text are one document. Shards are only read as far as these documents reach.
    """
    place = sum(shard.count for shard in shards)
    for shard in reversed(shards):
        first = place - shard.count
        begins = [first + offset for offset, is_begin in enumerate(shard.begins()) if is_begin]
        if len(begins) >= count:
            return begins[-count]
        count, place = count - len(begins), first
    return 0


def _cut(
    split: str, document: Document, character: int, cuts: Sequence[tuple[int, str]]
) -> Iterator[tuple[str, Document]]:
    """A document that begins at this character of the pool, cut at the places from which on there are other splits."""
    start, part = 0, document.part
    for place, following in cuts:
        here = place - character
        if here <= 0:
            split = following
        elif here < len(document.text):
            yield split, Document(document.name, document.text[start:here], part or 0, True)
            split, start, part = following, here, (part or 0) + 1
    yield split, Document(document.name, document.text[start:], part, document.unfinished)
