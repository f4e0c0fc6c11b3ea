"""The tokens of one split of a shard of text, and counts of their text.

Shapes: tokens and ids (n,).
"""

from collections.abc import Iterable
from contextlib import ExitStack
from hashlib import sha256
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.arrays import ArrayFile, ConcatArray
from mdpipe.data.dataset import token_dtype
from mdpipe.data.raw import Document
from mdpipe.data.splits import cut_before_words
from mdpipe.data.tokenizers.base import Tokenizer
from mdpipe.params.data import Packing

MAX_ENCODED_CHARS = 2**20
"""Characters that a tokenizer is given at once; a longer text is cut before a word."""
LENGTH_BINS = 32
"""Bins of the histogram of lengths: bin k counts documents of 2^k to 2^(k+1) - 1 tokens."""
MAX_TOKENS_PER_CHAR = 4
"""Tokens that one character may be spelled in: the bytes of a character in UTF-8, at most."""


class TokenStream:
    """Append documents to a file of tokens.

    A text8 tokenizer writes one space for every run of other characters. Spaces at the ends of a
    document are dropped, and documents without an end-of-text token are a space apart. A space at the end of a part is
    therefore written when a word follows it.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, packing: Packing, files: ExitStack) -> None:
        names = ("documents", "tokens", "bytes", "characters", "words", "unk_tokens", "longest_document")
        self.counts = dict.fromkeys(names, 0)
        self.starts: list[int] = []
        """Position in the file at which each document begins. A space that separates it from the document before, where
        there is no end-of-text token, is its first token."""
        self._documents_seen = 0
        """Number of documents, including those without a token."""
        self.lengths = np.zeros(LENGTH_BINS, dtype=np.int64)
        self.unigram = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self.digests = bytearray()
        """SHA-256 of every document, or part of one."""
        self._tokenizer = tokenizer
        self._eos = tokenizer.eos_id
        self._append_eos = packing.append_eos
        self._file = files.enter_context(ArrayFile(path, token_dtype(tokenizer.vocab_size)))
        self.has_words = False
        """True if the split has a word before the next document; of use only without end-of-text tokens."""
        self._is_open = False
        """True if the current document continues in the next part."""
        self._begins_here = True
        """True if the current document does not continue one of another split."""
        self._is_empty = True
        """True if the current document has no token yet."""
        self._is_space_due = False
        """True if the current document needs a space before its next word."""
        self._ends_in_word = False
        """True if the current document ends within a word so far."""

    @property
    def summary(self) -> dict[str, Any]:
        """Return all counts, for JSON."""
        left_out = self._documents_seen - self.counts["documents"]
        return {**self.counts, "documents_left_out": left_out, "lengths": self.lengths.tolist()}

    def resume(self, parts: Iterable[Document]) -> None:
        """Continue a document whose parts in earlier shards are these, from the last to the first."""
        is_last = True
        for document in parts:
            self._is_open, self._begins_here = True, not document.part
            ids = self._tokenizer.encode(document.text)
            if self._tokenizer.eos_separates_words and len(ids):
                if is_last:
                    self._is_space_due, is_last = bool(ids[-1] == self._eos), False
                ids = ids[ids != self._eos]
            if len(ids):
                text = document.text if self._tokenizer.is_lossless else self._tokenizer.decode(ids)
                self._is_empty, self._ends_in_word = False, not text[-1:].isspace()
                return

    def append(self, document: Document, *, is_cut: bool = False) -> None:
        """Append a document, or a part of one, with its end-of-text token.

        A lossy tokenizer may leave nothing of a document, which then has no end-of-text token either.
        """
        if not self._is_open:
            self._begins_here, self._is_empty, self._ends_in_word = not document.part, True, False
            self._documents_seen += self._begins_here
            self._is_space_due = self.has_words and not self._append_eos
        was_empty = self._is_empty
        parts = cut_before_words(document.text, max(1, MAX_ENCODED_CHARS // 2))
        tokens = np.concatenate([self._encode(text) for text in parts])
        # The end of a document that begins in another split counts if it is not empty.
        is_counted = was_empty and (self._begins_here or len(tokens) > 0)
        is_kept = self._tokenizer.is_lossless or len(tokens) > 0 or not was_empty or not self._begins_here
        if self._append_eos and not document.unfinished and is_kept:
            tokens = np.append(tokens, self._eos)
        if len(tokens):
            self._is_empty = False
            if was_empty:
                self.starts.append(self._file.rows)
            self.counts["documents"] += is_counted
            self._documents_seen += is_counted and not self._begins_here
            text = document.text if self._tokenizer.is_lossless else self._tokenizer.decode(tokens)
            self.add(tokens, text)
            self.counts["words"] += len(text.split()) - (self._ends_in_word and not text[:1].isspace() and text != "")
            self._ends_in_word = not text[-1:].isspace() if text else self._ends_in_word
            self.digests += sha256(document.text.encode()).digest()
            # Without the space before the document.
            is_spaced = self._tokenizer.eos_separates_words and len(tokens) > 1 and tokens[0] == self._eos
            length = len(tokens) - int(is_spaced)
            self.counts["longest_document"] = max(self.counts["longest_document"], length)
            self.lengths[min(int(np.log2(length)), LENGTH_BINS - 1)] += 1
        if is_cut and self._is_space_due:
            self.add(np.array([self._eos]), " ")
        self._is_open = document.unfinished and not is_cut

    def add(self, tokens: NDArray[np.integer], text: str) -> None:
        """Append tokens and count their text, except its words."""
        self._file.append(tokens)
        self.unigram += np.bincount(tokens, minlength=len(self.unigram))
        self.counts["tokens"] += len(tokens)
        self.counts["characters"] += len(text)
        self.counts["bytes"] += len(text.encode())
        if self._tokenizer.unk_id is not None:
            self.counts["unk_tokens"] += int((tokens == self._tokenizer.unk_id).sum())

    def _encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text within the document; a space at its end is due, and not written yet."""
        ids = self._tokenizer.encode(text)
        if not self._tokenizer.eos_separates_words or not len(ids):
            return ids
        # A document that has an end-of-text token has no space before its first word.
        is_first = self._is_empty and self._begins_here and self._append_eos
        is_spaced = not is_first and (self._is_space_due or ids[0] == self._eos)
        words = np.flatnonzero(ids != self._eos)
        if not len(words):
            self._is_space_due = bool(is_spaced)
            return ids[:0]
        self._is_empty, self.has_words, self._is_space_due = False, True, bool(ids[-1] == self._eos)
        return np.concatenate([[self._eos] * int(is_spaced), ids[words[0] : words[-1] + 1]]).astype(np.int64)


def decode_between(tokenizer: Tokenizer, tokens: NDArray[Any] | ConcatArray[Any], first: int, end: int) -> str:
    """Return the text of tokens[first:end], without end-of-text tokens.

    A character that is spelled in several tokens counts where the last of them is.
    """

    def decode(start: int, stop: int) -> str:
        part = tokens[max(start, 0) : stop]
        return tokenizer.decode(part[part != tokenizer.eos_id] if tokenizer.is_lossless else part)

    def around(position: int) -> tuple[int, int]:
        """Return the number of characters that end before the position, and after it, among the adjacent tokens."""
        text = decode(position - MAX_TOKENS_PER_CHAR, position + MAX_TOKENS_PER_CHAR)
        pairs = zip(decode(position - MAX_TOKENS_PER_CHAR, position), text, strict=False)
        before = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        return before, len(text) - before

    text = decode(first - MAX_TOKENS_PER_CHAR, end + MAX_TOKENS_PER_CHAR)
    return text[around(first)[0] : len(text) - around(end)[1]]


def count_words(
    tokenizer: Tokenizer,
    tokens: NDArray[Any] | ConcatArray[Any],
    document_starts: NDArray[np.int64],
    first: int,
    end: int,
) -> int:
    """Return the number of words that begin in tokens[first:end]; a word ends where its document does."""
    document, following = np.searchsorted(document_starts, [first, end], side="left")
    inner = document_starts[document:following]
    cuts = [first, *inner[inner > first].tolist(), end]
    texts = [decode_between(tokenizer, tokens, *ends) for ends in pairwise(cuts)]
    words = sum(len(text.split()) for text in texts)
    if first not in inner and texts[0][:1].strip():
        begin = max(int(document_starts[document - 1]), first - 2 * MAX_TOKENS_PER_CHAR)
        words -= bool(decode_between(tokenizer, tokens, begin, first)[-1:].strip())
    return words
