"""The 256 bytes of UTF-8, with NUL between documents."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mdpipe.data.artifacts.stable_json import write_json


class Bytes:
    """A byte is its own id."""

    kind: ClassVar[str] = "bytes"
    vocabulary: ClassVar[int] = 256
    separator: ClassVar[tuple[int, ...]] = (0,)
    joint: ClassVar[tuple[int, ...]] = ()
    unknown: ClassVar[None] = None
    lossless: ClassVar[bool] = True

    def encode(self, text: str) -> NDArray[np.int64]:
        """One id a byte: (n,)."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, ids: NDArray[np.integer]) -> str:
        """The text of the bytes; those that are no UTF-8 become U+FFFD."""
        return ids.astype(np.uint8).tobytes().decode("utf-8", errors="replace")

    def save(self, directory: Path) -> None:
        """Write tokenizer.json."""
        write_json(directory / "tokenizer.json", {"kind": self.kind, "vocabulary": self.vocabulary})
