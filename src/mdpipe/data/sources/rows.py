"""What lines and rows of a table have in common: their text undergoes a detokenizer, and may be empty."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.detokenizers import DETOKENIZERS

Empty = Literal["error", "drop", "keep"]
"""What to do with a row without text: refuse it, leave it out and count it, or keep it as a document of nothing but its
end, as the published zero-shot protocols do."""


@dataclass(frozen=True)
class Rows:
    """How rows become documents."""

    empty_rows: Empty
    detokenizer: str | None

    def document(self, name: str, text: str, counts: Counter[str], where: str) -> Document | None:
        """The document of a row, or None if it is left out.

        Raises:
            ValueError: the row is empty and may not be.
        """
        if not text.strip():
            if self.empty_rows == "error":
                raise ValueError(
                    f"{where} has no text but {text[:40]!r}; correct or remove it, or set the source's `empty_rows` in"
                    " params.yaml to drop or keep"
                )
            if self.empty_rows == "drop":
                counts["empty rows left out"] += 1
                return None
        return Document(name, DETOKENIZERS[self.detokenizer](text) if self.detokenizer else text)
