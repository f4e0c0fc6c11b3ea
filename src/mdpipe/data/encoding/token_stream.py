"""One split of one shard of text on its way to its file: tokens, and counts of what they stand for."""

from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.joined import Joined
from mdpipe.data.encoded.dataset import token_dtype
from mdpipe.data.encoding.packing import Packing
from mdpipe.data.raw.material import Document
from mdpipe.data.splits.plan import WORD
from mdpipe.data.tokenizers import Tokenizer

PIECE = 2**20
"""Characters that a tokenizer is given at once; a longer text is cut before a word."""
BINS = 32
"""Of the histogram of lengths: bin k has the documents of 2^k to 2^(k+1) - 1 tokens."""
SHARED = 4
"""Tokens that one character may be spelled in: the bytes that UTF-8 has at most."""


class TokenStream:
    """Appends documents to a file of tokens.

    A tokenizer that has a joint drops what is no letter at both ends of a text. Where the text goes on there, or the
    next one follows without an end of text, that is a joint. None is written at the ends of a shard: `summary` says
    where it would be needed.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, packing: Packing, files: ExitStack) -> None:
        self.counts = {"documents": 0, "tokens": 0, "bytes": 0, "characters": 0, "unknown": 0, "longest": 0}
        self.left_out = 0
        """Documents that begin and end here, of which the tokenizer leaves no token."""
        self._begun = False
        """Whether a document begins here; the parts before it belong to one of an earlier shard."""
        self._is_empty = True
        """Whether no token is left of the document at hand, as far as it is here."""
        self._is_open = False
        """Whether it goes on in a later shard."""
        self._head_is_empty = True
        """Whether no token is left of the document of an earlier shard."""
        self._head_ends = False
        """Whether that one ends here."""
        self.lengths = np.zeros(BINS, dtype=np.int64)
        self.unigram = np.zeros(tokenizer.vocabulary, dtype=np.int64)
        self.digests = bytearray()
        """SHA-256 of every document, or part of one."""
        self._tokenizer = tokenizer
        self._packing = packing
        self._joint = np.array(tokenizer.joint, dtype=np.int64)
        self._end = np.array(tokenizer.separator if packing.end_of_text else (), dtype=np.int64)
        self._file = files.enter_context(ArrayFile(path, token_dtype(tokenizer.vocabulary)))
        self._continues: bool | None = None
        """Whether the stream begins within a document,"""
        self._joint_needed = False
        """whether what stands before it would need a joint there,"""
        self._leading = False
        """and whether it needs one at the very beginning, for white space that is part of the text."""
        self._closes = False
        """Whether a document ends before any letter of this shard."""
        self._fresh = False
        """Whether the next token is the first one of a document that has an end: it is not joined to the one before."""
        self._gap = False
        """Whether something was dropped since the last token."""

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, and what shards need where they meet."""
        return {
            **self.counts,
            "left_out": self.left_out,
            "begun": self._begun,
            "open_and_empty": self._is_open and self._is_empty,
            "head_is_empty": self._head_is_empty,
            "head_ends": self._head_ends,
            "lengths": self.lengths.tolist(),
            "continues": bool(self._continues),
            "closes": self._closes,
            "joint_before": self._joint_needed,
            "joint_leading": self._leading,
            "joint_after": self._gap,
        }

    def append(self, document: Document) -> None:
        """Add a document, or a part of one, with its end."""
        tokens = self.tokens(document)
        self._note_left_out(document, not len(tokens))
        if not len(tokens):
            return
        decoded = document.text if self._tokenizer.lossless else self._tokenizer.decode(tokens)
        if not document.part:
            self.counts["documents"] += 1
        self.add(tokens, decoded, document.text)
        joined = len(self._joint) < len(tokens) and np.array_equal(tokens[: len(self._joint)], self._joint)
        length = len(tokens) - joined * len(self._joint)
        self.counts["longest"] = max(self.counts["longest"], length)
        self.lengths[min(int(np.log2(length)), BINS - 1)] += 1

    def _note_left_out(self, document: Document, is_empty: bool) -> None:
        """Count the document if this is its end and nothing is left of any of its parts."""
        if not document.part:
            self._begun, self._is_empty = True, True
        self._is_empty &= is_empty
        self._is_open = document.unfinished
        if self._begun:
            self.left_out += self._is_empty and not document.unfinished
        else:
            self._head_is_empty, self._head_ends = self._is_empty, not document.unfinished

    def tokens(self, document: Document) -> NDArray[np.int64]:
        """The tokens of the next document: int64 (n,); none, and no end, where a lossy tokenizer leaves nothing of it.

        A document that is empty from the start is kept by its end alone; see `empty_rows` of the sources.
        """
        if not document.part:
            self._fresh, self._gap = self._packing.end_of_text, not self._packing.end_of_text and len(self._joint) > 0
        parts = []
        for text in _pieces(document.text):
            ids = self._tokenizer.encode(text)
            if len(self._joint):
                parts.append(self._joint_before(text, bool(len(ids))))
            parts.append(ids)
            if len(ids):
                self._fresh = False
                self._continues = bool(document.part) if self._continues is None else self._continues
        if not document.unfinished:
            self._gap = False
            self._closes |= self._continues is None
            if self._tokenizer.lossless or not self._fresh:
                parts.append(self._end)
        return np.concatenate(parts)

    def add(self, tokens: NDArray[np.int64], text: str, content: str) -> None:
        """Add tokens that stand for a text, and come from this content."""
        self._file.append(tokens)
        self.unigram += np.bincount(tokens, minlength=len(self.unigram))
        self.digests += sha256(content.encode()).digest()
        self.counts["tokens"] += len(tokens)
        self.counts["characters"] += len(text)
        self.counts["bytes"] += len(text.encode())
        if self._tokenizer.unknown is not None:
            self.counts["unknown"] += int((tokens == self._tokenizer.unknown).sum())

    def _joint_before(self, text: str, has_tokens: bool) -> NDArray[np.int64]:
        if not has_tokens:
            self._gap = (self._gap or bool(text)) and not self._fresh
            return self._joint[:0]
        needed = (self._gap or self._dropped(text[0])) and not self._fresh
        self._gap = self._dropped(text[-1])
        if self._continues is None:
            self._leading = self._dropped(text[0]) and not self._fresh
            self._joint_needed, needed = needed, False
        return self._joint if needed else self._joint[:0]

    def _dropped(self, letter: str) -> bool:
        """Whether encoding drops it, or what it puts beside it, at the end of a text: between letters it shows."""
        alone = len(self._tokenizer.encode(letter))
        return len(self._tokenizer.encode(f"a{letter}a")) > alone + len(self._tokenizer.encode("aa"))


def text_between(tokenizer: Tokenizer, tokens: NDArray[Any] | Joined[Any], first: int, end: int) -> str:
    """What tokens[first:end] stand for, without ends of text.

    A character that is spelled in several tokens counts where the last of them is.
    """

    def decoded(start: int, stop: int) -> str:
        part = tokens[max(start, 0) : stop]
        return tokenizer.decode(part[~np.isin(part, tokenizer.separator)] if tokenizer.lossless else part)

    def around(place: int) -> tuple[int, int]:
        """Characters that end before the place, and that end after it, among the tokens next to it."""
        text = decoded(place - SHARED, place + SHARED)
        agreeing = takewhile(lambda pair: pair[0] == pair[1], zip(decoded(place - SHARED, place), text, strict=False))
        before = len(list(agreeing))
        return before, len(text) - before

    text = decoded(first - SHARED, end + SHARED)
    return text[around(first)[0] : len(text) - around(end)[1]]


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces. All but the first begin with the white space before a word, where there is any."""
    start = 0
    while len(text) - start > PIECE:
        gaps = [found.start() for found in WORD.finditer(text, start + PIECE // 2, start + PIECE)]
        end = gaps[-1] if gaps else start + PIECE
        yield text[start:end]
        start = end
    yield text[start:]
