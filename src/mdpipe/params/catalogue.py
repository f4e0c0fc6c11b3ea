"""The catalogue: data sets of the literature, where they are to be had, and what is known about each of them.

The facts are in catalogue.yaml beside this file. Nothing here fetches anything: an entry holds the settings of a
source, and those of a dataset that follows the published convention, as params.yaml would have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml

from mdpipe.params.nearest import did_you_mean


@dataclass(frozen=True)
class Entry:
    """A data set, or the part of one on which models are only evaluated."""

    title: str
    """What the literature calls it."""
    modality: Literal["text", "image"]
    """What it consists of."""
    source: Mapping[str, Any]
    """The settings of a source in params.yaml, without `path`."""
    dataset: Mapping[str, Any] | None
    """Suggested settings of a dataset on it, without its tokenizer; None where it is only evaluated, as zero-shot
    corpora are."""
    licence: str
    """As its authors or its hub state it, or that they state none."""
    citation: str
    """Authors, title and year, in one line."""
    home: str
    """The address of its authors, or where they have none, of the hub."""
    counts: Mapping[str, int] | None
    """What has been published of its size: rows or pictures by split, or characters. None where nothing has."""
    note: str | None
    """Which convention the settings follow, and what is known to differ between papers."""
    files: str | None = None
    """Of a set that is not to be had without a login, or from its authors: which files are to lie in the folder that is
    the source's `path`, and who has them. None where they are fetched."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that the source has itself; none where it is one text."""
        pattern = self.source.get("pattern")
        return tuple(self.source.get("splits") or (pattern if isinstance(pattern, Mapping) else ()))


@cache
def catalogue() -> Mapping[str, Entry]:
    """All entries by name, in the order of the file."""
    text = files(__package__).joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: Entry(**facts) for name, facts in yaml.safe_load(text).items()})


def entry(name: str) -> Entry:
    """The data set of this name.

    Raises:
        ValueError: the catalogue has none; the message names the nearest and all there are.
    """
    entries = catalogue()
    if name not in entries:
        hint = did_you_mean(name, entries)
        raise ValueError(f"the catalogue has no data set {name!r}{hint}; it has: {', '.join(entries)}")
    return entries[name]
