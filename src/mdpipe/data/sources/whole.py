"""A source that is small enough to be read in one go."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from mdpipe.data.raw.material import Document, Pictures

BATCH = 256
"""Pictures that travel together, so that a shard can end between them."""


@dataclass(frozen=True)
class Whole:
    """The only part of a source: what a function of a module gives."""

    function: Callable[..., Iterator[Document] | Pictures]
    settings: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    size: int = 0
    files: int = 0
    """The user's files that it is read from; what comes with packages is none."""

    def read(self, counts: Counter[str]) -> Iterator[Document] | Iterator[Pictures]:
        """All of it."""
        counts["files"] += self.files
        material = self.function(**self.settings)
        return _batches(material) if isinstance(material, Pictures) else material


def _batches(pictures: Pictures) -> Iterator[Pictures]:
    for start in range(0, len(pictures.images), BATCH):
        rows = slice(start, start + BATCH)
        yield replace(
            pictures,
            images=pictures.images[rows],
            groups=None if pictures.groups is None else pictures.groups[rows],
            labels=None if pictures.labels is None else pictures.labels[rows],
        )
