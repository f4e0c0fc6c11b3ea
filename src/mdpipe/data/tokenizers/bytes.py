"""The 256 bytes of UTF-8, with NUL between documents.

A NUL within a text is spelled in two bytes that UTF-8 never uses, as in Java's modified UTF-8, so that it does not end
the document.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import write_json
from mdpipe.data.tokenizers.span import Span

NUL = b"\0"
NUL_IN_TEXT = b"\xc0\x80"
"""Modified UTF-8's overlong form of U+0000."""


class Bytes:
    """A byte is its own id; the id 0 ends a document."""

    kind: ClassVar[str] = "bytes"
    vocabulary: ClassVar[int] = 256
    separator: ClassVar[tuple[int, ...]] = (0,)
    joint: ClassVar[tuple[int, ...]] = ()
    unknown: ClassVar[None] = None
    lossless: ClassVar[bool] = True

    def encode(self, text: str) -> NDArray[np.int64]:
        """Return one id per byte, two for a NUL: (n,)."""
        return np.frombuffer(text.encode().replace(NUL, NUL_IN_TEXT), dtype=np.uint8).astype(np.int64)

    def encode_span(self, text: str, *, begins: bool) -> Span:  # noqa: ARG002
        """Return the ids of the text, which are the same wherever it is."""
        return Span(self.encode(text), text)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """The text of the bytes; those that are no UTF-8 become U+FFFD."""
        return ids.astype(np.uint8).tobytes().replace(NUL_IN_TEXT, NUL).decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocabulary": self.vocabulary})
