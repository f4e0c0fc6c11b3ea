"""Tokenizers without a learned vocabulary: text8's alphabet of 27 characters, and the 256 bytes of UTF-8.

Shapes: ids int64 (n,).
"""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import write_json
from mdpipe.data.tokenizers import Span

ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
DIGITS = (b"zero", b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight", b"nine")

_ID_OF_LETTER = np.zeros(256, dtype=np.int64)
_ID_OF_LETTER[list(ALPHABET)] = np.arange(len(ALPHABET))
_LETTER_OF_ID = np.frombuffer(ALPHABET, dtype=np.uint8)

NUL = b"\0"
NUL_IN_TEXT = b"\xc0\x80"
"""Modified UTF-8's overlong form of U+0000, which UTF-8 never uses."""


class Text8:
    """Lower case, digits spelled out, and one space (id 0) for every run of other characters; ids 1 to 26 are a to z.

    The space is also the end-of-text token.
    """

    kind: ClassVar[str] = "text8"
    vocab_size: ClassVar[int] = len(ALPHABET)
    eos_id: ClassVar[int] = 0
    unk_id: ClassVar[None] = None
    is_lossless: ClassVar[bool] = False
    eos_separates_words: ClassVar[bool] = True

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return one id per character of the normalized text, which may begin and end with a space."""
        letters = text.encode().lower()  # of bytes: only A to Z have a lower case, as in text8
        for digit, name in enumerate(DIGITS):
            letters = letters.replace(b"%d" % digit, b" %s " % name)
        return _ID_OF_LETTER[np.frombuffer(re.sub(rb"[^a-z]+", b" ", letters), dtype=np.uint8)]

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text.

        Raises:
            ValueError: it has letters or digits, none of which are left.
        """
        ids = self.encode(text)
        if any(letter.isalnum() for letter in text) and not ids.any():
            raise ValueError(f"the tokenizer 'text8' keeps nothing of {text!r}; write it in the letters a to z")
        return Span(ids, self.decode(ids))

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return one character per id."""
        return bytes(_LETTER_OF_ID[ids]).decode("ascii")

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocab_size": self.vocab_size})


class Bytes:
    """The bytes of UTF-8 are their own ids; NUL (id 0) is the end-of-text token.

    A NUL within a text is spelled as in Java's modified UTF-8, so that it does not end the document.
    """

    kind: ClassVar[str] = "bytes"
    vocab_size: ClassVar[int] = 256
    eos_id: ClassVar[int] = 0
    unk_id: ClassVar[None] = None
    is_lossless: ClassVar[bool] = True
    eos_separates_words: ClassVar[bool] = False

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return one id per byte, two for a NUL."""
        return np.frombuffer(text.encode().replace(NUL, NUL_IN_TEXT), dtype=np.uint8).astype(np.int64)

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text, which has the same ids everywhere."""
        return Span(self.encode(text), text)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of the bytes; invalid UTF-8 becomes U+FFFD."""
        return ids.astype(np.uint8).tobytes().replace(NUL_IN_TEXT, NUL).decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocab_size": self.vocab_size})
