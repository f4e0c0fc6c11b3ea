"""The catalog of benchmark datasets: where to get each one, its size, splits and license.

The facts are in catalog.yaml. Nothing is fetched here: an entry holds the settings of a source, and those of a dataset
that follows the published convention, as they would be written in params.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml

from mdpipe.params.errors import did_you_mean


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset, or a split of one that is only evaluated."""

    title: str
    """Common name of the dataset."""
    modality: Literal["text", "image"]
    source: Mapping[str, Any]
    """The settings of a source in params.yaml, without `path`."""
    dataset: Mapping[str, Any] | None
    """Suggested settings of a dataset, without its tokenizer; None for zero-shot corpora, which are only evaluated."""
    license: str
    """License that its authors or the Hub state, or that they state none."""
    citation: str
    """Authors, title and year, in one line."""
    home: str
    """The authors' page, or the one on the Hub if there is none."""
    counts: Mapping[str, int] | None
    """Published sizes: rows or images by split, or characters. None if none are published."""
    note: str | None
    """Convention that the settings follow, and known differences between papers."""
    files: str | None = None
    """Files that users must download into the folder `path`, and where to get them; None if they are fetched."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits of the source; empty if it is one text."""
        pattern = self.source.get("pattern")
        return tuple(self.source.get("splits") or (pattern if isinstance(pattern, Mapping) else ()))


@cache
def load_catalog() -> Mapping[str, CatalogEntry]:
    """Return all entries by name, in the order of the file."""
    text = files(__package__).joinpath("catalog.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: CatalogEntry(**facts) for name, facts in yaml.safe_load(text).items()})


def find_entry(name: str) -> CatalogEntry:
    """Return the entry of this name.

    Raises:
        ValueError: There is none; the message names the nearest one and all others.
    """
    entries = load_catalog()
    if name not in entries:
        hint = did_you_mean(name, entries)
        raise ValueError(f"the catalog has no data set {name!r}{hint}; it has: {', '.join(entries)}")
    return entries[name]
