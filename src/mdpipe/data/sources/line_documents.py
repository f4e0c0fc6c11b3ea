"""Lines that become documents, one each."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import Policy, decoded
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.lines import LineRange, line_name, line_number
from mdpipe.data.sources.rows import Rows


@dataclass(frozen=True)
class LineDocuments(PartOf[LineRange], ABC):
    """Some lines of a file."""

    broken_utf8: Policy
    rows: Rows

    def read(self, counts: Counter[str]) -> Iterator[Document]:
        """At most one document a line, which loses a leading byte-order mark.

        Raises:
            ValueError: a line is no UTF-8, or `document` says so; the message names file and line.
        """
        found = self.extent.found
        counts["files"] += self.extent.start == 0  # Of a long file, other parts have the rest.
        for position, raw in self.extent.lines():
            counts["rows"] += 1
            try:
                line = decoded(raw, self.broken_utf8, counts, "it", position)
                if line is not None:
                    line = line if position else line.removeprefix("\ufeff")
                    document = self.document(line_name(found, position), line, counts)
                    if document is not None:
                        yield document
            except ValueError as error:
                raise ValueError(f"{found.file}:{line_number(found.file, position)}: {error}") from None

    @abstractmethod
    def document(self, name: str, line: str, counts: Counter[str]) -> Document | None:
        """The document of a line, or None if it is left out, which `counts` is told where it matters.

        Raises:
            ValueError: it has no text where it must.
        """
