"""Tokenizers: text to token ids and back, with an end-of-text token for document boundaries.

Two have no learned vocabulary: text8's alphabet of 27 characters, and the 256 bytes of UTF-8.

Shapes: ids int64 (n,).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import read_json, write_json

if TYPE_CHECKING:
    from mdpipe.params.data import TextTokenizer

ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
DIGITS = (b"zero", b"one", b"two", b"three", b"four", b"five", b"six", b"seven", b"eight", b"nine")
_ID_OF_BYTE = np.zeros(256, dtype=np.int64)
_ID_OF_BYTE[list(ALPHABET)] = np.arange(len(ALPHABET))
_BYTE_OF_ID = np.frombuffer(ALPHABET, dtype=np.uint8)

END_OF_DOCUMENT = "--- end of document ---"
"""The line that stands for an end-of-text token in text for people."""

NUL = b"\0"
NUL_IN_TEXT = b"\xc0\x80"
"""Modified UTF-8's overlong form of U+0000, which UTF-8 never uses."""


@dataclass(frozen=True)
class Span:
    """Ids of a part of a text, and the text that they decode to within the whole."""

    ids: NDArray[np.int64]
    text: str
    """The part itself, normalized if the tokenizer normalizes text."""


class Tokenizer(Protocol):
    """Text to ids in 0..vocab_size-1 and back."""

    @property
    def kind(self) -> str:
        """Name in saved files and metrics: text8, bytes, sentencepiece or hf_tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, including the end-of-text token."""

    @property
    def eos_id(self) -> int:
        """Id of the end-of-text token."""

    @property
    def unk_id(self) -> int | None:
        """Id of the unknown token, if there is one."""

    @property
    def is_lossless(self) -> bool:
        """True if decode(encode(text)) is the text, for every text in UTF-8."""

    @property
    def eos_separates_words(self) -> bool:
        """True if the end-of-text token is the space that encode() writes for every run of unknown characters."""

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text, without the end-of-text token."""

    def encode_span(self, text: str, *, begins: bool) -> Span:
        """Encode a part of a text as it is within the whole, including white space at its ends.

        Args:
            text: the part; sampled tokens may come before and after it.
            begins: True if no token comes before the part.

        Raises:
            ValueError: the tokenizer cannot spell the part.
        """

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of any ids, whether or not they were encoded from a text."""

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and the tokenizer's other files into an existing folder."""


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
        content = text.encode().lower()  # of bytes: only A to Z have a lower case, as in text8
        for digit, name in enumerate(DIGITS):
            content = content.replace(b"%d" % digit, b" %s " % name)
        return _ID_OF_BYTE[np.frombuffer(re.sub(rb"[^a-z]+", b" ", content), dtype=np.uint8)]

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text.

        Raises:
            ValueError: it has letters or digits, none of which are left.
        """
        ids = self.encode(text)
        if any(character.isalnum() for character in text) and not ids.any():
            raise ValueError(f"the tokenizer 'text8' keeps nothing of {text!r}; write it in the letters a to z")
        return Span(ids, self.decode(ids))

    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return one character per id."""
        return bytes(_BYTE_OF_ID[ids]).decode("ascii")

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


def build_tokenizer(config: "TextTokenizer", documents: Iterable[str] = ()) -> Tokenizer:
    """Build a tokenizer; SentencePiece is trained on the documents, the other kinds read none.

    Raises:
        ValueError: the documents are too few for the vocabulary, or a tokenizer's file is missing or broken.
    """
    # Imported here because a machine that trains models may have neither `sentencepiece` nor `tokenizers`.
    match config.kind:
        case "text8":
            return Text8()
        case "bytes":
            return Bytes()
        case "sentencepiece":
            from mdpipe.data.tokenizers.sentencepiece import SentencePiece

            return SentencePiece.train(documents, config)
    from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer

    return HFTokenizer.from_gpt2(config) if config.kind == "gpt2" else HFTokenizer.from_file(config)


def decode_for_people(tokenizer: Tokenizer, ids: NDArray[np.integer]) -> str:
    """Return the text of any ids (n,), with the line `END_OF_DOCUMENT` for each end-of-text token.

    text8 has no such line: its end-of-text token is the space between words.
    """
    if tokenizer.eos_separates_words:
        return tokenizer.decode(ids)
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eos_id))  # All but the first begin with the token.
    texts = (tokenizer.decode(document[document != tokenizer.eos_id]) for document in documents)
    return f"\n{END_OF_DOCUMENT}\n".join(texts)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read a tokenizer that was saved in a folder.

    Raises:
        ValueError: a file of it is missing or broken.
    """
    path, hint = directory / "tokenizer.json", f"run the stage that wrote {directory} again"
    header = read_json(path, hint)
    tokenizer: Tokenizer
    match header.get("kind"):
        case "text8":
            tokenizer = Text8()
        case "bytes":
            tokenizer = Bytes()
        case "sentencepiece":
            from mdpipe.data.tokenizers.sentencepiece import SentencePiece

            tokenizer = SentencePiece.load(directory, hint)
        case "hf_tokenizer":
            from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer

            tokenizer = HFTokenizer.load(directory, hint)
        case kind:
            raise ValueError(f"{path} has the unknown kind {kind!r}; {hint}")
    stated = header.get("vocab_size")
    if stated != tokenizer.vocab_size:
        raise ValueError(f"{path}: vocab_size = {stated!r}, and the tokenizer has {tokenizer.vocab_size}; {hint}")
    return tokenizer
