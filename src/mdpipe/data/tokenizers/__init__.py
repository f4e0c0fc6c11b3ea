"""Tokenizers: text to token ids and back, with an end-of-text token for document boundaries.

Shapes: ids int64 (n,).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import read_json

if TYPE_CHECKING:
    from mdpipe.params.data import TextTokenizer


@dataclass(frozen=True)
class Span:
    """Ids of a part of a text, and the text that they decode to within the whole."""

    ids: NDArray[np.int64]
    text: str
    """The part itself, or what is left of it where the tokenizer normalizes text."""


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


def build_tokenizer(config: "TextTokenizer", documents: Iterable[str] = ()) -> Tokenizer:
    """Build a tokenizer; SentencePiece is trained on the documents, the other kinds read none.

    Raises:
        ValueError: the documents are too few for the vocabulary, or a tokenizer's file is missing or broken.
    """
    # Imported here because a machine that trains models may have neither `sentencepiece` nor `tokenizers`.
    match config.kind:
        case "text8" | "bytes":
            from mdpipe.data.tokenizers.characters import Bytes, Text8

            return Text8() if config.kind == "text8" else Bytes()
        case "sentencepiece":
            from mdpipe.data.tokenizers.sentencepiece import SentencePiece

            return SentencePiece.train(documents, config)
    from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer

    return HFTokenizer.from_gpt2(config) if config.kind == "gpt2" else HFTokenizer.from_file(config)


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read a tokenizer that was saved in a folder.

    Raises:
        ValueError: a file of it is missing or broken.
    """
    hint = f"run the stage that wrote {directory} again"
    path = directory / "tokenizer.json"
    header = read_json(path, hint)
    match header.get("kind"):
        case "text8" | "bytes" as kind:
            from mdpipe.data.tokenizers.characters import Bytes, Text8

            tokenizer: Tokenizer = Text8() if kind == "text8" else Bytes()
        case "sentencepiece":
            from mdpipe.data.tokenizers.sentencepiece import SentencePiece

            tokenizer = SentencePiece.load(directory, hint)
        case "hf_tokenizer":
            from mdpipe.data.tokenizers.hf_tokenizer import HFTokenizer

            tokenizer = HFTokenizer.load(directory, hint)
        case kind:
            raise ValueError(f"{path} has the unknown kind {kind!r}; {hint}")
    if header.get("vocab_size") != tokenizer.vocab_size:
        raise ValueError(
            f"{path}: vocab_size = {header.get('vocab_size')!r}, and the tokenizer has {tokenizer.vocab_size}; {hint}"
        )
    return tokenizer
