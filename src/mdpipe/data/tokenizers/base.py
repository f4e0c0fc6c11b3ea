"""The interface of tokenizers: text to token ids and back, with an end-of-text token for document boundaries.

Shapes: ids int64 (n,).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import write_json


@dataclass(frozen=True)
class Span:
    """Ids of a part of a text, and the text that they decode to within the whole."""

    ids: NDArray[np.int64]
    text: str
    """The part itself, normalized if the tokenizer normalizes text."""


class Tokenizer(ABC):
    """Text to ids in 0..vocab_size-1 and back."""

    kind: ClassVar[str]
    """Name in saved files and metrics: text8, bytes, sentencepiece or hf_tokenizer."""
    vocab_size: int
    """Number of ids, including the end-of-text token."""
    eos_id: int
    """Id of the end-of-text token."""
    unk_id: int | None = None
    """Id of the unknown token, if there is one."""
    is_lossless: bool = True
    """True if decode(encode(text)) is the text, for every text in UTF-8."""
    eos_separates_words: ClassVar[bool] = False
    """True if the end-of-text token is the space that encode() writes for every run of unknown characters."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int64]:
        """Return the ids of a text, without the end-of-text token."""

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Encode a part of a text as it is within the whole, including white space at its ends.

        Args:
            text: The part; sampled tokens may come before and after it.
            begins: True if no token comes before the part.

        Raises:
            ValueError: The tokenizer cannot spell the part.
        """
        return Span(self.encode(text), text)

    @abstractmethod
    def decode(self, ids: NDArray[np.integer]) -> str:
        """Return the text of any ids, whether or not they were encoded from a text."""

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and the tokenizer's other files into an existing folder."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocab_size": self.vocab_size})
