"""What a part of a source is read from: some lines of a file, some files, some rows of a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class Extent(Protocol):
    """What one process reads; how large it is and where it belongs is known before that."""

    @property
    def split(self) -> str | None:
        """The split that the source itself puts it in, if it does."""

    @property
    def size(self) -> int:
        """Bytes, about."""


class Table(Extent, Protocol):
    """Some rows of a table."""

    @property
    def files(self) -> int:
        """Files that begin here."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, values by column) of each."""


AnyExtent = TypeVar("AnyExtent", bound=Extent)


@dataclass(frozen=True)
class PartOf(Generic[AnyExtent]):
    """A part of a source that has split and size of what it is read from."""

    extent: AnyExtent

    @property
    def split(self) -> str | None:
        """The split that the source itself puts it in, if it does."""
        return self.extent.split

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self.extent.size
