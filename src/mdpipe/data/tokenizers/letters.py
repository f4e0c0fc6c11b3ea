"""The alphabet of text8: the space (id 0) and the letters a to z (ids 1 to 26)."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.tokenizers.span import Span

ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
DIGITS = (b"zero", b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight", b"nine")

_ID_OF_LETTER = np.zeros(256, dtype=np.int64)
_ID_OF_LETTER[list(ALPHABET)] = np.arange(len(ALPHABET))
_LETTER_OF_ID = np.frombuffer(ALPHABET, dtype=np.uint8)


class Letters:
    """Lower case, digits spelled out one by one, everything else a space, and one space where there were more."""

    kind: ClassVar[str] = "letters"
    vocabulary: ClassVar[int] = len(ALPHABET)
    separator: ClassVar[tuple[int, ...]] = (0,)
    joint: ClassVar[tuple[int, ...]] = (0,)
    unknown: ClassVar[None] = None
    lossless: ClassVar[bool] = False

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of the normalised text, which neither begins nor ends with a space: (n,)."""
        return _ID_OF_LETTER[np.frombuffer(_normalised(text), dtype=np.uint8)]

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text; letters around it, which are removed again, keep the spaces at its ends.

        Raises:
            ValueError: it has letters or digits, none of which are left.
        """
        ids = self.encode(f"a{text}a")[1:-1]
        if any(letter.isalnum() for letter in text) and not ids.any():
            raise ValueError(f"the tokenizer 'letters' keeps nothing of {text!r}; write it in the letters a to z")
        return Span(ids, self.decode(ids))

    def decode(self, ids: NDArray[np.integer]) -> str:
        """One letter an id."""
        return bytes(_LETTER_OF_ID[ids]).decode("ascii")

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocabulary": self.vocabulary})


def _normalised(text: str) -> bytes:
    letters = text.encode().lower()  # of bytes: only A to Z have a lower case, as in text8
    for digit, name in enumerate(DIGITS):
        letters = letters.replace(b"%d" % digit, b" %s " % name)
    return re.sub(rb"[^a-z]+", b" ", letters).strip()
